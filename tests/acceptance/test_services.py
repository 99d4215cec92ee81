"""The systemd units: enabled, active, and the containers behind them healthy."""

from __future__ import annotations

from typing import Any

from tests.acceptance.containers import Containers

SYSTEM_UNITS = ("docker.service", "nvidia-persistenced.service", "nvidia-cdi-refresh.path")


def show(host: Any, *units: str) -> dict[str, dict[str, str]]:
    """The properties of units that matter here, by unit."""
    text = host.check_output(
        "systemctl show --property=Id,ActiveState,UnitFileState,Result,NRestarts" + " %s" * len(units), *units
    )
    blocks = [dict(line.split("=", 1) for line in block.splitlines()) for block in text.split("\n\n")]
    return {block["Id"]: block for block in blocks if block}


def test_units_are_enabled_and_active(host: Any, containers: Containers) -> None:
    units = (*SYSTEM_UNITS, *(f"pageindex-home@{name}.service" for name in containers.services.values()))
    states = {name: (unit["UnitFileState"], unit["ActiveState"]) for name, unit in show(host, *units).items()}
    assert states == dict.fromkeys(units, ("enabled", "active"))


def test_containers_are_healthy(containers: Containers) -> None:
    health = {name: containers[name]["State"].get("Health", {}).get("Status") for name in containers.names}
    assert health == dict.fromkeys(containers.names, "healthy")


def test_systemd_alone_restarts_the_services(containers: Containers) -> None:
    policies = {name: containers[name]["HostConfig"]["RestartPolicy"]["Name"] for name in containers.names}
    assert policies == dict.fromkeys(containers.names, "no")


def test_no_unit_of_the_stack_has_failed(host: Any) -> None:
    failed = host.check_output(
        "systemctl list-units --failed --plain --no-legend 'pageindex-home*' 'nvidia-*' docker.*"
    )
    assert failed.strip() == ""


def test_journal_has_the_services_output(host: Any, containers: Containers) -> None:
    for name in containers.services.values():
        lines = host.check_output(
            "journalctl --unit %s --lines 5 --no-pager --output cat", f"pageindex-home@{name}.service"
        )
        assert lines.strip(), f"journalctl shows nothing of {name}"


def test_what_runs_is_recorded(
    deployed: dict[str, Any], containers: Containers, settings: dict[str, Any]
) -> None:
    record = deployed["record"]
    assert record["repository"] == settings["llm"]["model"]["repository"]
    assert record["image_id"] == containers["vllm"]["Image"]
    assert record["config_hash"] == containers["vllm"]["Config"]["Labels"]["pageindex-home.config-hash"]
