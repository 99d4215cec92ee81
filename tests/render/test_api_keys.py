"""The playbook of API keys, with a folder of keys on this machine: what it does not understand it refuses."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.render.rendering import REPOSITORY, run_playbook

MADE = "create=laptop", "scopes=llm"


class Owner:
    """Somebody with an inventory, who types a command."""

    def __init__(self, folder: Path) -> None:
        self._data = folder / "data"
        self._hosts = folder / "hosts.yml"
        host = {"ansible_connection": "local", "ansible_become": False, "gateway_data_directory": str(self._data)}
        groups = {"children": {"gateway_hosts": {"hosts": {"home": host}}}}
        self._hosts.write_text(yaml.safe_dump({"all": groups}), encoding="utf-8")

    def types(self, *words: str) -> subprocess.CompletedProcess[str]:
        extra = [part for word in words for part in ("-e", word)]
        return run_playbook(REPOSITORY, "playbooks/api_keys.yml", "-i", str(self._hosts), *extra)

    def keys(self) -> list[dict[str, Any]]:
        path = self._data / "keys" / "keys.json"
        return list(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else []


def test_a_key_is_made_changed_and_taken_away(tmp_path: Path) -> None:
    owner = Owner(tmp_path)
    made = owner.types(*MADE, "days=0.00001", "requests_per_minute=60")
    assert made.returncode == 0 and "pih_" in made.stdout, made.stdout + made.stderr
    [key] = owner.keys()
    assert (key["scopes"], key["requests_per_minute"], key["concurrent_requests"]) == (["llm"], 60, 0)
    assert "UTC (over)" in " ".join(owner.types().stdout.split())
    # Ansible's own settings and the role's may be given as well.
    interpreter = json.dumps({"ansible_python_interpreter": sys.executable})
    changed = owner.types("limit=laptop", "days=0", "gateway_memory_limit=1g", interpreter)
    assert changed.returncode == 0 and "changed=1" in changed.stdout, changed.stdout + changed.stderr
    assert owner.keys() == [{**key, "expires": ""}]
    assert owner.types("revoke=laptop").returncode == 0 and owner.keys() == []


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ((*MADE, "request_per_minute=60"), "found request_per_minute"),
        ((*MADE, "concurrent_request=2 days=3"), "found concurrent_request"),
        ((*MADE, '{"rate": 3}'), "found rate"),
        (("create=laptop", "scope=llm"), "found scope"),
        ((*MADE, "revoke=laptop"), "found create, revoke"),
        (("limit=laptop",), "nothing to change"),
        (("revoke=laptop", "days=3"), "found days"),
        (("scopes=llm",), "expected -e create=NAME, -e limit=NAME or -e revoke=NAME"),
    ],
    ids=["minute", "concurrent", "json", "scope", "two", "nothing", "revoke", "alone"],
)
def test_what_is_not_understood_is_refused(tmp_path: Path, words: tuple[str, ...], says: str) -> None:
    owner = Owner(tmp_path)
    told = owner.types(*words)
    assert told.returncode != 0 and says in " ".join((told.stdout + told.stderr).split())
    assert owner.keys() == []
