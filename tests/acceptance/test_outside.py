"""What other machines may do: every route of both services, without a key and with each kind of key.

The routes are read from the services themselves, so one that a new version brings is asked for as well. Where the
gateway listens on loopback alone, that is what is shown.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.acceptance.conftest import REPOSITORY, once, own_url
from tests.acceptance.containers import Containers
from tests.acceptance.http_on_host import Answer, HttpOnHost, request

#: What each kind of key opens: the model, the documents. A spent one has used up its requests of this minute.
KINDS = {"llm": "llm", "documents": "documents", "documents:read": "documents", "admin": "llm documents", "spent": ""}
OPENAPI = (
    "import sys, urllib.request; "
    "url = 'http://127.0.0.1:' + sys.argv[1] + '/openapi.json'; "
    "sys.stdout.write(urllib.request.urlopen(url, timeout=30).read().decode())"
)
REFUSALS = ("This path is not served", "insufficient_scope", "request_too_large", "length_required")
_SECRET = re.compile(r"pih_[A-Za-z0-9_-]{43}")


@pytest.fixture(scope="module")
def api_keys(host: Any, settings: dict[str, Any], request: pytest.FixtureRequest) -> Iterator[dict[str, str]]:
    """A key of each kind, made with the owner's own playbook and revoked afterwards; none where none is asked for."""
    if not settings["outside"]["address"]:
        yield {}
        return
    inventory, name = request.config.option.ansible_inventory, host.backend.host
    names: dict[str, str] = {}

    def playbook(**variables: str) -> str:
        words = [word for key, value in variables.items() for word in ("-e", f"{key}={value}")]
        command = ["ansible-playbook", "-i", inventory, "--limit", name, "playbooks/api_keys.yml", *words]
        environment = os.environ | {"LC_ALL": "C.UTF-8"}
        done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def create(kind: str) -> str:
        names[kind] = f"acceptance-{kind.replace(':', '-')}-{time.time_ns()}"
        limit = {"requests_per_minute": "1"} if kind == "spent" else {}
        told = playbook(create=names[kind], scopes="admin" if kind == "spent" else kind, days="1", **limit)
        [secret] = set(_SECRET.findall(told))
        return secret

    # At the same time: the list of keys is for one change after the other, the playbooks need not wait for each other.
    with ThreadPoolExecutor(len(KINDS)) as pool:
        try:
            yield dict(zip(KINDS, pool.map(create, KINDS), strict=True))
        finally:
            list(pool.map(lambda name: playbook(revoke=name), list(names.values())))


class Outside:
    """Requests as another machine sends them."""

    def __init__(self, http: HttpOnHost, settings: dict[str, Any]) -> None:
        self._http = http
        self.frontends = {entry["name"]: entry for entry in settings["frontends"]}
        self._told = settings["outside"]

    def described(self, frontend: str, method: str, path: str, key: str | None) -> dict[str, Any]:
        """A request with *key*, and an empty object where it has a body."""
        scheme = "https" if self._told["tls"] else "http"
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        url = own_url(scheme, self._told["address"], self.frontends[frontend]["outside_port"]) + path
        body: dict[str, Any] | None = {} if method in ("POST", "PUT", "PATCH") else None
        authority = self._told["authority"] if self._told["tls"] else None
        return request(url, method=method, headers=headers, json_body=body, authority=authority, with_key=False)

    def ask(self, requests: list[dict[str, Any]]) -> list[Answer]:
        return self._http.send_all(requests)


@pytest.fixture(scope="module")
def outside(http: HttpOnHost, settings: dict[str, Any], api_keys: dict[str, str]) -> Outside | None:
    """Where other machines ask; None where they cannot."""
    if not settings["outside"]["address"]:
        return None
    found = Outside(http, settings)
    # Spent from here on, for a minute.
    found.ask([found.described("llm", "GET", "/v1/models", api_keys["spent"])])
    return found


@pytest.fixture(scope="module")
def routes(host: Any, containers: Containers) -> dict[str, list[tuple[str, str]]]:
    """(method, path) of every operation, by frontend; parameters in a path are filled in with what does not exist."""

    def find() -> dict[str, list[tuple[str, str]]]:
        found = {}
        for frontend, (container, port) in {"llm": ("vllm", "8000"), "pageindex": ("pageindex", "3000")}.items():
            paths = json.loads(containers.python(container, OPENAPI, port))["paths"]
            found[frontend] = [
                (method.upper(), re.sub(r"\{[^}]+\}", "0", path))
                for path, operations in paths.items()
                for method in operations
                if method in ("get", "post", "put", "patch", "delete")
            ]
            assert len(found[frontend]) > 10
        return found

    return once(host, "routes", find)


