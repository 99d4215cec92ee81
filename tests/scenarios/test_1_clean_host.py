"""Before the first change: what check mode promises, and what is refused."""

from __future__ import annotations

from staging import host
from tests.scenarios.ansible_run import run_playbook
from tests.scenarios.conftest import StagingHost
from tests.scenarios.fault_table import preflight


def test_a_clean_host_has_nothing_of_one_before(staging_host: StagingHost) -> None:
    found = host.execute("ls -A /srv /var/lib/docker", check=True).stdout.split()
    assert found == ["/srv:", "/var/lib/docker:"], "the staging host should have been made anew"


def test_check_mode_succeeds_on_a_clean_host(staging_host: StagingHost) -> None:
    run = run_playbook("site.yml", "--check", "--diff", timeout=300)
    assert run.returncode == 0, run.explain()
    staging_host.clean_check = run
    assert run.changed, "a clean host needs changes, check mode announced none"


# Inventory variables that cannot work, and what has to be said about each.
REFUSED = {
    "an unknown model": ({"vllm_model": "qwen3-70b"}, ["qwen3-70b", "qwen3-32b-awq"]),
    "another number of cards": ({"vllm_gpu_count_expected": 3}, ["vllm_gpu_count_expected is 3", "this host has 2"]),
    "a toolkit below the floor": ({"nvidia_toolkit_version": "1.18.0-1"}, ["1.18.0", "1.19.1", "CVE-2026-24260"]),
    "a flag that vLLM has no more": (
        {"vllm_extra_arguments": {"--enable-reasoning": True}},
        ["--enable-reasoning", "vllm_reasoning_parser"],
    ),
    "a variable that vLLM has no more": ({"vllm_environment": {"VLLM_USE_V1": "1"}}, ["VLLM_USE_V1"]),
}


def test_refused_before_any_change_and_all_at_once(staging_host: StagingHost) -> None:
    """In one run: each is a failure of its own in the report, so each would end a run by itself."""
    run, report = preflight([{"variables": variables} for variables, _ in REFUSED.values()], "site.yml")
    assert run.returncode == 2, run.explain()
    assert run.changed == []
    found = [failure["found"] for failure in report["failures"]]
    for name, (_, says) in REFUSED.items():
        assert any(all(text in line for text in says) for line in found), f"{name} is not refused: {found}"
