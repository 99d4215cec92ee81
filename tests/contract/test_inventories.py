"""The inventories that ship: they load, use only variables that exist, and hold no secret."""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.contract.repository import REPOSITORY, ROLES, read_yaml, role_argument_specs

INVENTORIES = ("home", "staging", "staging_bookworm", "staging_noble")
EXAMPLES = tuple(sorted((REPOSITORY / "inventory" / "examples").glob("*.yml")))
GROUPS = {"gpu_hosts", "pageindex_hosts", "gateway_hosts"}
MODELS = read_yaml(REPOSITORY / "catalogue" / "models.yml")


@functools.cache
def load(inventory: str) -> dict[str, Any]:
    """What ansible-inventory makes of it; its warnings are errors here."""
    finished = subprocess.run(
        [Path(sys.executable).with_name("ansible-inventory"), "-i", REPOSITORY / "inventory" / inventory, "--list"],
        cwd=REPOSITORY,
        env=os.environ | {"ANSIBLE_CONFIG": str(REPOSITORY / "ansible.cfg"), "LC_ALL": "C.UTF-8"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0 and "WARNING" not in finished.stderr, finished.stderr
    return json.loads(finished.stdout)


def unknown(variables: dict[str, Any]) -> list[str]:
    """Variables that no role takes, and values of a type that it does not take."""
    known = {name: option for role in ROLES for name, option in role_argument_specs(role).items()}
    return [
        name
        for name in variables
        if name not in known
        and not name.startswith("ansible_")
        and name not in ("inventory_hostname", "group_names", "groups")
    ]


@pytest.mark.parametrize("inventory", INVENTORIES)
def test_inventory_loads_with_a_host_in_every_group(inventory: str) -> None:
    loaded = load(inventory)
    assert {group for group in GROUPS if loaded[group]["hosts"]} == GROUPS


@pytest.mark.parametrize("inventory", INVENTORIES)
def test_inventory_sets_only_variables_that_a_role_takes(inventory: str) -> None:
    for host, variables in load(inventory)["_meta"]["hostvars"].items():
        assert unknown(variables) == [], host


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_example_sets_only_variables_that_a_role_takes(example: Path) -> None:
    variables = read_yaml(example)
    assert unknown(variables) == []
    assert variables["vllm_model"] in MODELS
    assert variables["vllm_max_model_len"] <= MODELS[variables["vllm_model"]]["native_context"]


def test_every_example_is_explained() -> None:
    text = (REPOSITORY / "inventory" / "examples" / "README.md").read_text(encoding="utf-8")
    assert {path.name for path in EXAMPLES} == set(re.findall(r"\]\((\w+\.yml)\)", text))


def test_home_is_the_default_and_ships_the_documented_model() -> None:
    assert "inventory = inventory/home" in (REPOSITORY / "ansible.cfg").read_text(encoding="utf-8")
    variables = read_yaml(REPOSITORY / "inventory" / "home" / "group_vars" / "all" / "main.yml")
    assert (variables["vllm_model"], variables["vllm_max_model_len"]) == ("qwen3-32b-awq", 32768)


def test_the_file_an_owner_edits_stays_short() -> None:
    path = REPOSITORY / "inventory" / "home" / "group_vars" / "all" / "main.yml"
    settings = [line for line in path.read_text(encoding="utf-8").splitlines() if re.match(r"#? ?\w+: ", line)]
    assert len(settings) <= 12


def test_a_certificate_beside_the_inventory_is_none_of_it(tmp_path: Path) -> None:
    """The gateway's authority is copied there, and an owner's own is looked up there."""
    shutil.copytree(REPOSITORY / "inventory" / "home", tmp_path / "home")
    (tmp_path / "home" / "home-ca.crt").write_text("-----BEGIN CERTIFICATE-----\n", encoding="utf-8")
    assert load(str(tmp_path / "home"))["gateway_hosts"]["hosts"]
