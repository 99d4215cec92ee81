"""Has a model in a directory of Ollama's, under its own name and further ones.

The services' network has no way out, so a server of its own fetches the model: a container of the same image on a
network with one, which lives as long as the download. What arrived before an interruption is kept by Ollama.

Whether a model is there is read from the directory itself: ``manifests/HOST/NAMESPACE/NAME/TAG`` is a JSON document
that names the blobs, ``blobs/sha256-…`` holds them. Another name for a model is a copy of its manifest.

Runs on the managed host, inside Ansible to look, and as a systemd unit to fetch (see host_job.py). Needs the docker
CLI; standard library only.
"""

from __future__ import annotations

import http.client
import json
import os
import shlex
import subprocess
import tempfile
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Callable

Report = Callable[..., None]

PORT = 11434
# Of the server before it answers, and of a download that sends nothing.
START_SECONDS = 60.0
SILENCE_SECONDS = 600.0
TRIES_WITHOUT_PROGRESS = 3
PAUSE_SECONDS = 5.0
# In memory: a proxy's password may not stay on a disk, or in what Docker tells of a container.
MEMORY_DIRECTORY = "/run"
NETWORK_FILE = "/run/secrets/network"
AUTHORITIES_FILE = "/run/secrets/certificate-authorities"
PROXY_VARIABLES = ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
DEFAULTS = ("registry.ollama.ai", "library")


class Failure(RuntimeError):
    """What went wrong, what was expected, and what to do next."""


class _Broken(Exception):
    """The download broke off; what arrived is kept."""


def manifest_path(directory: str, name: str) -> Path:
    """Where Ollama keeps the manifest of a name such as qwen3:4b or hf.co/owner/model:Q4_K_M."""
    path, _, tag = name.rpartition(":") if ":" in name.rpartition("/")[2] else (name, "", "latest")
    parts = path.split("/")
    return Path(directory, "manifests", *DEFAULTS[: max(3 - len(parts), 0)], *parts, tag)


def read_manifest(directory: str, name: str) -> dict[str, Any] | None:
    """The manifest of a name; None where there is none that can be read."""
    return _read(manifest_path(directory, name))


