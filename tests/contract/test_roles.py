"""Every role has the same shape, and says the same about its variables in each place."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.contract.repository import REPOSITORY, ROLES, read_yaml, role_argument_specs, role_defaults

REQUIRED_FILES = (
    "README.md",
    "defaults/main.yml",
    "meta/argument_specs.yml",
    "tasks/main.yml",
    "tasks/verify.yml",
    "tasks/remove.yml",
)
# It changes nothing: there is nothing to verify or to remove, and its page is about what the reader has to do.
READ_ONLY = {"preflight": "before-you-start"}
CHANGING = tuple(role for role in ROLES if role not in READ_ONLY)
README_SECTIONS = ("## What it does", "## Variables", "## Verify", "## Remove")
INVENTORY_GROUPS = ("gpu_hosts", "pageindex_hosts", "gateway_hosts")
VARIABLE_ROW = re.compile(r"^\|\s*`(?P<name>[a-z][a-z0-9_]*)`", re.MULTILINE)


def task_files(role: str) -> list[Path]:
    return sorted((REPOSITORY / "roles" / role / "tasks").glob("*.yml"))


def test_the_roles_of_the_product_are_here() -> None:
    assert set(ROLES) >= {
        "nvidia_driver",
        "docker_engine",
        "nvidia_toolkit",
        "vllm",
        "pageindex",
        "gateway",
    }


@pytest.mark.parametrize("role", CHANGING)
def test_role_has_the_files_of_every_role(role: str) -> None:
    missing = [name for name in REQUIRED_FILES if not (REPOSITORY / "roles" / role / name).is_file()]
    assert missing == []


@pytest.mark.parametrize("role", ROLES)
def test_argument_specs_and_defaults_list_the_same_variables(role: str) -> None:
    options = role_argument_specs(role)
    required = {name for name, option in options.items() if option.get("required")}
    assert set(options) - required == set(role_defaults(role))
    assert not required & set(role_defaults(role)), "a required variable has no default"


@pytest.mark.parametrize("role", ROLES)
def test_every_variable_is_described_and_typed(role: str) -> None:
    incomplete = [
        name
        for name, option in role_argument_specs(role).items()
        if not option.get("description") or not option.get("type")
    ]
    assert incomplete == []


@pytest.mark.parametrize("role", ROLES)
def test_readme_table_lists_exactly_the_variables(role: str) -> None:
    readme = (REPOSITORY / "roles" / role / "README.md").read_text(encoding="utf-8")
    documented = [match["name"] for match in VARIABLE_ROW.finditer(readme)]
    assert sorted(documented) == sorted(role_argument_specs(role))


@pytest.mark.parametrize("role", CHANGING)
def test_readme_has_the_sections_of_every_role(role: str) -> None:
    lines = (REPOSITORY / "roles" / role / "README.md").read_text(encoding="utf-8").splitlines()
    assert lines[0] == f"# {role}"
    assert [line for line in lines if line in README_SECTIONS] == list(README_SECTIONS)


@pytest.mark.parametrize("role", ROLES)
def test_role_has_a_page_in_the_docs(role: str) -> None:
    page = f"{READ_ONLY.get(role, role)}.md"
    assert (REPOSITORY / "docs" / page).is_file()
    assert f"({page})" in (REPOSITORY / "docs" / "index.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("role", ROLES)
def test_variables_carry_the_role_name(role: str) -> None:
    assert [name for name in role_defaults(role) if not name.startswith(f"{role}_")] == []
    constants = REPOSITORY / "roles" / role / "vars" / "main.yml"
    if constants.is_file():
        names = read_yaml(constants) or {}
        assert [name for name in names if not name.startswith(f"__{role}_")] == []


@pytest.mark.parametrize("role", ROLES)
def test_role_names_no_inventory_group_and_no_other_roles_variable(role: str) -> None:
    others = [name for other in ROLES if other != role for name in role_defaults(other)]
    forbidden = re.compile(r"\b(?:" + "|".join(map(re.escape, (*INVENTORY_GROUPS, *others))) + r")\b")
    found = [
        f"{path.relative_to(REPOSITORY)}: {match.group()}"
        for path in sorted((REPOSITORY / "roles" / role).rglob("*.yml"))
        for match in forbidden.finditer(path.read_text(encoding="utf-8"))
    ]
    assert found == []


@pytest.mark.parametrize("role", ROLES)
def test_no_task_hides_a_failure(role: str) -> None:
    hiding = re.compile(r"^\s*(?:- )?(ignore_errors|ignore_unreachable)\s*:", re.MULTILINE)
    found = [str(path.relative_to(REPOSITORY)) for path in task_files(role) if hiding.search(path.read_text())]
    assert found == []


@pytest.mark.parametrize("role", CHANGING)
def test_main_does_not_verify_and_a_playbook_does(role: str) -> None:
    main = (REPOSITORY / "roles" / role / "tasks" / "main.yml").read_text(encoding="utf-8")
    assert "verify.yml" not in main
    verify = (REPOSITORY / "playbooks" / "verify.yml").read_text(encoding="utf-8")
    assert re.search(rf"name: {role}\b", verify), "playbooks/verify.yml does not verify this role"


@pytest.mark.parametrize("role", ROLES)
def test_role_can_be_run_alone_by_its_tag(role: str) -> None:
    tags = {
        tag
        for playbook in (REPOSITORY / "playbooks").glob("*.yml")
        for tag in re.findall(rf"\b{role}\b(?=[\],\s]|$)", playbook.read_text(encoding="utf-8"))
    }
    assert role in tags
