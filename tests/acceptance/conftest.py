"""The host under test, what its inventory asks for, and what it reports: each found out once per session."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
import yaml

from tests.acceptance.containers import Containers
from tests.acceptance.http_on_host import HttpOnHost
from tests.skip_list import skip

HERE = Path(__file__).parent
REPOSITORY = HERE.parents[1]
USAGE = (
    "the acceptance suite needs a finished host: "
    "pytest tests/acceptance --hosts=ansible://gpu_hosts --ansible-inventory=inventory/home"
)

# testinfra looks for Ansible's programs on the PATH; they lie beside this Python, its environment activated or not.
os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
# Ansible refuses to run under a locale that is not UTF-8.
os.environ["LC_ALL"] = "C.UTF-8"

T = TypeVar("T")
_FOUND: dict[tuple[str, str], Any] = {}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark the suite's tests, and refuse to run them against a host that nobody named."""
    mine = [item for item in items if HERE in item.path.parents]
    for item in mine:
        item.add_marker(pytest.mark.acceptance)
    if mine and not (config.option.hosts and config.option.ansible_inventory):
        raise pytest.UsageError(USAGE)


def once(host: Any, what: str, find: Callable[[], T]) -> T:
    """Return what `find` returned for this host the first time; test modules share it."""
    key = (host.backend.host, what)
    if key not in _FOUND:
        _FOUND[key] = find()
    return _FOUND[key]


def _settings(inventory: str, name: str, folder: Path) -> dict[str, Any]:
    """Ask Ansible what the inventory and the roles' defaults amount to for the host `name`."""
    file = folder / f"{name}.json"
    playbook = subprocess.run(
        [
            "ansible-playbook",
            "-i",
            inventory,
            "--limit",
            name,
            "--tags",
            "settings",
            str(HERE / "settings.yml"),
        ],
        cwd=REPOSITORY,
        env=os.environ | {"ACCEPTANCE_SETTINGS": str(file), "LC_ALL": "C.UTF-8"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert playbook.returncode == 0, (
        f"the inventory's settings cannot be read:\n{playbook.stdout}{playbook.stderr}"
    )
    return json.loads(file.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def settings(
    _testinfra_host: Any, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """What the roles use on this host (settings.yml lists the names), as plain values."""
    inventory = request.config.option.ansible_inventory

    def find() -> dict[str, Any]:
        return _settings(inventory, _testinfra_host.backend.host, tmp_path_factory.mktemp("settings"))

    return once(_testinfra_host, "settings", find)


def share_connection(variables: dict[str, Any], path: Path) -> None:
    """Have every command use the connection at *path*, unless the inventory has named one."""
    names = ("ansible_ssh_common_args", "ansible_ssh_extra_args")
    arguments = [str(variables[name]) for name in names if variables.get(name)]
    if not any("controlpath" in argument.lower() for argument in arguments):
        variables[names[0]] = f"{variables.get(names[0]) or ''} -o ControlPath={path}".strip()


@pytest.fixture(scope="session")
def connections() -> Iterator[Path]:
    """Where each host's one SSH connection is found, which all commands share. The path of a socket has to be short."""
    with tempfile.TemporaryDirectory(prefix="hosts-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        yield folder
        for master in folder.glob("*"):
            command = ["ssh", "-o", f"ControlPath={master}", "-O", "exit", "host"]
            subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=30, check=False)


@pytest.fixture(scope="module")
def host(_testinfra_host: Any, settings: dict[str, Any], connections: Path) -> Iterator[Any]:
    """The host under test, as root."""
    # testinfra reads the inventory without resolving templates in it; Ansible has resolved them by now.
    backend = _testinfra_host.backend
    variables = backend.ansible_runner.inventory["_meta"]["hostvars"].setdefault(backend.host, {})
    variables.update({name: value for name, value in settings["connection"].items() if value})
    share_connection(variables, connections / hashlib.sha256(backend.host.encode()).hexdigest()[:8])
    if once(_testinfra_host, "user", lambda: _testinfra_host.check_output("id -u")) == "0":
        yield _testinfra_host
    else:
        with _testinfra_host.sudo():
            yield _testinfra_host


@pytest.fixture(scope="module")
def gpu_info(host: Any, settings: dict[str, Any]) -> dict[str, Any]:
    """The GPUs as NVML and the PCI bus report them (module pageindex.home.gpu_info)."""
    arguments = json.dumps({"root": settings["sysroot"]})

    def find() -> dict[str, Any]:
        return host.ansible("pageindex.home.gpu_info", arguments, check=False, become=True)

    return once(host, "gpu_info", find)


@pytest.fixture(scope="module")
def cards(settings: dict[str, Any]) -> None:
    """For what is about graphics cards: a host that serves from its processor has none, or other plans for them."""
    if settings["llm"]["device"] == "cpu":
        skip("served-by-the-processor")


@pytest.fixture(scope="session")
def catalogue() -> dict[str, dict[str, Any]]:
    """The facts under catalogue/, by file name."""
    return {
        path.stem: yaml.safe_load(path.read_text(encoding="utf-8"))
        for path in (REPOSITORY / "catalogue").glob("*.yml")
    }


@pytest.fixture(scope="module")
def deployed(host: Any, settings: dict[str, Any]) -> dict[str, Any]:
    """What is deployed as the model server, as the host keeps it."""
    state = json.loads(host.file(f"{settings['directories']['state']}/llm/state.json").content_string)
    return dict(state["current"])


@pytest.fixture(scope="module")
def containers(host: Any, deployed: dict[str, Any]) -> Containers:
    """The stack's containers, inspected once."""
    # The model server's replicas: vllm is the first one.
    names = [server["service"] for server in deployed["servers"]]
    services = {"vllm": names[0], **{name: name for name in names[1:]}, "pageindex": "pageindex", "gateway": "gateway"}
    return once(host, "containers", lambda: Containers(host, services))


@pytest.fixture(scope="module")
def http(host: Any, settings: dict[str, Any], documents_url: str) -> HttpOnHost:
    """Requests sent from the host itself; with a key where the document service wants one."""
    return HttpOnHost(host, documents_url if settings["documents"]["key_required"] else "")


def own_url(scheme: str, address: str, port: int | str) -> str:
    """Where the host itself reaches what listens on one of its addresses, or on all of them."""
    reachable = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address, address)
    return f"{scheme}://[{reachable}]:{port}" if ":" in reachable else f"{scheme}://{reachable}:{port}"


def _frontend_url(settings: dict[str, Any], name: str) -> str:
    """Where a frontend of the gateway answers on the host itself."""
    [frontend] = [entry for entry in settings["frontends"] if entry["name"] == name]
    return own_url("http", frontend["bind_address"], frontend["bind_port"])


@pytest.fixture(scope="module")
def llm_url(settings: dict[str, Any]) -> str:
    """The LLM's base URL on the host."""
    return _frontend_url(settings, "llm")


@pytest.fixture(scope="module")
def documents_url(settings: dict[str, Any]) -> str:
    """The document service's base URL on the host."""
    return _frontend_url(settings, "pageindex")
