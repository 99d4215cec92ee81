"""What other machines may do: every route of both services, without a key and with each kind of key.

The routes are read from the services themselves; what is decided of each is written in routes.yml, and one that a new
version brings is missed there. Where the gateway listens on loopback alone, that is what is shown.
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
import yaml

from tests.acceptance.conftest import HERE, REPOSITORY, once, own_url
from tests.acceptance.containers import Containers
from tests.acceptance.http_on_host import Answer, HttpOnHost, request

#: The scopes, and what keys with the greatest one become: out of requests for this minute, and too old.
KINDS = ("llm", "documents", "documents:read", "admin", "spent", "expired")
#: The kinds of keys that are enough for what routes.yml says of a route.
ENOUGH = {
    "served": ("llm", "admin"),
    "documents:read": ("documents:read", "documents", "admin"),
    "documents": ("documents", "admin"),
    "admin": ("admin",),
}
#: What it says of a route of each service that any key for that service opens.
ANY_KEY = {"llm": "served", "pageindex": "documents:read"}
OPENAPI = (
    "import sys, urllib.request; "
    "url = 'http://127.0.0.1:' + sys.argv[1] + '/openapi.json'; "
    "sys.stdout.write(urllib.request.urlopen(url, timeout=30).read().decode())"
)
NOT_SERVED = "This path is not served"
REFUSALS = (NOT_SERVED, "insufficient_scope", "request_too_large", "length_required")
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
        wanted = {"scopes": kind, "days": "1"}
        if kind == "spent":
            wanted |= {"scopes": "admin", "requests_per_minute": "1"}
        elif kind == "expired":
            # About a second.
            wanted |= {"scopes": "admin", "days": "0.00001"}
        [secret] = set(_SECRET.findall(playbook(create=names[kind], **wanted)))
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

    def models(self, key: str) -> Answer:
        """A request that any key for the model may send."""
        return self.ask([self.described("llm", "GET", "/v1/models", key)])[0]

    def wait_until_expired(self, key: str) -> None:
        deadline = time.monotonic() + 60
        while "expired_api_key" not in (answer := self.models(key)).body:
            assert time.monotonic() < deadline, f"a key for a second is good for a minute: {answer}"
            time.sleep(0.5)


@pytest.fixture(scope="module")
def outside(http: HttpOnHost, settings: dict[str, Any], api_keys: dict[str, str]) -> Outside | None:
    """Where other machines ask; None where they cannot."""
    if not settings["outside"]["address"]:
        return None
    found = Outside(http, settings)
    found.wait_until_expired(api_keys["expired"])
    return found


@pytest.fixture(scope="module")
def routes(host: Any, containers: Containers) -> dict[str, list[str]]:
    """Every operation that the running services know of, as "METHOD /path", by frontend."""

    def find() -> dict[str, list[str]]:
        found = {}
        for frontend, (container, port) in {"llm": ("vllm", "8000"), "pageindex": ("pageindex", "3000")}.items():
            paths = json.loads(containers.python(container, OPENAPI, port))["paths"]
            found[frontend] = [
                f"{method.upper()} {path}"
                for path, operations in paths.items()
                for method in operations
                if method in ("get", "post", "put", "patch", "delete")
            ]
            assert len(found[frontend]) > 10
        return found

    return once(host, "routes", find)


class Table:
    """What routes.yml says of one frontend's routes."""

    def __init__(self, frontend: str) -> None:
        written = yaml.safe_load((HERE / "routes.yml").read_text(encoding="utf-8"))[frontend]
        self.version: str = written.pop("version", "")
        decided = [(route, what) for what, routes in written.items() for route in routes]
        self.routes = dict(decided)
        assert len(self.routes) == len(decided), "routes.yml says two things of one route"
        defaults = yaml.safe_load((REPOSITORY / "roles/gateway/defaults/main.yml").read_text(encoding="utf-8"))
        self._usual = {which: defaults[f"gateway_{frontend}_{which}"] for which in ("paths", "open_paths")}

    def decided(self, entry: dict[str, Any], route: str) -> str:
        """What is meant for a route; what the table lacks is hidden.

        An owner's inventory may let through other paths than the role does by itself: for these it has the word. The
        role's own lists have not, so that one that grew by accident is noticed.
        """
        path = filled(route)[1]
        configured = [allowed(entry[which], path) for which in self._usual]
        if configured == [allowed(paths, path) for paths in self._usual.values()]:
            return self.routes.get(route, "hidden")
        served, without_key = configured
        return "hidden" if not served else "open" if without_key else ANY_KEY[entry["name"]]


def filled(route: str) -> tuple[str, str]:
    """Method and path; parameters in a path are filled in with what does not exist."""
    method, path = re.sub(r"\{[^}]+\}", "0", route).split(" ")
    return method, path


def allowed(entries: list[str], path: str) -> bool:
    """Whether a list of paths as the gateway has it lets *path* through."""
    return any(path.startswith(entry) if entry.endswith("/") and entry != "/" else path == entry for entry in entries)


