"""The menu of models: what the project promises of it, what each entry says of cards, and the page that shows it."""

from __future__ import annotations

import re
import shlex
import subprocess

import pytest

from ansible_collections.pageindex.home.plugins.module_utils.memory_plan.cards import find_card
from ansible_collections.pageindex.home.plugins.module_utils.memory_plan.plan import decide
from ansible_collections.pageindex.home.plugins.module_utils.memory_plan.sources import facts, shape_of_entry
from ansible_collections.pageindex.home.plugins.module_utils.memory_plan.verdict import DOES_NOT_FIT
from ansible_collections.pageindex.home.plugins.module_utils.memory_plan.wish import Wish
from ansible_collections.pageindex.home.plugins.module_utils.vllm_deployment import find_model
from tests.contract.repository import REPOSITORY, read_yaml

KNOWN = facts()
MODELS = KNOWN.models
# Weights in GB of what was collected for this project (published sizes of the repositories; ±0.1 %, "≈" ±1 %).
COLLECTED = {
    "Qwen/Qwen3-0.6B": 1.50, "Qwen/Qwen3-1.7B": 4.06,
    "Qwen/Qwen3-4B": 8.04, "Qwen/Qwen3-4B-AWQ": 2.67,
    "Qwen/Qwen3-8B": 16.38, "Qwen/Qwen3-8B-AWQ": 6.10, "Qwen/Qwen3-8B-FP8": 9.44,
    "Qwen/Qwen3-14B": 29.54, "Qwen/Qwen3-14B-AWQ": 9.98, "Qwen/Qwen3-14B-FP8": 16.33,
    "Qwen/Qwen3-32B": 65.52, "Qwen/Qwen3-32B-AWQ": 19.33, "Qwen/Qwen3-32B-FP8": 34.32,
    "Qwen/Qwen3-30B-A3B-Instruct-2507": 61.06, "Qwen/Qwen3-30B-A3B-Instruct-2507-FP8": 31.17,
    "Qwen/Qwen3-30B-A3B-Thinking-2507-FP8": 31.17, "Qwen/Qwen3-Coder-30B-A3B-Instruct-FP8": 31.17,
    "Qwen/Qwen3.5-27B": 55.56, "Qwen/Qwen3.5-27B-FP8": 30.86,
    "casperhansen/llama-3.3-70b-instruct-awq": 39.77,
}  # fmt: skip
# KV cache of one token at 16 bit, in bytes, by the beginning of the name.
KV_BYTES = {
    "qwen3-0.6b": 114_688, "qwen3-1.7b": 114_688, "qwen3-4b": 147_456, "qwen3-8b": 147_456, "qwen3-14b": 163_840,
    "qwen3-32b": 262_144, "qwen3-30b-a3b": 98_304, "qwen3.5-27b": 65_536, "llama-3.3-70b": 327_680,
}  # fmt: skip
# Families that owners ask for, by a pattern that an entry's repository has to match.
FAMILIES = (
    *(f"^Qwen/Qwen3-{size}B$" for size in ("0.6", "1.7", "4", "8", "14", "32")),
    *(f"^Qwen/Qwen3-{size}B-AWQ$" for size in ("4", "8", "14", "32")),
    *(f"^Qwen/Qwen3-{size}B-FP8$" for size in ("0.6", "1.7", "4", "8", "14", "32")),
    "Qwen3-30B-A3B-Instruct-2507", "Qwen3-30B-A3B-Thinking-2507", "Qwen3-Coder-30B-A3B", "Qwen3.5-27B",
    r"Qwen3\.[5-9]-35B-A3B", "Qwen3-VL", "llama-3.3-70b-instruct-awq", "Llama-3.2", "Qwen2.5-7B", "mistralai/Mistral",
    "microsoft/[Pp]hi",
)  # fmt: skip
# The licences that a family is published under.
LICENCES = {"Qwen": "apache-2.0", "Mistral": "apache-2.0", "Mixtral": "apache-2.0", "phi": "mit"}


@pytest.mark.parametrize("pattern", FAMILIES)
def test_what_owners_ask_for_is_on_the_menu(pattern: str) -> None:
    assert [name for name, model in MODELS.items() if re.search(pattern, model["repository"])]


@pytest.mark.parametrize("repository", COLLECTED)
def test_sizes_are_those_that_were_collected(repository: str) -> None:
    [model] = [model for model in MODELS.values() if model["repository"] == repository]
    assert model["weight_bytes"] == pytest.approx(COLLECTED[repository] * 1e9, rel=0.002)
    assert "weight_bytes_estimated" not in model


@pytest.mark.parametrize("name", sorted(MODELS))
def test_the_cache_of_a_token_is_that_which_was_collected(name: str) -> None:
    expected = {size for start, size in KV_BYTES.items() if re.match(rf"{re.escape(start)}(-|$)", name)}
    if expected:
        shape = shape_of_entry(name, MODELS[name], KNOWN)
        assert {2 * shape.full_layers * shape.kv_heads * shape.head_dim * 2} == expected


