"""Builds a container image from files, under a tag that names their content.

The tag is put on at the very end, so an image that has it is complete. Nothing here
decides whether an image is up to date: the caller puts everything that matters into
the tag (see module_utils/image_content.py).

Runs on the managed host, inside Ansible to look, and as a systemd unit to pull and
build (see host_job.py). Needs the docker CLI; standard library only.
"""

from __future__ import annotations

import base64
import http.client
import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import tempfile
import urllib.parse
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Callable

Report = Callable[..., None]

DOCKER_SOCKET = "/var/run/docker.sock"
# A registry that sends nothing for this long is taken for lost. Unpacking is not silent.
SILENCE_SECONDS = 600
LINES_OF_A_FAILED_BUILD = 40
# What a build may need to reach the network. Handed over as a secret: an argument would stand in the process list, and
# in what Docker remembers of the build.
PROXY_VARIABLES = ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
# Where a Dockerfile finds the secrets that it asks for by `RUN --mount=type=secret,id=…`.
SECRETS_DIRECTORY = "/run/secrets"
BUNDLE_VARIABLES = ("PIP_CERT", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE")
# BuildKit takes no larger secret.
LARGEST_SECRET_BYTES = 500_000
# In memory: nothing of a secret may stay on a disk.
MEMORY_DIRECTORY = "/run"
BUILD_STEP = re.compile(r"^#\d+ (\[.*)$")


class Failure(RuntimeError):
    """What went wrong, what was expected, and what to do next."""


def _docker(*arguments: str, text_input: str | None = None) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            ["docker", *arguments],
            input=text_input,
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "DOCKER_BUILDKIT": "1"},
        )
    except FileNotFoundError as error:
        raise Failure("the docker command was not found; run the docker_engine role first") from error


def _inspect(image: str) -> dict[str, Any] | None:
    """What Docker knows about a local image, or None where it has none (or is not there)."""
    found = _docker("image", "inspect", image)
    if found.returncode != 0:
        return None
    inspected: dict[str, Any] = json.loads(found.stdout)[0]
    return inspected


def is_here(image: str) -> bool:
    """Whether an image is on this host. Without Docker none is."""
    return shutil.which("docker") is not None and _inspect(image) is not None


def check(arguments: dict[str, Any]) -> dict[str, Any] | None:
    """The result when the image is on this host, else None."""
    if shutil.which("docker") is None:
        return None
    image = _inspect(arguments["image"])
    return None if image is None else _result(arguments, image)


def _result(arguments: dict[str, Any], image: dict[str, Any]) -> dict[str, Any]:
    labels = image["Config"].get("Labels") or {}
    return {
        "image": arguments["image"],
        "image_id": image["Id"],
        "base_digest": labels.get("pageindex-home.base-digest", ""),
        "labels": labels,
    }


