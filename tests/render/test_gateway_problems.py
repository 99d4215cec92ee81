"""What the gateway's role refuses before anything changes, in its own words: of ACME, and of scopes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.render.rendering import run_playbook

GOOD: dict[str, Any] = {
    "gateway_outside_address": "0.0.0.0",
    "gateway_acme_names": ["ai.example.com"],
    "gateway_acme_email": "me@example.com",
}
# A name for the host, what is wrong, and what has to be said of it; nothing where all is well.
CASES: dict[str, tuple[dict[str, Any], str]] = {
    "good": ({}, ""),
    "wildcard": ({"gateway_acme_names": ["*.ai.example.com"], "gateway_acme_challenge": ["--dns-cloudflare"]}, ""),
    "private": ({"gateway_acme_names": ["ai.home.arpa"], "gateway_acme_server": "https://ca.home.arpa/acme"}, ""),
    "both": (
        {"gateway_certificate_file": "/etc/a.pem", "gateway_certificate_key_file": "/etc/a.key"},
        "gateway_acme_names and gateway_certificate_file are both set",
    ),
    "inside": ({"gateway_outside_address": ""}, "no other machine is let in by TLS: set gateway_outside_address"),
    "plain": ({"gateway_outside_tls": False}, "no other machine is let in by TLS"),
    "address": ({"gateway_acme_names": ["192.0.2.1"]}, "gateway_acme_names has 192.0.2.1; expected public host names"),
    "url": ({"gateway_acme_names": ["https://ai.example.com"]}, "gateway_acme_names has https://ai.example.com"),
    "short": ({"gateway_acme_names": ["ai"]}, "gateway_acme_names has ai; expected public host names"),
    "option": ({"gateway_acme_names": ["ai.example.com,--staging"]}, "gateway_acme_names has ai.example.com,--staging"),
    "nobody": ({"gateway_acme_email": ""}, "gateway_acme_email is empty; expected the e-mail address"),
    "somebody": ({"gateway_acme_email": "me"}, "gateway_acme_email is me; expected"),
    "server": ({"gateway_acme_server": "acme.example.com"}, "gateway_acme_server is acme.example.com; expected"),
    "challenge": ({"gateway_acme_challenge": []}, "gateway_acme_challenge is empty; say how"),
    "scope": (
        {"gateway_frontends_extra": [{"name": "reports", "bind_port": 9000, "servers": ["reports:80"], "paths": ["/"],
                                      "health_path": "/", "scope": "reports"}]},
        "The scope of a frontend is one that keys have: llm, documents, admin; found llm, documents, reports.",
    ),
    "secret": ({"gateway_acme_challenge": ["--eab-hmac-key=not-a-real-key"]}, "has --eab-hmac-key, a secret"),
}  # fmt: skip


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Host → what the role's preflight said, "" where it was content."""
    folder: Path = tmp_path_factory.mktemp("problems")
    (folder / "said").mkdir()
    hosts = {name: {"ansible_connection": "local", **GOOD, **changes} for name, (changes, _) in CASES.items()}
    (folder / "hosts.yml").write_text(yaml.safe_dump({"all": {"hosts": hosts}}), encoding="utf-8")
    role = {"name": "gateway", "tasks_from": "preflight.yml"}
    note = {"content": "{{ ansible_failed_result.msg }}", "dest": f"{folder}/said/{{{{ inventory_hostname }}}}"}
    tasks = [
        {
            "name": "Look",
            "block": [{"name": "Preflight", "ansible.builtin.import_role": role}],
            "rescue": [{"name": "Note", "ansible.builtin.copy": {**note, "mode": "0600"}}],
        }
    ]
    play = [{"name": "Look", "hosts": "all", "gather_facts": False, "tasks": tasks}]
    (folder / "play.yml").write_text(yaml.safe_dump(play, sort_keys=False), encoding="utf-8")
    finished = run_playbook(folder, "-i", "hosts.yml", "play.yml")
    assert finished.returncode == 0, finished.stdout + finished.stderr
    notes = {path.name: path.read_text(encoding="utf-8") for path in (folder / "said").iterdir()}
    return {name: notes.get(name, "") for name in CASES}


@pytest.mark.parametrize("name", CASES)
def test_it_is_said_before_anything_changes(said: dict[str, str], name: str) -> None:
    expected = CASES[name][1]
    assert expected in said[name] and len(said[name].splitlines()) == (1 if expected else 0), said[name]
    assert "not-a-real-key" not in said[name]
