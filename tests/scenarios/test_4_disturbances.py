"""What a host has to survive: a hung engine, a restarted Docker daemon. Reboots: test_4_model_switch, test_7_power."""

from __future__ import annotations

import pytest

from staging import host
from tests.scenarios.acceptance_run import run_acceptance
from tests.scenarios.ansible_run import ad_hoc
from tests.scenarios.conftest import StagingHost
from tests.scenarios.services import container_states, everything_serves
from tests.scenarios.waiting import wait_for


def test_hung_engine_is_restarted_by_itself_and_says_so(finished_host: StagingHost) -> None:
    wait_for("a healthy start", everything_serves, 60)
    before = container_states()["vllm"]
    since = host.execute("date '+%Y-%m-%d %H:%M:%S'", check=True).stdout.strip()
    stopped = host.execute("pkill -STOP --full 'VLLM::EngineCore'")
    assert stopped.returncode == 0, "no engine core process found: " + host.execute("ps axo args").stdout
    # vLLM itself notices nothing: that is why the engine is probed.
    answer = host.execute(
        'docker exec vllm python3 -c "import urllib.request as u; '
        "print(u.urlopen('http://127.0.0.1:8000/health', timeout=5).status)\""
    ).stdout
    assert answer.strip() == "200"
    wait_for("another vllm container start", lambda: container_states().get("vllm", before)[:2] != before[:2], 300)
    wait_for("vllm to be healthy again", everything_serves, 300)
    journal = host.execute(f"journalctl --unit pageindex-home@vllm.service --since '{since}' --no-pager").stdout
    assert "engine probe: " in journal and "the engine hangs. Ending the server" in journal, journal[-4000:]


def test_docker_restart_leaves_the_containers_running(finished_host: StagingHost) -> None:
    wait_for("a healthy start", everything_serves, 60)
    before = container_states()
    host.execute("systemctl restart docker", check=True)
    # The units lose their connection and start again around the same containers; a second restart meets them waiting.
    wait_for("a unit that waits for its containers", lambda: "activating" in unit_states(), 60)
    host.execute("systemctl restart docker", check=True)
    wait_for("a unit that waits for its containers", lambda: "activating" in unit_states(), 60)
    wait_for("units and containers after the restarts", everything_serves, 120)
    assert container_states() == before


def unit_states() -> list[str]:
    units = " ".join(f"pageindex-home@{name}.service" for name in ("vllm", "pageindex", "gateway"))
    return host.execute(f"systemctl is-active {units}").stdout.split()


def test_a_container_keeps_its_gpus_over_daemon_reload_and_a_docker_restart(finished_host: StagingHost) -> None:
    wait_for("a healthy start", everything_serves, 120)
    arguments = {
        "image": "python:3.13-slim",
        "pynvml_path": "/opt/pageindex-home/lib/pynvml.py",
        "expected_count": 2,
        "root": "/var/lib/gpu-simulator/root",
        "restart_docker": True,
    }
    probe = ad_hoc("pageindex.home.container_gpu_probe", arguments)
    assert probe.returncode == 0, probe.stdout + probe.stderr
    wait_for("units and containers after the restart", everything_serves, 120)


@pytest.mark.long  # and before it, every time
def test_acceptance_suite_passes_after_all_of_it(finished_host: StagingHost) -> None:
    run = run_acceptance()
    assert run.returncode == 0, run.output
