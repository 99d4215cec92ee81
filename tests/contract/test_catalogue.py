"""The catalogue's facts are complete: each has a source and a date, and its shape is what readers expect."""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest

from ansible_collections.pageindex.home.plugins.module_utils.memory_plan.model import base_name, shape_from_config
from tests.contract.repository import REPOSITORY, read_yaml

CATALOGUE = REPOSITORY / "catalogue"
VERSIONS: dict[str, dict[str, Any]] = read_yaml(CATALOGUE / "versions.yml")
MODELS: dict[str, dict[str, Any]] = read_yaml(CATALOGUE / "models.yml")
GPUS: dict[str, dict[str, Any]] = read_yaml(CATALOGUE / "gpus.yml")
ARCHITECTURES: dict[str, dict[str, Any]] = read_yaml(CATALOGUE / "architectures.yml")
RELEASES: dict[str, dict[str, Any]] = read_yaml(CATALOGUE / "releases.yml")
WORKAROUNDS: dict[str, dict[str, Any]] = read_yaml(CATALOGUE / "workarounds.yml")
SUPPORTED = sorted(name for name, entry in RELEASES.items() if entry["supported"])


def entries() -> Iterator[tuple[str, dict[str, Any]]]:
    files = {
        "versions": VERSIONS,
        "models": MODELS,
        "gpus": GPUS,
        "architectures": ARCHITECTURES,
        "releases": RELEASES,
        "workarounds": WORKAROUNDS,
    }
    for file, content in files.items():
        for name, entry in content.items():
            yield f"{file}:{name}", entry
    # Each part of a release was looked up by itself.
    for name in SUPPORTED:
        release = RELEASES[name]
        driver = release["driver"]
        parts = {"headers": release["headers"], "docker": release["docker"]}
        parts |= {"repository": driver["repository"], "packages": driver["packages"]}
        for part, entry in parts.items():
            yield f"releases:{name}:{part}", entry


@pytest.mark.parametrize(("name", "entry"), list(entries()), ids=[name for name, _ in entries()])
def test_entry_has_a_source_and_the_day_it_was_checked(name: str, entry: dict[str, Any]) -> None:
    assert re.search(r"https?://\S+", entry["source"]), f"{name}: source is not an address"
    checked = datetime.date.fromisoformat(str(entry["checked"]))
    assert datetime.date(2025, 1, 1) <= checked <= datetime.date.today() + datetime.timedelta(days=1)


@pytest.mark.parametrize("name", sorted(VERSIONS))
def test_no_pin_floats(name: str) -> None:
    for key in ("image", "version"):
        value = str(VERSIONS[name].get(key, "fixed:1"))
        assert "latest" not in value
        if key == "image":
            assert ":" in value.rsplit("/", 1)[-1], f"{name}: image without a tag"


@pytest.mark.parametrize("name", sorted(name for name, entry in VERSIONS.items() if "minimum" in entry))
def test_a_floor_says_why(name: str) -> None:
    assert VERSIONS[name].get("advisory")


def test_the_floors_of_the_driver_cover_its_branch() -> None:
    driver = VERSIONS["nvidia_driver"]
    by_branch = driver["minimum_by_branch"]
    assert driver["minimum"] == by_branch[driver["branch"]]
    assert all(version.startswith(f"{branch}.") for branch, version in by_branch.items())