def allowed(entries: list[str], path: str) -> bool:
    """Whether a list of paths as the gateway has it lets *path* through."""
    return any(path.startswith(entry) if entry.endswith("/") and entry != "/" else path == entry for entry in entries)


def expected(frontend: dict[str, Any], path: str, kind: str | None) -> int | None:
    """The gateway's own answer; None where the service behind it has to answer."""
    if not allowed(frontend["paths"], path):
        return 404
    if kind is None:
        return None if allowed(frontend["open_paths"], path) else 401
    if kind == "wrong":
        return 401
    if kind == "spent":
        return 429
    return None if frontend.get("scope", frontend["name"]) in KINDS[kind].split() else 403


@pytest.mark.parametrize("frontend", ["llm", "pageindex"])
def test_every_route_with_every_kind_of_key(
    outside: Outside | None, routes: dict[str, list[tuple[str, str]]], api_keys: dict[str, str], frontend: str,
    settings: dict[str, Any], host: Any,
) -> None:  # fmt: skip
    entry = next(entry for entry in settings["frontends"] if entry["name"] == frontend)
    if outside is None:
        sockets = host.check_output("ss --no-header --listening --tcp --numeric")
        assert f":{entry['outside_port']} " not in sockets, "gateway_outside_address is empty"
        return
    keys: dict[str | None, str | None] = {None: None, "wrong": "pih_wrong"}
    keys.update(api_keys)
    asked = [(method, path, kind) for method, path in routes[frontend] for kind in keys]
    answers = outside.ask([outside.described(frontend, method, path, keys[kind]) for method, path, kind in asked])
    wrong = []
    for (method, path, kind), answer in zip(asked, answers, strict=True):
        status = expected(entry, path, kind)
        # What the service itself answers is none of the gateway's refusals, and a good key is never unknown to it.
        refused = answer.status in (0, 401, 429, 502, 503) or any(said in answer.body for said in REFUSALS)
        fits = answer.status == status if status else not refused
        if not fits:
            wrong.append(f"{method} {path} with {kind or 'no key'}: expected {status or 'its own answer'}; {answer}")
    assert wrong == []


def test_a_reader_of_documents_changes_none(outside: Outside | None, api_keys: dict[str, str]) -> None:
    if outside is None:
        assert api_keys == {}
        return
    sent = [("GET", "/v1/documents"), ("DELETE", "/v1/documents/doc_0"), ("GET", "/v1/audit")]
    expected = {"documents:read": [200, 403, 403], "documents": [200, 404, 403], "admin": [200, 404, 200]}
    for kind, statuses in expected.items():
        answers = outside.ask([outside.described("pageindex", method, path, api_keys[kind]) for method, path in sent])
        assert [answer.status for answer in answers] == statuses, [kind, *map(str, answers)]


def test_the_model_answers_from_outside(outside: Outside | None, api_keys: dict[str, str]) -> None:
    if outside is None:
        assert api_keys == {}
        return
    [answer] = outside.ask([outside.described("llm", "GET", "/v1/models", api_keys["llm"])])
    assert answer.status == 200 and answer.json()["data"], answer


def test_the_certificate_is_looked_at_every_day(host: Any, settings: dict[str, Any]) -> None:
    unit = "pageindex-home-certificate"
    wanted = settings["outside"]["address"] and settings["outside"]["tls"]
    assert host.service(f"{unit}.timer").is_running == host.service(f"{unit}.timer").is_enabled == bool(wanted)
    if wanted:
        looked = host.run(f"systemctl start {unit}.service")
        journal = host.check_output(f"journalctl --quiet --no-pager --lines 3 --unit {unit}.service")
        assert looked.rc == 0 and "it ends on" in journal, journal


def test_no_key_is_kept_or_readable(host: Any, settings: dict[str, Any], api_keys: dict[str, str]) -> None:
    folder = f"{settings['outside']['directory']}/keys"
    for key in api_keys.values():
        found = host.run("grep --recursive --files-with-matches %s %s /opt/pageindex-home /var/log", key, folder)
        assert found.stdout == "", "a key stands in a file"
    listed = host.run("find %s -type f -perm /0077", folder).stdout.split()
    assert listed == []
    journal = host.run("journalctl --quiet --no-pager --since -1hour --grep pih_").stdout
    assert [line for line in journal.splitlines() if _SECRET.search(line)] == []