class _DockerConnection(http.client.HTTPConnection):
    """HTTP to the Docker Engine over its socket."""

    def __init__(self, path: str) -> None:
        super().__init__("docker", timeout=SILENCE_SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class PullProgress:
    """Adds up the layers of a pull from the messages of the Docker Engine."""

    def __init__(self) -> None:
        self._layers: dict[str, list[int]] = {}

    def add(self, message: dict[str, Any]) -> None:
        """Take in one message of the stream."""
        layer, detail = message.get("id"), message.get("progressDetail") or {}
        if not layer:
            return
        if message.get("status") == "Downloading" and detail.get("total"):
            self._layers[layer] = [int(detail["current"]), int(detail["total"])]
        elif message.get("status") in ("Download complete", "Pull complete") and layer in self._layers:
            self._layers[layer][0] = self._layers[layer][1]

    @property
    def done(self) -> int:
        """Bytes that have arrived."""
        return sum(layer[0] for layer in self._layers.values())

    @property
    def total(self) -> int:
        """Bytes of the layers seen so far: grows while the first ones arrive."""
        return sum(layer[1] for layer in self._layers.values())


def _has_registry_logins() -> bool:
    """Whether someone ran `docker login` on this host: then only the docker command knows the credentials."""
    configuration = Path(os.environ.get("DOCKER_CONFIG", "/root/.docker")) / "config.json"
    try:
        content = json.loads(configuration.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return any(content.get(key) for key in ("auths", "credHelpers", "credsStore"))


def _split(image: str) -> list[str]:
    """An image name as the engine's API wants it: name, and tag or digest."""
    if "@" in image:
        return image.split("@", 1)
    name, colon, tag = image.rpartition(":")
    return [name, tag] if colon and "/" not in tag else [image, "latest"]


def _pull(image: str, report: Report) -> None:
    """Pull an image with progress in bytes. Layers that arrived before an interruption are kept by Docker."""
    report(f"pulling {image}")
    if _has_registry_logins():
        pulled = _docker("pull", "--quiet", image)
        if pulled.returncode != 0:
            raise _pull_failed(image, pulled.stderr.strip())
        return
    name, tag = _split(image)
    connection = _DockerConnection(DOCKER_SOCKET)
    progress = PullProgress()
    try:
        query = urllib.parse.urlencode({"fromImage": name, "tag": tag})
        connection.request("POST", f"/images/create?{query}")
        response = connection.getresponse()
        if response.status != 200:
            raise _pull_failed(image, response.read().decode(errors="replace"))
        for line in response:
            if not line.strip():
                continue
            message = json.loads(line)
            if "error" in message:
                raise _pull_failed(image, message["error"])
            progress.add(message)
            report(f"pulling {image}", done=progress.done, total=progress.total)
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise _pull_failed(image, f"{type(error).__name__}: {error}") from error
    finally:
        connection.close()


def _pull_failed(image: str, reason: str) -> Failure:
    return Failure(
        f"pulling {image} failed: {reason}. Layers that arrived are kept; when the registry answers "
        f"(try `docker pull {image}` on the host), run the play again."
    )


def _digest(image: dict[str, Any]) -> str:
    """What identifies a pulled image everywhere: its repository digest, or its local id."""
    digests = image.get("RepoDigests") or [image["Id"]]
    return str(digests[0])


def _write_context(directory: Path, context: dict[str, dict[str, str]]) -> None:
    for name, entry in context.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(base64.b64decode(entry["content"]))
        # The same on every host: BuildKit's cache and the image see these modes.
        path.chmod(0o755 if entry.get("executable") else 0o644)


def build_secrets(environment: Mapping[str, str], directory: Path) -> list[str]:
    """Write what the steps of a build need to reach the network, and return the options that lend it to them.

    `downloads` is a shell script that sets variables, `certificate-authorities` the host's bundle, given only
    where the host has authorities of its own choice (SSL_CERT_FILE is set). Neither becomes part of the image or
    of its cache. Raises Failure when the bundle is too large.
    """
    variables = {name: environment[name] for name in PROXY_VARIABLES if environment.get(name)}
    options = []
    bundle = environment.get("SSL_CERT_FILE")
    if bundle and os.path.isfile(bundle):
        if os.path.getsize(bundle) > LARGEST_SECRET_BYTES:
            raise Failure(
                f"{bundle} has {os.path.getsize(bundle)} bytes, and an image build takes at most "
                f"{LARGEST_SECRET_BYTES}. Take authorities out of it that nobody needs (`dpkg-reconfigure "
                f"ca-certificates` on the host), then run the play again."
            )
        variables |= dict.fromkeys(BUNDLE_VARIABLES, f"{SECRETS_DIRECTORY}/certificate-authorities")
        options.append(f"--secret=id=certificate-authorities,src={bundle}")
    if not variables:
        return []
    script = directory / "downloads"
    descriptor = os.open(script, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as handle:
        handle.writelines(f"export {name}={shlex.quote(value)}\n" for name, value in sorted(variables.items()))
    return [f"--secret=id=downloads,src={script}", *options]


def _build(arguments: dict[str, Any], directory: Path, tag: str, labels: dict[str, str], report: Report) -> None:
    """Run `docker build`. Raises Failure with the end of its output."""
    memory = MEMORY_DIRECTORY if os.access(MEMORY_DIRECTORY, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="pageindex-home-build-", dir=memory) as secrets:
        _build_with(build_secrets(os.environ, Path(secrets)), arguments, directory, tag, labels, report)


def _build_with(
    options: list[str],
    arguments: dict[str, Any],
    directory: Path,
    tag: str,
    labels: dict[str, str],
    report: Report,
) -> None:
    command = ["docker", "build", "--progress=plain", f"--tag={tag}", *options]
    command += [f"--label={key}={value}" for key, value in sorted(labels.items())]
    command += [f"--build-arg={key}={value}" for key, value in sorted(arguments["build_args"].items())]
    command.append(str(directory))
    report("building")
    tail: deque[str] = deque(maxlen=LINES_OF_A_FAILED_BUILD)
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        universal_newlines=True,
        env={**os.environ, "DOCKER_BUILDKIT": "1"},
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            tail.append(line.rstrip())
            step = BUILD_STEP.match(line)
            report("building", detail=step.group(1)[:100] if step else "")
    if process.returncode != 0:
        raise Failure(
            f"building {arguments['image']} failed (docker build ended with {process.returncode}). "
            f"The end of its output:\n" + "\n".join(tail)
        )


def read_file(image: str, path: str) -> bytes:
    """A file out of an image, without running it. Raises Failure when there is none."""
    created = _docker("create", image, "true")
    if created.returncode != 0:
        raise Failure(f"docker create {image} failed: {created.stderr.strip()}")
    container = created.stdout.strip()
    try:
        with tempfile.TemporaryDirectory() as directory:
            copied = _docker("cp", f"{container}:{path}", f"{directory}/file")
            if copied.returncode != 0:
                raise Failure(f"{image} has no {path}, which its build should have written: {copied.stderr.strip()}")
            return (Path(directory) / "file").read_bytes()
    finally:
        _docker("rm", "--force", container)


def _label_line(labels: dict[str, Any]) -> str:
    """A Dockerfile LABEL instruction. JSON strings are what its parser takes as quoted words."""
    words = [f"{json.dumps(key)}={json.dumps(str(value)).replace('$', chr(92) + '$')}" for key, value in labels.items()]
    return "LABEL " + " ".join(words)


def _label_from_file(unfinished: str, arguments: dict[str, Any]) -> None:
    """Turn a JSON object that the build wrote into labels of the finished image."""
    source = arguments["labels_from"]
    found = json.loads(read_file(unfinished, source["path"]))
    labels = {f"{source['prefix']}{key.replace('_', '-')}": value for key, value in sorted(found.items())}
    # FROM a local tag, without a context: only the configuration changes.
    dockerfile = f"FROM {unfinished}\n{_label_line(labels)}\n"
    built = _docker("build", "--quiet", f"--tag={arguments['image']}", "-", text_input=dockerfile)
    if built.returncode != 0:
        raise Failure(f"labelling {arguments['image']} failed: {built.stderr.strip()}")
    _docker("rmi", unfinished)


def run(arguments: dict[str, Any], report: Report) -> dict[str, Any]:
    """Pull the base image where it is missing, build, label.

    Arguments: image (repository:tag, the result), base_image ("" for none), build_args, labels,
    labels_from (null, or {path, prefix}: a JSON object in the image whose entries become labels),
    context ({path: {content: base64, executable}}; it holds the Dockerfile).
    Raises Failure.
    """
    labels = dict(arguments["labels"])
    base = arguments["base_image"]
    if base:
        found = _inspect(base)
        if found is None:
            _pull(base, report)
            found = _inspect(base)
        if found is None:
            raise Failure(f"{base} was pulled, but `docker image inspect {base}` does not find it")
        labels["pageindex-home.base-image"] = base
        labels["pageindex-home.base-digest"] = _digest(found)

    source = arguments["labels_from"]
    tag = arguments["image"] + "-unfinished" if source else arguments["image"]
    with tempfile.TemporaryDirectory(prefix="pageindex-home-build-") as directory:
        _write_context(Path(directory), arguments["context"])
        _build(arguments, Path(directory), tag, labels, report)
    if source:
        report("labelling")
        _label_from_file(tag, arguments)
    image = _inspect(arguments["image"])
    if image is None:
        raise Failure(f"{arguments['image']} was built, but `docker image inspect` does not find it")
    return _result(arguments, image)