def expected(frontend: str, decided: str, kind: str | None) -> int | None:
    """The status of the answer; None where the service behind the gateway has to let the request in."""
    if decided == "hidden":
        return 404
    if kind is None:
        return None if decided == "open" else 401
    if kind in ("wrong", "expired"):
        return 401
    if kind == "spent":
        return 429
    return None if kind in ENOUGH[ANY_KEY[frontend] if decided == "open" else decided] else 403


@pytest.mark.parametrize("frontend", ["llm", "pageindex"])
def test_every_route_is_decided_of(
    routes: dict[str, list[str]], settings: dict[str, Any], catalogue: dict[str, dict[str, Any]], frontend: str
) -> None:
    table = Table(frontend)
    if frontend == "llm":
        default = catalogue["versions"]["vllm"]["version"]
        assert table.version == default, (
            f"tests/acceptance/routes.yml is about vLLM {table.version}, and the default is {default}: bring it up to"
            " date with the routes that this one has, and its version with it"
        )
        # An owner may run another version. Its further routes are no failure here; that they are not let through is
        # shown below all the same.
        if settings["llm"]["version"] != table.version:
            return
    unknown = sorted(set(routes[frontend]) - set(table.routes))
    assert unknown == [], (
        f"the service has routes of which nothing is decided: {', '.join(unknown)}. Decide whether the gateway lets"
        f" other machines through to them (gateway_{frontend}_paths), then add them to tests/acceptance/routes.yml"
    )


@pytest.mark.parametrize("frontend", ["llm", "pageindex"])
def test_every_route_with_every_kind_of_key(
    outside: Outside | None, routes: dict[str, list[str]], api_keys: dict[str, str], frontend: str,
    settings: dict[str, Any], host: Any,
) -> None:  # fmt: skip
    entry = next(entry for entry in settings["frontends"] if entry["name"] == frontend)
    if outside is None:
        sockets = host.check_output("ss --no-header --listening --tcp --numeric")
        assert f":{entry['outside_port']} " not in sockets, "gateway_outside_address is empty"
        return
    table = Table(frontend)
    asked = sorted(set(routes[frontend]) | set(table.routes))
    keys: dict[str | None, str | None] = {None: None, "wrong": "pih_wrong"}
    keys.update(api_keys)
    wrong = []
    # One kind after the other: the requests of all of them are too many for one command.
    for kind, key in keys.items():
        if kind == "spent":
            outside.models(api_keys[kind])
        answers = outside.ask([outside.described(frontend, *filled(route), key) for route in asked])
        for route, answer in zip(asked, answers, strict=True):
            status = expected(frontend, table.decided(entry, route), kind)
            # What the service itself answers is none of the gateway's refusals, and a good key is never unknown to it.
            # A 404 that is expected is the gateway's: the service has its own for what it does not find.
            refused = answer.status in (0, 401, 429, 502, 503) or any(said in answer.body for said in REFUSALS)
            fits = answer.status == status if status else not refused
            if not fits or (status == 404 and NOT_SERVED not in answer.body):
                wrong.append(f"{route} with {kind or 'no key'}: expected {status or 'its own answer'}; {answer}")
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
    answer = outside.models(api_keys["llm"])
    assert answer.status == 200 and answer.json()["data"], answer


def test_the_certificate_is_looked_at_every_day(host: Any, settings: dict[str, Any]) -> None:
    unit = "pageindex-home-certificate"
    wanted = settings["outside"]["address"] and settings["outside"]["tls"]
    assert host.service(f"{unit}.timer").is_running == host.service(f"{unit}.timer").is_enabled == bool(wanted)
    if wanted:
        looked = host.run(f"systemctl start {unit}.service")
        journal = host.check_output(f"journalctl --quiet --no-pager --lines 3 --unit {unit}.service")
        assert looked.rc == 0 and "it ends on" in journal, journal


def test_a_renewal_by_acme_counts_at_once(host: Any, settings: dict[str, Any]) -> None:
    hook = host.file("/etc/letsencrypt/renewal-hooks/deploy/pageindex-home")
    assert hook.exists is settings["outside"]["acme"]
    if hook.exists:
        assert host.service("certbot.timer").is_running and host.service("certbot.timer").is_enabled
        assert hook.mode == 0o755 and "systemctl start pageindex-home-certificate.service" in hook.content_string
        # As certbot does after a renewal.
        assert host.run(f"RENEWED_LINEAGE=/etc/letsencrypt/live/pageindex-home {hook.path}").rc == 0


def test_no_key_is_kept_or_readable(host: Any, settings: dict[str, Any], api_keys: dict[str, str]) -> None:
    folder = f"{settings['outside']['directory']}/keys"
    for key in api_keys.values():
        found = host.run("grep --recursive --files-with-matches %s %s /opt/pageindex-home /var/log", key, folder)
        assert found.stdout == "", "a key stands in a file"
    listed = host.run("find %s -type f -perm /0077", folder).stdout.split()
    assert listed == []
    journal = host.run("journalctl --quiet --no-pager --since -1hour --grep pih_").stdout
    assert [line for line in journal.splitlines() if _SECRET.search(line)] == []