@pytest.mark.parametrize("name", sorted(MODELS))
def test_contexts_are_those_of_the_family(name: str) -> None:
    model = MODELS[name]
    if re.match(r"Qwen/Qwen3-[\d.]+B(-AWQ|-FP8)?$", model["repository"]):
        assert model["native_context"] == 32768
        assert model["extended_context"] == {"tokens": 131072, "how": "yarn_4"}
    elif re.search(r"2507|Coder-30B|Qwen3\.[5-9]", model["repository"]):
        assert model["native_context"] == 262144
        assert "extended_context" not in model


@pytest.mark.parametrize("name", sorted(MODELS))
def test_licence_and_gate(name: str) -> None:
    model = MODELS[name]
    for family, licence in LICENCES.items():
        if family.lower() in model["repository"].rpartition("/")[2].lower():
            assert model["license"] == licence
    # Meta asks everyone to accept; copies by others do not.
    assert model["gated"] == model["repository"].startswith("meta-llama/")
    assert model["license"].startswith("llama") == ("llama" in name)


@pytest.mark.parametrize("name", sorted(MODELS))
def test_parsers_are_those_of_the_family(name: str) -> None:
    """Instruct and coder models do not reason; the newer ones call tools in the coder's form."""
    repository, reasoning = MODELS[name]["repository"], MODELS[name]["reasoning_parser"]
    tools = MODELS[name]["tool_call_parser"]
    if "Qwen3" in repository:
        assert reasoning == (None if re.search("Instruct|Coder", repository) else "qwen3")
        assert tools == ("qwen3_coder" if re.search(r"Coder|Qwen3\.[5-9]", repository) else "hermes")
    else:
        assert reasoning is None
        families = {"llama": "llama3_json", "mistral": "mistral", "mixtral": "mistral", "qwen2.5": "hermes"}
        assert all(tools == parser for family, parser in families.items() if name.startswith(family))


@pytest.mark.parametrize("name", [name for name, model in sorted(MODELS.items()) if model.get("refused")])
def test_a_no_says_why_in_sizes(name: str) -> None:
    size = round(MODELS[name]["weight_bytes"] / 1e9)
    assert MODELS[name]["refused"].startswith(f"{size} GB of weights; two 32 GB cards hold 64")


def test_a_model_that_does_not_exist_is_answered_with_the_nearest() -> None:
    _, [problem] = find_model("Qwen3-70B", MODELS)
    [nearest] = re.findall(r"'Qwen3-70B' is not known\. Nearest: ([\w.-]+)\. ", problem)
    # The same family, and a model that two 32 GB cards hold.
    assert nearest.startswith("qwen3") and not MODELS[nearest].get("refused")
    shape = shape_of_entry(nearest, MODELS[nearest], KNOWN)
    assert decide(shape, find_card("rtx_5090", KNOWN.gpus), 2, Wish()).verdict != DOES_NOT_FIT
    finished = subprocess.run(
        [REPOSITORY / "bin" / "llm-plan", "--model", "Qwen3-70B"], capture_output=True, text=True, check=False
    )
    assert finished.returncode == 1
    assert f"does not exist in the catalogue; nearest: {nearest}" in finished.stderr


COUNTS = {"one": 1, "two": 2, "four": 4, "": 1}
# "one 24 or 32 GB card", "16 to 24 GB cards", "two 32 GB cards"
STATED = re.compile(r"\b(?:(one|two|four) )?(?:(\d+) (?:or|to) )?(\d+) GB card")


@pytest.mark.parametrize("name", sorted(MODELS))
def test_what_a_model_is_good_at_is_said_of_cards_that_it_fits(name: str) -> None:
    shape = shape_of_entry(name, MODELS[name], KNOWN)
    for count, *sizes in STATED.findall(MODELS[name]["good_at"]):
        for size in filter(None, sizes):
            cards = [key for key, card in KNOWN.gpus.items() if abs(card["memory_mib"] / 1024 - int(size)) < 1]
            assert cards, f"no card of {size} GB in the catalogue"
            able = [key for key in cards if KNOWN.gpus[key]["compute_capability"] >= needed(name)]
            plans = [
                decide(shape, find_card(key, KNOWN.gpus), COUNTS[count], Wish(sequences=16)) for key in able or cards
            ]
            assert any(plan.verdict != DOES_NOT_FIT for plan in plans), f"{count} {size} GB: {plans[0].reasons}"


def needed(name: str) -> str:
    return str(MODELS[name]["min_compute_capability"])


def test_the_page_shows_what_the_command_on_it_says() -> None:
    page = (REPOSITORY / "docs" / "models.md").read_text(encoding="utf-8")
    [command] = re.findall(r"^    (bin/llm-plan --all .*--side-by-side .*)$", page, re.MULTILINE)
    said = subprocess.run(shlex.split(command), cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    shown = "\n".join(
        line for line in page.splitlines() if line.startswith(("| `", "| model | weights", "|---|---|---|---|---|"))
    )
    assert shown == said.rstrip(), f"make the table anew: {command}"


def test_the_page_names_models_and_variables_that_exist() -> None:
    variables = read_yaml(REPOSITORY / "roles" / "vllm" / "defaults" / "main.yml")
    for page in ("models.md", "cpu.md"):
        text = (REPOSITORY / "docs" / page).read_text(encoding="utf-8")
        assert set(re.findall(r"\b(vllm_[a-z_]+)\b", text)) <= set(variables), page
        assert set(re.findall(r"vllm_model[:=] ?([\w.-]+)", text)) - {"mine", "NAME"} <= set(MODELS), page
