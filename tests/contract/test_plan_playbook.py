"""playbooks/plan.yml looks at what site.yml would do, all of it, and at nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.contract.repository import REPOSITORY, read_yaml

ONLY_LOOKING = "{{ ansible_check_mode or plan_only | default(false) | bool }}"


def imports(playbook: str) -> list[dict[str, Any]]:
    return read_yaml(REPOSITORY / playbook)


def names(playbook: str) -> list[str]:
    return [Path(entry["ansible.builtin.import_playbook"]).name for entry in imports(playbook)]


def test_the_plan_is_of_the_playbooks_of_the_site() -> None:
    assert names("playbooks/plan.yml") == [name for name in names("site.yml") if name != "verify.yml"]


def test_every_part_of_the_plan_only_looks() -> None:
    assert all(entry["vars"]["plan_only"] is True for entry in imports("playbooks/plan.yml"))


@pytest.mark.parametrize("playbook", [name for name in names("playbooks/plan.yml") if name != "preflight.yml"])
def test_what_changes_a_host_can_be_told_to_look(playbook: str) -> None:
    plays = read_yaml(REPOSITORY / "playbooks" / playbook)
    assert [play.get("check_mode") for play in plays] == [ONLY_LOOKING] * len(plays)


def test_no_task_changes_something_in_check_mode() -> None:
    found = [
        str(path.relative_to(REPOSITORY))
        for path in (REPOSITORY / "roles").glob("*/tasks/*.yml")
        if "check_mode: false" in path.read_text(encoding="utf-8")
    ]
    assert found == []


def test_the_page_is_switched_on() -> None:
    settings = (REPOSITORY / "ansible.cfg").read_text(encoding="utf-8")
    assert "callbacks_enabled = pageindex.home.plan_page, pageindex.home.warm_start\n" in settings
