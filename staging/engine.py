"""The Docker Engine of this machine: found, installed or started, and reached through its SDK."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path

import docker
import psutil

from staging import settings
from staging.steps import StepFailed, run, say

# What building and running the staging host needs from the distribution (Debian and Ubuntu names).
PACKAGES = {
    "dockerd": ("docker.io", "iptables"),
    "debootstrap": ("debootstrap",),
    "apt-ftparchive": ("apt-utils",),
    "dpkg-deb": ("dpkg",),
    "gcc": ("gcc", "libc6-dev"),
    "make": ("make",),
    "gpg": ("gnupg",),
    "ssh": ("openssh-client",),
    "openssl": ("openssl",),
}
_PID_FILE = settings.STATE / "dockerd.pid"


def install_packages() -> None:
    """Install the distribution packages whose commands are missing.

    Raises StepFailed where apt is not the package manager or an installation fails.
    """
    missing = sorted({name for command, names in PACKAGES.items() if not shutil.which(command) for name in names})
    if answers():
        missing = [name for name in missing if name not in PACKAGES["dockerd"]]
    if not missing:
        return
    if not shutil.which("apt-get"):
        raise StepFailed(f"these packages are missing and apt-get was not found: {', '.join(missing)}")
    say(f"installing {', '.join(missing)}")
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    run(["apt-get", "update", "-q"], environment=environment)
    # --no-install-recommends: docker.io recommends a rootless stack and a cgroup mounter that are not used here.
    run(["apt-get", "install", "-y", "-q", "--no-install-recommends", *missing], environment=environment)


def answers() -> bool:
    """Say whether a Docker Engine answers on this machine."""
    try:
        docker.from_env(timeout=10).ping()
    except (docker.errors.DockerException, OSError):
        return False
    return True


def client() -> docker.DockerClient:
    """Return an SDK client; requests may take up to 15 minutes (image pushes)."""
    return docker.from_env(timeout=900)


def ensure() -> None:
    """Make a Docker Engine answer: start the service, or dockerd itself where no service manager runs."""
    if answers():
        return
    settings.STATE.mkdir(exist_ok=True)
    log = settings.STATE / "dockerd.log"
    if Path("/run/systemd/system").is_dir():
        run(["systemctl", "start", "docker"])
    else:
        say("no service manager runs here: starting dockerd")
        Path("/var/run/docker.pid").unlink(missing_ok=True)
        with log.open("ab") as output:
            process = subprocess.Popen(
                ["dockerd"], stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
            )
        _PID_FILE.write_text(f"{process.pid}\n")
    deadline = time.monotonic() + 60
    while not answers():
        if time.monotonic() > deadline:
            tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:]) if log.exists() else ""
            raise StepFailed(f"Docker did not answer within 60 s.\n{tail}\nSee `journalctl -u docker` or {log}.")
        time.sleep(0.3)


def stop_own() -> None:
    """End the dockerd that `ensure` started, if it did; a Docker service of the machine is left alone."""
    if not _PID_FILE.exists():
        return
    try:
        process = psutil.Process(int(_PID_FILE.read_text()))
        if process.name() == "dockerd":
            process.terminate()
            process.wait(60)
    except (psutil.NoSuchProcess, ValueError):
        pass
    _PID_FILE.unlink(missing_ok=True)
