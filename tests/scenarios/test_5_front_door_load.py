"""Sixteen clients that stream through the gateway of the staging host, while something is restarted or switched.

What can be had without the staging host (a killed replica, new keys, a new certificate) is in test_0_gateway_load.py
and test_0_gateway_keys.py. The model there writes some 17 tokens/s for all clients together, so answers are short.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from typing import Any

import pytest

from staging import host, settings
from tests.scenarios.ansible_run import run_playbook
from tests.scenarios.conftest import StagingHost
from tests.scenarios.load import Load, under_load
from tests.scenarios.services import container_states, everything_serves, services
from tests.scenarios.switching import deployed, switch, wait_for_end
from tests.scenarios.waiting import wait_for

pytestmark = pytest.mark.long

CLIENTS = ("--clients", "16", "--only-streams", "--tokens", "4")
FIRST, SECOND = "smollm2-135m-instruct", "smollm2-second"
# As other machines ask: Docker's proxies of the loopback ports end with the daemon, and connections with them.
OUTSIDE = f"https://{settings.HOST_ADDRESS}:8443/v1"
AUTHORITY = "/srv/pageindex-home/data/gateway/certificates/ca.crt"
SECONDS = 120.0


@pytest.fixture(scope="module")
def key(finished_host: StagingHost) -> Iterator[str]:
    """A key for the clients, taken away afterwards."""
    name = f"load-{time.time_ns()}"
    made = run_playbook("playbooks/api_keys.yml", "-e", f"create={name}", "-e", "scopes=llm", timeout=120)
    assert made.returncode == 0, made.explain()
    [secret] = set(re.findall(r"pih_[A-Za-z0-9_-]{43}", made.output))
    yield secret
    run_playbook("playbooks/api_keys.yml", "-e", f"revoke={name}", timeout=120)


@pytest.fixture
def outside(key: str) -> dict[str, Any]:
    """Where, and as who, the clients ask."""
    wait_for("a healthy start", everything_serves, 180)
    return {"arguments": (*CLIENTS, "--key", key, "--authority", AUTHORITY), "url": OUTSIDE}


def nothing_lost(load: Load) -> None:
    """Every request was answered in full."""
    seen = load.report
    print(f"clients: {seen}")
    assert seen["failed"] == 0 and seen["truncated"] == 0, seen["failures"]
    assert seen["served"] >= 2 * 16, seen


def rest_of(seconds: float, begun: float) -> None:
    """Let the clients ask until so long after the beginning."""
    wait_for("the time to pass", lambda: time.monotonic() - begun > seconds, seconds + 10)


def test_docker_restarts(outside: dict[str, Any]) -> None:
    before, begun = container_states(), time.monotonic()
    with under_load(*outside["arguments"], url=outside["url"]) as load:
        rest_of(SECONDS / 4, begun)
        host.execute("systemctl restart docker", check=True)
        wait_for("units and containers after the restart", everything_serves, 120)
        rest_of(SECONDS, begun)
    assert container_states() == before
    nothing_lost(load)


def test_vllm_is_restarted_through_its_unit(outside: dict[str, Any]) -> None:
    """The unit itself drains the server before it stops."""
    before, begun = container_states(), time.monotonic()
    with under_load(*outside["arguments"], url=outside["url"]) as load:
        rest_of(SECONDS / 4, begun)
        host.execute(f"systemctl restart pageindex-home@{services()['vllm']}.service", check=True, timeout=400)
        wait_for("everything to serve", everything_serves, 300)
        rest_of(SECONDS, begun)
    assert container_states()["vllm"] != before["vllm"]
    nothing_lost(load)
    assert load.report["waited"] > 0, load.report


def test_the_model_is_switched(outside: dict[str, Any]) -> None:
    there = deployed()
    wanted, begun = (SECOND if there == FIRST else FIRST), time.monotonic()
    try:
        with under_load(*outside["arguments"], url=outside["url"]) as load:
            run = switch(wanted).finish(500)
            rest_of(SECONDS, begun)
        assert run.returncode == 0, run.explain()
        nothing_lost(load)
        assert load.report["waited"] > 0, load.report
    finally:
        # Scenarios that follow expect the inventory's model.
        if wait_for_end()["current"]["record"]["model"] != FIRST:
            switch(FIRST).finish(500)
