"""Starts the depot (package repository, Python index, model hub) and the image registry."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

import requests

from staging import cache, hub, images, network, settings, wheels
from staging.depot import certificates
from staging.packages import build as packages
from staging.packages import docker_packages
from staging.steps import StepFailed, step

_SERVER = settings.REPOSITORY / "staging" / "depot" / "server.py"
_SIMULATOR = settings.REPOSITORY / "staging" / "gpu_simulator"
_PACKAGES = settings.REPOSITORY / "staging" / "packages"


def _repository(name: str) -> Path:
    """Return the folder with the signed package repository of that name, building it when its sources changed."""

    def build(folder: Path) -> None:
        if name == "docker":
            docker_packages.build_repository(folder)
        else:
            packages.build_repository(folder, name=name)

    sources = [_PACKAGES / "docker", _PACKAGES / "docker_packages.py", _PACKAGES / "keys.py"]
    if name != "docker":
        sources = [_SIMULATOR, _PACKAGES]
    with step(f"package repository {name}"):
        return cache.cached(f"apt-{name}", cache.content_hash(name, sources), build)


def ensure_repositories(*names: str) -> None:
    """Let the depot serve these package repositories too (keys of staging.packages.build.LAYOUTS).

    They are built when they are asked for; a depot that runs serves them at once, without a restart.
    Raises StepFailed with the failing program's output.
    """
    served = {name: folder for name, folder in _served().items() if (settings.CACHE / folder).is_dir()}
    for name in names:
        served[name] = _repository(name).name
    settings.REPOSITORIES.parent.mkdir(parents=True, exist_ok=True)
    settings.REPOSITORIES.write_text(json.dumps(served))


def _served() -> dict[str, str]:
    """Return which folder of the cache is served under which name."""
    return json.loads(settings.REPOSITORIES.read_text()) if settings.REPOSITORIES.exists() else {}


def repository(name: str = "driver") -> Path:
    """Return the folder of a repository that is served. Raises StepFailed for one that is not."""
    if name not in _served():
        raise StepFailed(f"the repository {name} is not served; call ensure_repositories({name!r}) first")
    return settings.CACHE / _served()[name]


def fingerprints(name: str = "key") -> list[str]:
    """Return the fingerprints of a key that repositories offer: key, second, both, wrong or expired."""
    return (repository() / f"{name}.fingerprint").read_text().split()


def _wait(url: str, verify: bool | str = True, seconds: float = 60) -> None:
    """Wait until `url` answers; raises StepFailed after `seconds`."""
    deadline = time.monotonic() + seconds
    with requests.Session() as session:
        session.trust_env = False
        while True:
            try:
                session.get(url, timeout=10, verify=verify).raise_for_status()
                return
            except requests.RequestException as error:
                if time.monotonic() > deadline:
                    logs = f"`docker logs {settings.DEPOT_NAME}` and `docker logs {settings.REGISTRY_NAME}`"
                    raise StepFailed(f"{url} did not answer within {seconds:.0f} s: {error}; see {logs}") from error
                time.sleep(0.2)


def registry_root() -> Path:
    """The registry's storage, kept in the cache so that images are pushed once."""
    root = settings.CACHE / "registry"
    (root / "data").mkdir(parents=True, exist_ok=True)
    return root


def ensure() -> None:
    """Build what the depot serves, start its containers, and push the stand-in images.

    Raises StepFailed with the failing program's output.
    """
    ensure_repositories("driver", "debian")
    index = wheels.index()
    vllm_image = images.vllm(wheels.vllm())
    models = hub.models(vllm_image)
    images.build(images.depot())
    network.ensure()
    for path, empty in ((settings.HUB_LOG, ""), (settings.HUB_FAULTS, "{}"), (settings.REPOSITORY_FAULTS, "{}")):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(empty)

    certificate = certificates.registry()
    # inventory/staging reads the authority from here, as an owner's inventory would from a file beside it.
    shutil.copy(certificate / "ca.crt", settings.STATE / "registry-ca.crt")
    (settings.STATE / "apt-key-fingerprint").write_text(fingerprints()[0])
    secured = certificates.depot()
    shutil.copy(secured / "ca.crt", settings.DEPOT_AUTHORITY)
    with step("depot and registry"):
        network.start(
            settings.DEPOT_NAME, images.depot().local_name, settings.DEPOT_ADDRESS,
            list(settings.DEPOT_NAMES),
            {_SERVER: "/server.py:ro", settings.CACHE: "/srv/cache:ro", secured: "/certificates:ro",
             index: "/srv/wheels:ro", models: "/srv/hub:ro", settings.HUB_LOG.parent: "/srv/log"},
            command=["python3", "/server.py", "80", "443", "/certificates", "/srv/cache",
                     f"/srv/log/{settings.REPOSITORIES.name}", f"/srv/log/{settings.REPOSITORY_FAULTS.name}",
                     "/srv/wheels", "/srv/hub",
                     f"/srv/log/{settings.HUB_LOG.name}", f"/srv/log/{settings.HUB_FAULTS.name}"],
            init=True,
        )
        host, port = settings.REGISTRY_PUSH.split(":")
        network.start(
            settings.REGISTRY_NAME, images.depot().local_name, settings.REGISTRY_ADDRESS, [settings.REGISTRY_DOMAIN],
            {registry_root() / "data": "/var/lib/registry", certificate: "/certificates:ro"},
            command=["docker-registry", "serve", "/etc/docker/registry/config.yml"],
            environment={
                "REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY": "/var/lib/registry",
                "REGISTRY_HTTP_ADDR": ":5000",
                "REGISTRY_HTTP_TLS_CERTIFICATE": "/certificates/server.crt",
                "REGISTRY_HTTP_TLS_KEY": "/certificates/server.key",
                "REGISTRY_AUTH": "none",
                "OTEL_TRACES_EXPORTER": "none",
            },
            port_bindings={5000: (host, int(port))},
            init=True,
        )
        _wait(f"http://{settings.DEPOT_ADDRESS}/healthz")
        _wait(f"https://{settings.REGISTRY_PUSH}/v2/", verify=str(certificate / "ca.crt"))
    for image in (images.python(), images.haproxy(), vllm_image):
        images.push(image, registry_root())


def ensure_ollama() -> None:
    """Have the registry serve the stand-in for Ollama, which only a host with a fallback wants."""
    images.push(images.ollama(), registry_root())


def faults(**values: object) -> None:
    """Make the hub misbehave as server.py describes; without arguments, behave again."""
    settings.HUB_FAULTS.write_text(json.dumps(values))


def repository_faults(**repositories: dict[str, object]) -> None:
    """Make package repositories misbehave as server.py describes; without arguments, all behave again.

    For example repository_faults(docker={"signed_by": "second", "key": "wrong"}); `-` in a name is `_` here.
    """
    faults = {name.replace("_", "-"): values for name, values in repositories.items()}
    settings.REPOSITORY_FAULTS.write_text(json.dumps(faults))


def hub_log() -> list[dict]:
    """Return the hub's requests so far, oldest first."""
    return [json.loads(line) for line in settings.HUB_LOG.read_text().splitlines()]