POSITIVE = {"type": "integer", "minimum": 1}
MODEL_SCHEMA = {
    "type": "object",
    "additionalProperties": False,
    "required": [
        "repository", "revision", "license", "gated", "weight_bytes", "layers", "hidden_size", "kv_heads", "head_dim",
        "architecture", "good_at", "native_context", "quantization", "min_compute_capability", "tensor_parallel_size",
        "reasoning_parser", "tool_call_parser", "source", "checked",
    ],
    "properties": {
        "repository": {"type": "string", "pattern": r"^[\w.-]+/[\w.-]+$"},
        "revision": {"type": "string", "pattern": r"^(main|[0-9a-f]{40})$"},
        "license": {"type": "string"},
        "gated": {"type": "boolean"},
        "weight_bytes": {"type": "integer", "minimum": 10**8, "maximum": 10**12},
        "layers": POSITIVE,
        "hidden_size": {"type": "integer", "multipleOf": 64},
        "kv_heads": POSITIVE,
        "head_dim": {"type": "integer", "multipleOf": 32},
        "architecture": {"enum": sorted(ARCHITECTURES)},
        "weight_bytes_estimated": {"const": True},
        "extended_context": {
            "type": "object",
            "additionalProperties": False,
            "required": ["tokens", "how"],
            "properties": {"tokens": {"type": "integer", "multipleOf": 1024}, "how": {"enum": ["yarn_4"]}},
        },
        "good_at": {"type": "string"},
        "refused": {"type": "string"},
        "version_flags": {
            "type": "array",
            "items": {
                "type": "object",
                "additionalProperties": False,
                "required": ["since", "flags", "source"],
                "properties": {
                    "since": {"type": "string", "pattern": r"^\d+\.\d+\.\d+$"},
                    "before": {"type": "string", "pattern": r"^\d+\.\d+\.\d+$"},
                    "flags": {"type": "object"},
                    "source": {"type": "string", "pattern": "^https?://"},
                },
            },
        },
        "known_failures": {"type": "array", "items": {"type": "string"}},
        "native_context": {"type": "integer", "multipleOf": 1024},
        "quantization": {"enum": ["none", "awq", "gptq", "fp8", "nvfp4", "compressed-tensors"]},
        "min_compute_capability": {"type": "string", "pattern": r"^\d+\.\d$"},
        "tensor_parallel_size": {"enum": [1, 2, 4, 8]},
        "reasoning_parser": {"type": ["string", "null"]},
        "tool_call_parser": {"type": ["string", "null"]},
        "flags": {"type": "object"},
        "trust_remote_code": {"type": "boolean"},
        "note": {"type": "string"},
        "source": {"type": "string"},
        "checked": {"type": "string"},
    },
}  # fmt: skip
GPU_SCHEMA = {
    "type": "object",
    "required": [
        "name",
        "memory_mib",
        "cuda_memory_mib",
        "tier",
        "compute_capability",
        "power_limit_w",
        "pcie",
        "source",
        "checked",
    ],
    "properties": {
        "name": {"type": "string", "pattern": "^NVIDIA "},
        "memory_mib": {"type": "integer", "minimum": 4096},
        "compute_capability": {"type": "string", "pattern": r"^\d+\.\d$"},
        "cuda_memory_mib": {"type": "integer", "minimum": 4096},
        "tier": {"enum": ["starter", "production", "high", "workstation", "data centre"]},
        "power_limit_w": {
            "type": "object",
            "required": ["minimum", "default", "maximum"],
            "additionalProperties": POSITIVE,
        },
        "pcie": {"type": "object", "required": ["generation", "width"], "additionalProperties": POSITIVE},
    },
}


@pytest.mark.parametrize("name", sorted(MODELS))
def test_model_entry_has_the_shape_of_every_entry(name: str) -> None:
    jsonschema.validate(MODELS[name], MODEL_SCHEMA)
    assert re.fullmatch(r"[a-z0-9][a-z0-9.-]*", name)


@pytest.mark.parametrize("name", sorted(MODELS))
def test_model_figures_agree_with_each_other(name: str) -> None:
    model = MODELS[name]
    # Sharing a model between cards divides its heads.
    assert model["kv_heads"] % model["tensor_parallel_size"] == 0
    # 32 GB cards: the weights have to fit the number of cards that the entry asks for, or the entry says no.
    memory = GPUS["rtx_5090"]["memory_mib"] * 2**20
    assert (model["weight_bytes"] < model["tensor_parallel_size"] * memory * 0.92) or model.get("refused")
    if model["quantization"] in ("fp8", "nvfp4"):
        assert float(model["min_compute_capability"]) >= {"fp8": 8.9, "nvfp4": 10.0}[model["quantization"]]


