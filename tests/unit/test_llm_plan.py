"""bin/llm-plan: options, output and exit statuses, called as a person calls it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.pageindex.home.plugins.module_utils.memory_plan.command import main
from tests.contract.repository import REPOSITORY

CASES = REPOSITORY / "tests" / "data" / "kv_cases.json"


def answer(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, Any]:
    status = main([*words, "--json"])
    return status, json.loads(capsys.readouterr().out)


def test_the_executable_works_from_anywhere(tmp_path: Path) -> None:
    program = REPOSITORY / "bin" / "llm-plan"
    done = subprocess.run(
        [sys.executable, program, "--model", "qwen3-8b"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "fits" in done.stdout.splitlines()[0]
    assert program.stat().st_mode & 0o111


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (["--model", "qwen3-32b-awq", "--gpus", "2", "--max-model-len", "32768"], 0),
        (["--model", "qwen3-32b-awq", "--max-model-len", "32768"], 3),
        (["--model", "qwen3-32b"], 2),
        (["--model", "qwen3-70b"], 1),
        (["--model", "qwen3-8b", "--gpu", "unheard"], 1),
        (["--model", "qwen3-8b", "--gpus", "two"], 1),
        (["--model", "qwen3-8b", "--tensor-parallel", "2"], 1),
        (["--model", "qwen3-8b", "--profile", "none"], 1),
        (["--config", "/nonexistent/config.json"], 1),
        ([], 1),
        (["--model", "qwen3-8b", "--all"], 1),
    ],
)
def test_exit_statuses(words: list[str], status: int, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        found = main(words)
    except SystemExit as ended:
        found = int(ended.code or 0)
    assert found == status
    said = capsys.readouterr()
    assert bool(said.err) == (status == 1)


def test_every_option_reaches_the_plan(capsys: pytest.CaptureFixture[str]) -> None:
    status, found = answer(
        capsys, "--model", "Qwen/Qwen3-VL-8B-Instruct", "--gpu", "rtx_5090", "--gpus", "2", "--gpu-total-mib", "32607",
        "--vllm-version", "0.33.0", "--utilization", "0.9", "--max-model-len", "16384", "--max-num-seqs", "8",
        "--max-num-batched-tokens", "4096", "--kv-cache-dtype", "fp8", "--tensor-parallel", "2", "--enforce-eager",
        "--language-model-only", "--requests", "2",
    )  # fmt: skip
    assert status == 0
    assert (found["tensor_parallel_size"], found["vllm_version"], found["requests"]) == (2, "0.33.0", 2)
    assert found["per_gpu_mib"]["vision"] == found["per_gpu_mib"]["cuda_graphs"] == 0
    assert found["words"] == [
        "--max-model-len", "16384", "--gpu-memory-utilization", "0.9", "--tensor-parallel-size", "2",
        "--max-num-seqs", "8", "--max-num-batched-tokens", "4096", "--kv-cache-dtype", "fp8", "--enforce-eager",
        "--language-model-only",
    ]  # fmt: skip


def test_a_model_of_ones_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = {"num_hidden_layers": 28, "hidden_size": 1024, "num_attention_heads": 16, "num_key_value_heads": 8,
              "intermediate_size": 3072, "vocab_size": 151936, "head_dim": 128}  # fmt: skip
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config), encoding="utf-8")
    status, found = answer(capsys, "--config", str(path), "--weight-bytes", "1200000000")
    assert (status, found["notes"]) == (0, [])
    assert found["per_gpu_mib"]["weights"] == 1144
    status, found = answer(capsys, "--config", str(path))
    assert found["notes"] == ["the size of the weights is computed from the architecture"]
    path.write_text("[]", encoding="utf-8")
    assert main(["--config", str(path)]) == 1


def test_a_profile_is_a_set_of_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    _, found = answer(capsys, "--model", "qwen3-8b", "--profile", "conservative", "--max-num-seqs", "4")
    assert found["settings"]["gpu_memory_utilization"] == 0.85
    assert found["settings"]["max_num_seqs"] == 4
    assert found["per_gpu_mib"]["cuda_graphs"] == 0


def test_what_would_help_is_on_the_page(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--model", "qwen3-32b-awq"]) == 3
    page = capsys.readouterr().out
    assert "what would help:" in page
    assert "--kv-cache-dtype fp8: fits" in page
    assert "KV pool" in page


def test_the_whole_catalogue(capsys: pytest.CaptureFixture[str]) -> None:
    status, found = answer(capsys, "--all", "--gpus", "2")
    assert status == 0
    verdicts = {entry["name"]: entry["verdict"] for entry in found}
    assert verdicts["qwen3-32b-awq"] == "fits"
    assert verdicts["llama-3.1-405b"] == "does_not_fit"
    assert main(["--all", "--gpu", "rtx_3060"]) == 0
    assert "qwen3-4b-awq" in capsys.readouterr().out


def test_a_file_of_cases(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    status, found = answer(capsys, "--cases", str(CASES))
    assert (status, len(found)) == (0, 123)
    assert set(found[0]) == {
        "id", "verdict", "kv_pool_gib", "kv_pool_tokens", "weights_gib", "max_context_tokens",
    }  # fmt: skip
    assert main(["--cases", str(CASES)]) == 0
    page = capsys.readouterr().out
    assert "dense, utilisation stated" in page
    assert "failed though said to fit: none" in page
    broken = tmp_path / "cases.json"
    broken.write_text("{}", encoding="utf-8")
    assert main(["--cases", str(broken)]) == 1
