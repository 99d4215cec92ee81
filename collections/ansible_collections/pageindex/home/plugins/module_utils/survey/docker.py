"""Docker as it is on the host: whose it is, how it is configured, and what runs on it."""

from __future__ import annotations

import glob
import http.client
import json
import os
import re
import shlex
import shutil
import socket
from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.pageindex.home.plugins.module_utils.commands import Runner, run_command
from ansible_collections.pageindex.home.plugins.module_utils.survey.reading import read_text
from ansible_collections.pageindex.home.plugins.module_utils.survey.request import SurveyRequest

COMMAND_TIMEOUT_SECONDS = 10
SOCKET = "run/docker.sock"
SOCKET_TIMEOUT_SECONDS = 5
DAEMON_FILE = "etc/docker/daemon.json"
# Options that have another name in daemon.json: those that may be repeated, and short ones.
FILE_NAMES = {
    "H": "hosts",
    "host": "hosts",
    "D": "debug",
    "s": "storage-driver",
    "g": "data-root",
    "graph": "data-root",
    "G": "group",
    "b": "bridge",
    "l": "log-level",
    "p": "pidfile",
    "log-opt": "log-opts",
    "storage-opt": "storage-opts",
    "label": "labels",
    "insecure-registry": "insecure-registries",
    "registry-mirror": "registry-mirrors",
    "default-ulimit": "default-ulimits",
    "cluster-store-opt": "cluster-store-opts",
    "authorization-plugin": "authorization-plugins",
    "default-address-pool": "default-address-pools",
    "default-network-opt": "default-network-opts",
    "exec-opt": "exec-opts",
    "cdi-spec-dir": "cdi-spec-dirs",
    "dns-opt": "dns-opts",
    "feature": "features",
    "allow-nondistributable-artifacts": "allow-nondistributable-artifacts",
    "add-runtime": "runtimes",
}
SHOWN_SETTINGS = ("data-root", "default-runtime", "hosts", "tls", "tlsverify", "live-restore", "features", "runtimes")


def survey(request: SurveyRequest, host_root: str = "/", runner: Runner = run_command) -> dict[str, Any]:
    """The command, the service, its configuration, and what the running daemon says (sizes in MiB)."""
    command = shutil.which("docker")
    service = unit(host_root, runner)
    # Asking a socket of systemd would start a daemon that is stopped, and a survey changes nothing.
    stopped = service is not None and not service["active"]
    engine = Engine("" if stopped else os.path.join(host_root, SOCKET))
    return {
        "command": command,
        # Snap's and podman's commands are links to somewhere else.
        "command_target": os.path.realpath(command) if command else None,
        "daemon_file": daemon_file(host_root),
        "unit": service,
        "engine": engine.information(),
        "containers": engine.containers(),
        "images": engine.images(),
        "rootless_sockets": sorted(glob.glob(os.path.join(host_root, "run/user/*/docker.sock"))),
    }


def daemon_file(host_root: str = "/") -> dict[str, Any]:
    """daemon.json: present, error (why it cannot be used, None when it can), keys, and the settings that matter."""
    path = os.path.join(host_root, DAEMON_FILE)
    text = read_text(path)
    if text is None:
        return {"present": os.path.lexists(path), "error": None, "keys": [], "settings": {}}
    error, document = None, {}
    if text:
        try:
            loaded = json.loads(text)
            if isinstance(loaded, dict):
                document = loaded
            else:
                error = f"it holds a JSON {type(loaded).__name__}, an object is expected"
        except ValueError as problem:
            error = str(problem)
    settings = {name: document[name] for name in SHOWN_SETTINGS if name in document}
    if isinstance(settings.get("runtimes"), dict):
        settings["runtimes"] = sorted(settings["runtimes"])
    return {"present": True, "error": error, "keys": sorted(document), "settings": settings}


def unit(host_root: str, runner: Runner) -> dict[str, Any] | None:
    """The service: whether it is active, the files that define it, its options as daemon.json names them, and hosts.

    Values of other options are left out, some hold passwords. None when there is no such service.
    """
    names = ["ActiveState", "ExecStart", "FragmentPath", "DropInPaths", "Environment", "EnvironmentFiles"]
    asked = runner(
        ["systemctl", "show", "docker.service", *(f"--property={name}" for name in names)],
        timeout=COMMAND_TIMEOUT_SECONDS,
    )
    lines = [line.partition("=") for line in asked.stdout.splitlines()]
    values: dict[str, list[str]] = {}
    for name, _, value in lines:
        values.setdefault(name, []).append(value)
    fragment = "".join(values.get("FragmentPath", []))
    if not fragment:
        return None
    match = re.search(r"argv\[\]=(.*?) ; ignore_errors=", "\n".join(values.get("ExecStart", [])), re.DOTALL)
    environment = _environment(" ".join(values.get("Environment", [])), values.get("EnvironmentFiles", []), host_root)
    command = _expanded(match.group(1) if match else "", environment)
    options = daemon_options(command[1:])
    return {
        "active": values.get("ActiveState") == ["active"],
        "path": fragment,
        "drop_ins": " ".join(values.get("DropInPaths", [])).split(),
        "environment_files": [line.split(" (")[0] for line in values.get("EnvironmentFiles", []) if line],
        "options": sorted(options),
        "hosts": options.get("hosts", []),
    }


