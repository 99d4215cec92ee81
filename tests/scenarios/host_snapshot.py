"""What a host is made of, so that two ways of getting there can be compared."""

from __future__ import annotations

import json
import shlex

from staging import host

# Runs on the host. Left out: what differs between any two machines (keys, identities, caches), documents,
# the ids of images, which every build makes anew, and when and how quickly a model was switched to.
_PROGRAM = r"""
import hashlib, json, os, re, stat, subprocess, sys

def lines(*command):
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()

ROOTS = ("/etc", "/opt", "/usr/local", "/var/lib/pageindex-home", "/srv/pageindex-home/models")
LEFT_OUT = re.compile(
    r"/etc/(ssh/ssh_host_.*|machine-id|ld\.so\.cache|resolv\.conf|hostname|hosts|mtab|\.updated|\.pwd\.lock|"
    r"(passwd|shadow|group|gshadow|subuid|subgid)-?|apparmor\.d/cache/.*|ssl/certs/.*)$"
)
SECRET = re.compile(r"(key|token|secret|password)", re.IGNORECASE)
ANEW = ("image_id", "base_digest", "since", "last")

def lasting(value):
    if isinstance(value, dict):
        return {key: lasting(part) for key, part in value.items() if key not in ANEW}
    return value

def content(path):
    if SECRET.search(os.path.basename(path)) and path.startswith("/opt"):
        return "secret"
    if path.endswith("/.manifest.json"):
        return "times of the download"
    if path.endswith("/llm/observed.json"):
        return "what starts were measured to take"
    data = open(path, "rb").read()
    if path.startswith("/var/lib/pageindex-home") and path.endswith(".json"):
        data = json.dumps(lasting(json.loads(data)), sort_keys=True).encode()
    return hashlib.sha256(data).hexdigest()

files = {}
for root in ROOTS:
    for folder, _, names in os.walk(root):
        for name in names:
            path = os.path.join(folder, name)
            if LEFT_OUT.match(path):
                continue
            status = os.lstat(path)
            if stat.S_ISLNK(status.st_mode):
                files[path] = "-> " + os.readlink(path)
            elif stat.S_ISREG(status.st_mode):
                files[path] = "%o %d:%d %s" % (
                    stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid, content(path))

units = {}
for line in lines("systemctl", "list-unit-files", "--no-legend", "--plain"):
    name, state = line.split()[:2]
    units[name] = state
active = [line.split()[0] for line in lines("systemctl", "list-units", "--no-legend", "--plain", "--state=active",
                                            "--type=service,path,timer,socket")]
docker = {}
if os.path.exists("/usr/bin/docker"):
    docker["images"] = sorted(lines("docker", "image", "ls", "--format", "{{.Repository}}:{{.Tag}}"))
    docker["networks"] = sorted(lines("docker", "network", "ls", "--format", "{{.Name}} {{.Driver}} {{.Internal}}"))
    docker["containers"] = sorted(lines("docker", "ps", "--all", "--format", "{{.Names}} {{.Image}}"))

print(json.dumps({
    "packages": sorted(lines("dpkg-query", "-W", "-f", "${Package} ${Version} ${db:Status-Abbrev}\n")),
    "files": files,
    "units": units,
    "active": sorted(name for name in active if not name.startswith(("user@", "user-runtime", "systemd-", "session"))),
    "docker": docker,
}))
"""


def snapshot() -> dict:
    """Packages with holds, files with mode, owner and hash, units, and what Docker has, of the staging host."""
    return json.loads(host.execute(f"python3 -c {shlex.quote(_PROGRAM)}", check=True).stdout)


def differences(first: dict, second: dict) -> list[str]:
    """Every difference of two snapshots, one line each: "- …" is only in `first`, "+ …" only in `second`."""
    found = []
    for name in first:
        one, other = _items(first[name]), _items(second[name])
        found += [f"- {name}: {item}" for item in sorted(one - other)]
        found += [f"+ {name}: {item}" for item in sorted(other - one)]
    return found


def _items(content: list | dict) -> set[str]:
    if isinstance(content, list):
        return set(content)
    return {f"{key} {value}" for key, value in content.items()}