@pytest.mark.parametrize("name", sorted(GPUS))
def test_card_entry_has_the_shape_of_every_entry(name: str) -> None:
    jsonschema.validate(GPUS[name], GPU_SCHEMA)
    # CUDA's total is NVML's without what the driver keeps.
    assert 300 < GPUS[name]["memory_mib"] - GPUS[name]["cuda_memory_mib"] < 800
    limits = GPUS[name]["power_limit_w"]
    assert limits["minimum"] <= limits["default"] <= limits["maximum"]


@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_an_architecture_can_be_planned(name: str) -> None:
    """Its numbers make a model, whose name is the one that repositories are found by."""
    found = shape_from_config(ARCHITECTURES[name], name)
    assert found.full_layers + found.sliding_layers + (found.linear.layers if found.linear else 0) == found.layers
    assert base_name(name) == name


@pytest.mark.parametrize("name", sorted(MODELS))
def test_a_model_agrees_with_its_architecture(name: str) -> None:
    model, architecture = MODELS[name], ARCHITECTURES[MODELS[name]["architecture"]]
    heads = architecture["num_attention_heads"]
    assert model["layers"] == architecture["num_hidden_layers"]
    assert model["hidden_size"] == architecture["hidden_size"]
    assert model["kv_heads"] == architecture["num_key_value_heads"]
    assert model["head_dim"] == architecture.get("head_dim", model["hidden_size"] // heads)
    assert model["native_context"] <= architecture["max_position_embeddings"]
    # The size that the architecture implies: within 15 %, or a number was mistyped. A repository may hold the output
    # layer twice, or layers for multi-token prediction, or leave some layers in 16 bit.
    implied = shape_from_config(architecture, name, None, model["quantization"])
    most = implied.estimated_weight_bytes + implied.draft_bytes + 2 * implied.vocabulary * implied.hidden
    assert 0.9 * implied.estimated_weight_bytes < model["weight_bytes"] < 1.15 * most


def test_the_catalogue_covers_what_owners_have() -> None:
    """Row H6 of the plan: from one 12 GB card to a workstation's 96 GB, and cards of data centres to compare with."""
    assert {entry["tier"] for entry in GPUS.values()} == {
        "starter", "production", "high", "workstation", "data centre",
    }  # fmt: skip
    assert {"rtx_3060", "rtx_5060_ti", "rtx_3090", "rtx_4090", "rtx_5090", "a100_40gb", "l40s"} <= set(GPUS)
    assert {name for name, model in MODELS.items() if model.get("refused")} == {
        "qwen3-235b-a22b-fp8", "llama-3.1-405b", "mixtral-8x22b",
    }  # fmt: skip


TEXT = {"type": "string", "minLength": 1}
FACT = {"source": TEXT, "checked": TEXT, "note": TEXT, "unconfirmed": TEXT}
BY_KERNEL_PACKAGE = {"type": "object", "required": ["default"], "additionalProperties": TEXT}


def record(required: dict[str, Any], **optional: Any) -> dict[str, Any]:
    """The schema of an object with these properties and no others."""
    return {
        "type": "object",
        "additionalProperties": False,
        "required": list(required),
        "properties": {**required, **optional},
    }


NAMES = {"type": "array", "items": TEXT, "minItems": 1}
KEY = record({"url": {"type": "string", "pattern": "^https://"}, "fingerprint": {"pattern": "^[0-9A-F]{40}$"}})
REPOSITORY_SCHEMA = record(
    {"uris": NAMES, "suites": NAMES, "keys": {"type": "array", "items": KEY, "minItems": 1}}, **FACT
)
PACKAGES_SCHEMA = record(
    {
        "nvidia": record(
            {"branch_in_names_below": {"type": "integer"}, "without_branch": NAMES, "pinning": TEXT}, with_branch=NAMES
        ),
        "distribution": {
            "oneOf": [
                {"type": "null"},
                record({"branch": TEXT, "names": NAMES, "modules": BY_KERNEL_PACKAGE, "modules_for_kernel": TEXT}),
            ]
        },
    },
    **FACT,
)
RELEASE_SCHEMA = record(
    {
        "distribution": {"enum": ["Debian", "Ubuntu"]},
        "version": TEXT,
        "name": TEXT,
        "supported": {"const": True},
        "proof": {"enum": ["converged", "partly", "rendered"]},
        "source": TEXT,
        "checked": TEXT,
        "driver": record(
            {"branch": {"pattern": "^[0-9]{3}$"}, "repository": REPOSITORY_SCHEMA, "packages": PACKAGES_SCHEMA}
        ),
        "headers": record({"metapackages": BY_KERNEL_PACKAGE, "package": TEXT}, **FACT),
        "docker": record({"package": TEXT, "version": TEXT, "cdi": {"enum": ["none", "opt_in", "default"]}}, **FACT),
    }
)
REFUSED_SCHEMA = record(
    {"version": TEXT, "name": TEXT, "supported": {"const": False}, "reason": TEXT, "fix": TEXT, **FACT},
    distribution=TEXT,
    distributions=NAMES,
)
REFUSED_SCHEMA["required"] = ["version", "name", "supported", "reason", "fix", "source", "checked"]
WORKAROUND_SCHEMA = record(
    {
        "symptoms": {
            "type": "array",
            "minItems": 1,
            "items": record({"where": {"enum": ["kernel_log", "error_text"]}, "pattern": TEXT}),
        },
        "cause": TEXT,
        "options": {
            "type": "array",
            "minItems": 1,
            "items": record({"module": {"pattern": "^[a-z_]+$"}, "parameter": TEXT, "value": {}, "default": {}}),
        },
        "cost": TEXT,
        "source": TEXT,
        "checked": TEXT,
    }
)


@pytest.mark.parametrize("name", sorted(RELEASES))
def test_release_entry_has_the_shape_of_every_entry(name: str) -> None:
    jsonschema.validate(RELEASES[name], RELEASE_SCHEMA if name in SUPPORTED else REFUSED_SCHEMA)


def test_the_releases_of_the_product_are_here() -> None:
    assert set(SUPPORTED) >= {"jammy", "noble", "resolute", "bookworm", "trixie"}
    assert set(RELEASES) - set(SUPPORTED) >= {"focal", "bullseye"}


@pytest.mark.parametrize("name", SUPPORTED)
def test_the_branch_of_a_release_receives_fixes(name: str) -> None:
    driver = RELEASES[name]["driver"]
    branches = {driver["branch"], (driver["packages"]["distribution"] or driver)["branch"]}
    assert branches <= set(VERSIONS["nvidia_driver"]["minimum_by_branch"])


@pytest.mark.parametrize("name", SUPPORTED)
def test_a_release_uses_the_key_that_its_repository_has(name: str) -> None:
    repository = RELEASES[name]["driver"]["repository"]
    for key in repository["keys"]:
        assert key["url"].startswith(repository["uris"][0])
        # The file is named after the end of the fingerprint.
        assert key["fingerprint"].endswith(key["url"].rpartition("/")[2].removesuffix(".pub").upper())


@pytest.mark.parametrize("name", sorted(WORKAROUNDS))
def test_workaround_entry_has_the_shape_of_every_entry(name: str) -> None:
    jsonschema.validate(WORKAROUNDS[name], WORKAROUND_SCHEMA)
    for symptom in WORKAROUNDS[name]["symptoms"]:
        re.compile(symptom["pattern"])


def test_the_workaround_for_the_known_kernel_line_is_found_by_it() -> None:
    line = "kernel: nvidia_uvm: request_free_mem_region() failed, err -34"
    [pattern] = [s["pattern"] for s in WORKAROUNDS["uvm_disable_hmm"]["symptoms"] if s["where"] == "kernel_log"]
    assert re.search(pattern, line)
    assert re.search(pattern, "nvidia-uvm: uvm_hmm.c request_free_mem_region() err -34 used to detect")
