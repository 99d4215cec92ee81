"""The staging host that all scenarios share, in the order of the files' names."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from staging import engine, host
from staging.depot import run as depot
from tests.scenarios.ansible_run import LOGS, Run, converge

HERE = Path(__file__).parent


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options for working on one scenario without starting from a clean host each time."""
    parser.addoption(
        "--keep-staging-host",
        action="store_true",
        help="scenarios use the staging host as it is instead of starting from a clean one",
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything in this folder is a scenario."""
    for item in items:
        if HERE in Path(item.path).parents:
            item.add_marker(pytest.mark.scenario)


@dataclass
class StagingHost:
    """The host, and what earlier scenarios learned about it."""

    clean_check: Run | None = None
    convergence: list[Run] = field(default_factory=list)
    finished: bool = False

    def hub_requests(self) -> list[dict]:
        """The hub's log: {time, method, path, range, authorized} for each request."""
        return depot.hub_log()


@pytest.fixture(scope="session")
def surroundings() -> None:
    """Docker, the stand-in images, and the servers around the host."""
    engine.install_packages()
    engine.ensure()
    depot.ensure()
    depot.faults()


@pytest.fixture(scope="session")
def staging_host(request: pytest.FixtureRequest, surroundings: None) -> StagingHost:
    """A running staging host: clean, unless --keep-staging-host is given."""
    host.up(fresh=not request.config.getoption("--keep-staging-host"))
    shutil.rmtree(LOGS, ignore_errors=True)
    return StagingHost()


@pytest.fixture(scope="session")
def finished_host(staging_host: StagingHost) -> StagingHost:
    """The staging host after a successful site.yml, run now unless a scenario has done it."""
    if not staging_host.finished:
        depot.faults()
        staging_host.convergence.append(converge())
        staging_host.finished = True
    return staging_host
