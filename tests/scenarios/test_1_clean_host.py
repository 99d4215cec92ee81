"""Before the first change: what check mode promises, and what is refused."""

from __future__ import annotations

import pytest

from tests.scenarios.ansible_run import run_playbook
from tests.scenarios.conftest import StagingHost
from tests.scenarios.fault_table import preflight


def test_check_mode_succeeds_on_a_clean_host(staging_host: StagingHost) -> None:
    run = run_playbook("site.yml", "--check", "--diff", timeout=300)
    assert run.returncode == 0, run.explain()
    staging_host.clean_check = run
    assert run.changed, "a clean host needs changes, check mode announced none"


@pytest.mark.parametrize(
    ("variables", "says"),
    [
        pytest.param(
            {"vllm_model": "qwen3-70b"},
            ["qwen3-70b", "qwen3-32b-awq"],
            id="unknown-model",
        ),
        pytest.param(
            {"vllm_gpu_count_expected": 3},
            ["vllm_gpu_count_expected is 3", "this host has 2"],
            id="wrong-gpu-count",
        ),
        pytest.param(
            {"nvidia_toolkit_version": "1.18.0-1"},
            ["1.18.0", "1.19.1", "CVE-2026-24260"],
            id="toolkit-below-the-floor",
        ),
        pytest.param(
            {"vllm_extra_arguments": {"--enable-reasoning": True}},
            ["--enable-reasoning", "vllm_reasoning_parser"],
            id="removed-vllm-flag",
        ),
        pytest.param(
            {"vllm_environment": {"VLLM_USE_V1": "1"}},
            ["VLLM_USE_V1"],
            id="removed-environment-variable",
        ),
    ],
)
def test_refused_before_any_change(staging_host: StagingHost, variables: dict, says: list[str]) -> None:
    run, report = preflight([{"variables": variables}], "site.yml")
    assert run.returncode == 2, run.explain()
    assert run.changed == []
    found = " ".join(failure["found"] for failure in report["failures"])
    assert [text for text in says if text not in found] == [], found