def _read(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def blobs(manifest: Mapping[str, Any]) -> dict[str, int]:
    """Digest → size of everything that a model consists of."""
    layers = [*(manifest.get("layers") or []), manifest.get("config") or {}]
    return {str(layer["digest"]): int(layer.get("size") or 0) for layer in layers if layer.get("digest")}


def is_complete(directory: str, manifest: Mapping[str, Any]) -> bool:
    """Whether every blob is there in its size. Ollama checks the digest itself before a blob gets its name."""
    wanted = blobs(manifest)
    for digest, size in wanted.items():
        try:
            found = os.stat(os.path.join(directory, "blobs", digest.replace(":", "-"))).st_size
        except OSError:
            return False
        if found != size:
            return False
    return bool(wanted)


def missing_names(arguments: Mapping[str, Any], manifest: Mapping[str, Any]) -> list[str]:
    """The further names that do not stand for this model.

    In a directory of the owner's a name may be that of another model of theirs: it goes on standing for that one, which
    would else lose its name, and then, as Ollama tidies up at its next start, itself. Only the first of the names,
    which is ours, goes from model to model.
    """
    directory, names = arguments["directory"], arguments["names"]
    found = {name: read_manifest(directory, name) or {} for name in names}
    missing = [name for name in names if name != arguments["model"] and blobs(found[name]) != blobs(manifest)]
    if not arguments.get("owners"):
        return missing
    return [name for name in missing if name == names[0] or not is_complete(directory, found[name])]


def last_name(arguments: Mapping[str, Any], manifest: Mapping[str, Any]) -> str:
    """A name in a directory of the owner's that would be taken from a model that has no other one; "" for none."""
    directory = arguments["directory"]
    for name in missing_names(arguments, manifest) if arguments.get("owners") else []:
        model = blobs(read_manifest(directory, name) or {})
        place = manifest_path(directory, name)
        others = (path for path in Path(directory, "manifests").rglob("*") if path.is_file() and path != place)
        if model and not any(blobs(_read(path) or {}) == model for path in others):
            return name
    return ""


def check(arguments: dict[str, Any]) -> dict[str, Any] | None:
    """The result when the model and its names are there, else None."""
    manifest = read_manifest(arguments["directory"], arguments["model"])
    if manifest is None or not is_complete(arguments["directory"], manifest) or missing_names(arguments, manifest):
        return None
    return _result(arguments, manifest)


def _result(arguments: Mapping[str, Any], manifest: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "model": arguments["model"],
        "names": list(arguments["names"]),
        "bytes_total": sum(blobs(manifest).values()),
    }


class PullProgress:
    """Adds up the layers of a pull from the lines that Ollama sends."""

    def __init__(self) -> None:
        self._layers: dict[str, tuple[int, int]] = {}

    def add(self, line: Mapping[str, Any]) -> None:
        """Take in one line of the stream. Raises Failure or _Broken where it tells of an error."""
        if line.get("error"):
            raise _error(str(line["error"]))
        if line.get("digest") and line.get("total"):
            self._layers[str(line["digest"])] = (int(line.get("completed") or 0), int(line["total"]))

    @property
    def done(self) -> int:
        """Bytes that have arrived."""
        return sum(done for done, _ in self._layers.values())

    @property
    def total(self) -> int:
        """Bytes of the layers seen so far."""
        return sum(total for _, total in self._layers.values())


def _error(words: str) -> Exception:
    """What an error of Ollama means: one that stays, or one that may pass."""
    lower = words.lower()
    if "file does not exist" in lower or "not found" in lower:
        return Failure(
            f"Ollama's library does not have the model: {words}. Expected a name and tag as "
            f"https://ollama.com/library lists them; correct ollama_model in the inventory."
        )
    if "no space left" in lower:
        return Failure(
            f"the disk of the models is full: {words}. Make room, or set ollama_data_directory, and run the play "
            f"again: it goes on where it was."
        )
    if "newer version of ollama" in lower or "permission denied" in lower or "read-only file system" in lower:
        return Failure(f"Ollama cannot fetch the model: {words}.")
    return _Broken(words)


def network_script(environment: Mapping[str, str]) -> str:
    """Lines for a shell that tell the container how to reach the network; "" where there is nothing to tell."""
    variables = {name: environment[name] for name in PROXY_VARIABLES if environment.get(name)}
    if _authorities(environment):
        variables["SSL_CERT_FILE"] = AUTHORITIES_FILE
    return "".join(f"export {name}={shlex.quote(value)}\n" for name, value in sorted(variables.items()))


def _authorities(environment: Mapping[str, str]) -> str:
    bundle = environment.get("SSL_CERT_FILE", "")
    return bundle if bundle and os.path.isfile(bundle) else ""


def container_command(arguments: Mapping[str, Any], script: str, authorities: str) -> list[str]:
    """The command that starts the container. `script` and `authorities` are files on the host, or ""."""
    name = arguments["container"]
    start = f"[ ! -e {NETWORK_FILE} ] || . {NETWORK_FILE}; exec ollama serve"
    files = [(script, NETWORK_FILE), (authorities, AUTHORITIES_FILE)]
    mounts = [f"type=bind,source={source},target={target},readonly" for source, target in files if source]
    environment = {
        "HOME": "/tmp",
        "NVIDIA_VISIBLE_DEVICES": "void",
        "OLLAMA_HOST": f"0.0.0.0:{PORT}",
        "OLLAMA_MODELS": "/models",
        # At its start Ollama deletes what is half fetched, unless it is told not to.
        "OLLAMA_NOPRUNE": "true",
    }
    # The labels are Compose's, so that a removal finds a container that an interruption left.
    labels = {
        "com.docker.compose.project": name,
        "com.docker.compose.project.working_dir": arguments["project_directory"],
    }
    return [
        "run", "--detach", "--init", f"--name={name}", f"--network={arguments['network']}",
        f"--user={arguments['user']}", "--read-only", "--cap-drop=ALL",
        "--security-opt=no-new-privileges:true", "--tmpfs=/tmp:size=64m,mode=1777",
        "--memory=2g", "--pids-limit=512",
        f"--mount=type=bind,source={arguments['directory']},target=/models",
        *(f"--mount={mount}" for mount in mounts),
        *(f"--env={key}={value}" for key, value in environment.items()),
        *(f"--label={key}={value}" for key, value in labels.items()),
        "--entrypoint=/bin/sh", arguments["image"], "-c", start,
    ]  # fmt: skip


def _docker(*arguments: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise Failure("the docker command was not found; run the docker_engine role first") from error


class Server:
    """Ollama's API at an address of the host. Never through a proxy: it is on this host."""

    def __init__(self, address: str, port: int = PORT) -> None:
        self._address = address
        self._port = port

    def lines(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Iterable[dict[str, Any]]:
        """The JSON lines of an answer, as they come. Raises Failure, or _Broken where trying again may help."""
        connection = http.client.HTTPConnection(self._address, self._port, timeout=SILENCE_SECONDS)
        try:
            content = None if body is None else json.dumps(body)
            connection.request(method, path, content, {"Content-Type": "application/json"})
            response = connection.getresponse()
            if response.status != 200:
                text = response.read().decode(errors="replace")
                try:
                    words = str(json.loads(text)["error"])
                except (ValueError, KeyError, TypeError):
                    words = f"{path} answered {response.status}: {text[:300]}"
                raise _error(words)
            for line in response:
                if line.strip():
                    yield json.loads(line)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise _Broken(f"{path}: {type(error).__name__} {error}") from error
        finally:
            connection.close()

    def wait(self, seconds: float, pause: float = 0.2) -> None:
        """Wait until the server answers. Raises Failure with `seconds`."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                list(self.lines("GET", "/api/version"))
            except _Broken as error:
                if time.monotonic() > deadline:
                    raise Failure(f"Ollama did not answer for {seconds:.0f} s: {error}") from error
                time.sleep(pause)
            else:
                return

    def pull(self, model: str, report: Report, pause: float = PAUSE_SECONDS) -> None:
        """Fetch a model. A download that breaks off goes on, as long as it gets further. Raises Failure."""
        furthest, tries = 0, 0
        while True:
            progress = PullProgress()
            try:
                for line in self.lines("POST", "/api/pull", {"model": model}):
                    progress.add(line)
                    status = str(line.get("status") or "")
                    # A layer's digest in the phase would make every layer one of its own.
                    phase = "fetching" if line.get("digest") else status
                    report(phase, done=progress.done, total=progress.total)
                    if status == "success":
                        return
                raise _Broken("the download ended without a word of success")
            except _Broken as error:
                tries = 0 if progress.done > furthest else tries + 1
                furthest = max(furthest, progress.done)
                if tries >= TRIES_WITHOUT_PROGRESS:
                    raise Failure(
                        f"fetching {model} broke off {tries} times without getting further: {error}. What arrived is "
                        f"kept; when https://registry.ollama.ai can be reached from the host, run the play again."
                    ) from error
                report(f"trying again: {error}", done=furthest, total=progress.total)
                time.sleep(pause)

    def copy(self, source: str, destination: str) -> None:
        """Give a model a further name. Raises Failure."""
        try:
            list(self.lines("POST", "/api/copy", {"source": source, "destination": destination}))
        except _Broken as error:
            raise Failure(f"Ollama did not give {source} the name {destination}: {error}") from error


def _address(container: str) -> str:
    """Where the host reaches the container. Raises Failure with its last words when it does not run."""
    found = _docker("container", "inspect", container)
    inspected = json.loads(found.stdout or "[]")
    if not inspected or not inspected[0]["State"]["Running"]:
        logs = _docker("logs", "--tail", "20", container)
        raise Failure(f"the container {container} ended: {(logs.stdout + logs.stderr).strip() or found.stderr.strip()}")
    networks = inspected[0]["NetworkSettings"]["Networks"].values()
    addresses = [network["IPAddress"] for network in networks if network.get("IPAddress")]
    if not addresses:
        raise Failure(f"the container {container} has no address on any network")
    return str(addresses[0])


def run(arguments: dict[str, Any], report: Report) -> dict[str, Any]:
    """Fetch the model where it is not complete, and give it its names.

    Arguments: model, names, directory (of Ollama's models), image, network (with a way out), user (uid:gid, who may
    write the directory), container (name of the one that fetches), project_directory (that a removal knows it by),
    owners (whether the directory was there before: its names stay as they are, see `missing_names`). Raises Failure.
    """
    directory, model, container = arguments["directory"], arguments["model"], arguments["container"]
    memory = MEMORY_DIRECTORY if os.access(MEMORY_DIRECTORY, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="pageindex-home-ollama-", dir=memory) as folder:
        script = network_script(os.environ)
        path = os.path.join(folder, "network") if script else ""
        if script:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o400)
            with os.fdopen(descriptor, "w", encoding="utf-8") as handle:
                handle.write(script)
            user, _, group = arguments["user"].partition(":")
            os.chown(path, int(user), int(group))
        report("starting Ollama")
        # Of a run that was killed.
        _docker("rm", "--force", container)
        try:
            started = _docker(*container_command(arguments, path, _authorities(os.environ)))
            if started.returncode != 0:
                raise Failure(f"the container {container} cannot be started: {started.stderr.strip()}")
            server = Server(_address(container))
            server.wait(START_SECONDS)
            manifest = read_manifest(directory, model)
            if manifest is None or not is_complete(directory, manifest):
                server.pull(model, report)
                manifest = read_manifest(directory, model)
            if manifest is None or not is_complete(directory, manifest):
                raise Failure(
                    f"Ollama says that it has {model}, but {manifest_path(directory, model)} and its blobs are not "
                    f"complete. This role reads the directory as Ollama 0.32 writes it: look at ollama_image."
                )
            only = last_name(arguments, manifest)
            if only:
                raise Failure(
                    f"{only} is to be a name of {model}, but in {directory} it is the only name of another model, "
                    f"which would be lost. Give that one a name of its own (`ollama cp {only} NAME` on the host), or "
                    f"delete it (`ollama rm {only}`), and run the play again."
                )
            for name in missing_names(arguments, manifest):
                report(f"naming it {name}")
                server.copy(model, name)
        finally:
            _docker("rm", "--force", container)
    wrong = missing_names(arguments, manifest)
    if wrong:
        raise Failure(f"Ollama copied {model}, but {', '.join(wrong)} is still something else in {directory}")
    return _result(arguments, manifest)