def _environment(inline: str, files: Sequence[str], host_root: str) -> dict[str, str]:
    """Variables of the service, those of files too."""
    assignments = _split(inline)
    for line in files:
        text = read_text(host_root, line.split(" (")[0].lstrip("/")) or ""
        for assignment in text.splitlines():
            if assignment.strip() and not assignment.strip().startswith("#"):
                name, _, value = assignment.strip().partition("=")
                assignments.append(f"{name}={' '.join(_split(value))}")
    return dict(assignment.split("=", 1) for assignment in assignments if "=" in assignment)


def _split(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError:
        return text.split()


def _expanded(command: str, environment: Mapping[str, str]) -> list[str]:
    """Words of a start command; a word $NAME becomes as many words as its value has."""
    words: list[str] = []
    for word in command.split():
        variable = re.fullmatch(r"\$\{?(\w+)\}?", word)
        words += environment.get(variable.group(1), "").split() if variable else [word]
    return words


def daemon_options(words: Sequence[str]) -> dict[str, list[str]]:
    """Options of dockerd → their values, by the names that daemon.json has for them."""
    options: dict[str, list[str]] = {}
    position = 0
    while position < len(words):
        word = words[position]
        position += 1
        match = re.fullmatch(r"--?([A-Za-z][A-Za-z0-9-]*)(?:=(.*))?", word)
        if not match:
            continue
        value = match.group(2)
        if value is None and position < len(words) and not words[position].startswith("-"):
            value = words[position]
            position += 1
        options.setdefault(FILE_NAMES.get(match.group(1), match.group(1)), []).append(value or "")
    return options


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("docker", timeout=SOCKET_TIMEOUT_SECONDS)
        self._path = path

    def connect(self) -> None:
        """Open the socket."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(SOCKET_TIMEOUT_SECONDS)
        self.sock.connect(self._path)


class Engine:
    """The daemon itself, asked directly: its command would start two processes for each question."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._answers = True

    def ask(self, path: str) -> Any:
        """The JSON answer, None without one."""
        if not self._answers or not os.path.exists(self._path):
            return None
        connection = UnixConnection(self._path)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            document = json.loads(answer.read())
            return document if answer.status == 200 else None
        except (OSError, http.client.HTTPException, ValueError):
            self._answers = False
            return None
        finally:
            connection.close()

    def information(self) -> dict[str, Any] | None:
        """Version and what it can do; None when no daemon answers."""
        information = self.ask("/info")
        if not isinstance(information, dict) or not information.get("ServerVersion"):
            return None
        return {
            "version": information["ServerVersion"],
            "storage_driver": information.get("Driver"),
            "root_directory": information.get("DockerRootDir"),
            "cdi_spec_directories": information.get("CDISpecDirs") or [],
            "live_restore": bool(information.get("LiveRestoreEnabled")),
            "default_runtime": information.get("DefaultRuntime"),
            "rootless": any("rootless" in str(option) for option in information.get("SecurityOptions") or []),
            "containers_running": information.get("ContainersRunning"),
        }

    def containers(self) -> list[dict[str, Any]] | None:
        """Running containers: id, name, image, project and folder of Compose, published ports."""
        listed = self.ask("/containers/json")
        if not isinstance(listed, list):
            return None
        found = []
        for container in listed:
            labels = container.get("Labels") or {}
            found.append(
                {
                    "id": container.get("Id"),
                    "name": str((container.get("Names") or ["?"])[0]).lstrip("/"),
                    "image": container.get("Image"),
                    "project": labels.get("com.docker.compose.project", ""),
                    "ours": any(str(name).startswith("pageindex-home.config") for name in labels),
                    "ports": sorted({port.get("PublicPort", 0) for port in container.get("Ports") or []} - {0}),
                }
            )
        return found

    def images(self) -> list[dict[str, Any]] | None:
        """Images with a name: names, and size in MiB."""
        listed = self.ask("/images/json")
        if not isinstance(listed, list):
            return None
        return [
            {"names": image.get("RepoTags") or [], "size_mib": int(image.get("Size") or 0) >> 20}
            for image in listed
            if image.get("RepoTags")
        ]
