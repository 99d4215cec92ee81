"""Keys, scopes, sessions, limits and the audit log, as clients meet them."""

from __future__ import annotations

import datetime
import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from documents import flat_pdf
from fake_llm import FakeLanguageModel
from fastapi.testclient import TestClient
from pageindex_home.access import keys_path
from pageindex_home.api import create_app
from pageindex_home.keys import ADMIN, READ, SCOPES, WRITE, KeyFile
from pageindex_home.settings import Settings
from running import await_until, service, upload
from waiting import wait_for

PDF = flat_pdf([["The gate code of the garden is 7310.", *["More words of the garden."] * 5]])
QUESTION = {"question": "What is the gate code of the garden?"}
NEEDS = [
    ("GET", "/v1/documents", READ),
    ("GET", "/v1/documents/doc_0", READ),
    ("GET", "/v1/jobs", READ),
    ("GET", "/v1/models", READ),
    ("POST", "/v1/query", READ),
    ("POST", "/v1/chat/completions", READ),
    ("POST", "/v1/documents", WRITE),
    ("PUT", "/v1/documents/doc_0/tree", WRITE),
    ("DELETE", "/v1/documents/doc_0", WRITE),
    ("POST", "/v1/jobs/job_0/cancel", WRITE),
    ("POST", "/api/process", WRITE),
    ("GET", "/v1/audit", ADMIN),
    ("GET", "/nobody/thought/of", READ),
    ("POST", "/nobody/thought/of", WRITE),
]


@pytest.fixture
def guarded(settings: Settings) -> Settings:
    return replace(settings, require_key="true", requests_per_minute=0)


@pytest.fixture
def keys(guarded: Settings) -> KeyFile:
    return KeyFile(keys_path(guarded))


@pytest.fixture
def client(guarded: Settings) -> Iterator[TestClient]:
    """A client of a service that wants keys; it sends none by itself."""
    with TestClient(create_app(guarded), raise_server_exceptions=False) as started:
        yield started


@pytest.fixture
def bearer(keys: KeyFile) -> Callable[[str], dict[str, str]]:
    """Headers with a key of a scope."""
    made = {scope: keys.create(scope, scope) for scope in SCOPES}
    return lambda scope: {"Authorization": f"Bearer {made[scope]}"}


@pytest.mark.parametrize(("method", "path", "scope"), NEEDS)
def test_each_path_needs_its_scope(
    client: TestClient, bearer: Callable[[str], dict[str, str]], method: str, path: str, scope: str
) -> None:
    assert client.request(method, path).status_code == 401
    assert client.request(method, path, headers={"x-api-key": "pih_wrong"}).status_code == 401
    for had in SCOPES:
        status = client.request(method, path, headers=bearer(had)).status_code
        if SCOPES.index(had) < SCOPES.index(scope):
            assert status == 403, had
        else:
            assert status not in (401, 403), had


@pytest.mark.parametrize("path", ["/", "/static/page.js", "/healthz", "/readyz", "/metrics", "/openapi.json"])
def test_what_tells_nothing_of_documents_needs_no_key(client: TestClient, path: str) -> None:
    assert client.get(path).status_code in (200, 503)


def test_what_needs_no_key_is_small(client: TestClient) -> None:
    """It is read before it is known who sends it."""
    large = {"key": "x" * 20_000}
    assert client.post("/v1/session", json=large).status_code == 413

    def pieces() -> Iterator[bytes]:
        yield b'{"key": "'
        for _ in range(20):
            yield b"x" * 1000
        yield b'"}'

    answer = client.post("/v1/session", content=pieces(), headers={"Content-Type": "application/json"})
    assert answer.status_code == 413 and "16 KiB" in answer.json()["detail"]
    assert client.post("/v1/session", json={"key": "x" * 200}).status_code == 401


def test_every_operation_of_the_document_needs_a_key_or_is_known_to_need_none(client: TestClient) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    free = {path for path, operations in paths.items() for one in operations.values() if "security" not in one}
    assert free == {"/healthz", "/readyz", "/v1/session"}


def test_a_key_comes_as_bearer_or_in_a_header_of_its_own(client: TestClient, keys: KeyFile) -> None:
    secret = keys.create("laptop", READ)
    for headers in (
        {"Authorization": f"Bearer {secret}"},
        {"authorization": f"bearer  {secret}"},
        {"x-api-key": secret},
    ):
        assert client.get("/v1/documents", headers=headers).status_code == 200
    assert client.get("/v1/documents", headers={"Authorization": f"Basic {secret}"}).status_code == 401


def test_a_refusal_says_what_to_do_and_to_openais_clients_in_their_words(client: TestClient) -> None:
    refused = client.get("/v1/documents")
    assert refused.headers["www-authenticate"] == "Bearer"
    assert refused.headers["content-type"] == "application/problem+json"
    assert "pageindex-home keys create" in refused.json()["detail"]
    error = client.get("/v1/models").json()["error"]
    assert error["type"] == "invalid_request_error" and error["code"] == "no-key"


def test_keys_count_from_the_next_request_and_end_with_it(client: TestClient, keys: KeyFile) -> None:
    headers = {"x-api-key": keys.create("laptop", READ)}
    assert client.get("/v1/documents", headers=headers).status_code == 200
    keys.revoke("laptop")
    assert client.get("/v1/documents", headers=headers).status_code == 401


def test_an_expired_key_is_none(client: TestClient, guarded: Settings, keys: KeyFile) -> None:
    headers = {"x-api-key": keys.create("guest", READ, days=1)}
    assert client.get("/v1/documents", headers=headers).status_code == 200
    file = keys_path(guarded)
    [entry] = json.loads(file.read_text())
    yesterday = datetime.datetime.now(datetime.UTC).date() - datetime.timedelta(days=1)
    file.write_text(json.dumps([entry | {"expires": yesterday.isoformat()}]))
    assert client.get("/v1/documents", headers=headers).status_code == 401


def test_a_key_may_end_at_a_second_and_its_sessions_with_it(
    client: TestClient, guarded: Settings, keys: KeyFile
) -> None:
    """As the host's list of keys has it; at the gateway a session is let through."""
    client.post("/v1/session", json={"key": keys.create("guest", READ)})
    file = keys_path(guarded)
    [entry] = json.loads(file.read_text())
    for seconds, status in ((3600, 200), (-1, 401)):
        end = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=seconds)
        file.write_text(json.dumps([entry | {"expires": end.isoformat(timespec="seconds")}]))
        assert client.get("/v1/documents").status_code == status, seconds


def test_the_secret_is_in_no_file(client: TestClient, guarded: Settings, keys: KeyFile) -> None:
    secret = keys.create("laptop", READ)
    client.post("/v1/session", json={"key": secret})
    token = client.cookies["pageindex_session"]
    assert keys_path(guarded).stat().st_mode & 0o777 == 0o600
    for path in guarded.data_directory.rglob("*"):
        if path.is_file():
            assert secret.encode() not in path.read_bytes() and token.encode() not in path.read_bytes(), path


def test_a_broken_file_of_keys_lets_nobody_in_and_is_named(
    client: TestClient, guarded: Settings, keys: KeyFile
) -> None:
    headers = {"x-api-key": keys.create("laptop", READ)}
    keys_path(guarded).write_text("{not json")
    refused = client.get("/v1/documents", headers=headers)
    assert refused.status_code == 503 and "keys.json" in refused.json()["detail"]
    assert client.post("/v1/session", json={"key": headers["x-api-key"]}).status_code == 503


# --- sessions


def test_a_person_signs_in_once_and_out(client: TestClient, keys: KeyFile) -> None:
    secret = keys.create("phone", WRITE)
    assert client.get("/v1/session").json() == {
        "key_required": True,
        "name": None,
        "scope": None,
        "external_llm": None,
    }
    assert client.post("/v1/session", json={"key": "pih_wrong"}).status_code == 401
    signed_in = client.post("/v1/session", json={"key": f" {secret}\n"})
    assert signed_in.json()["name"] == "phone"
    cookie = signed_in.headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=strict" in cookie and "Path=/" in cookie and "Secure" not in cookie
    assert client.get("/v1/documents").status_code == 200
    assert client.get("/v1/audit").status_code == 403
    left = dict(client.cookies)
    assert client.delete("/v1/session").status_code == 204
    client.cookies.update(left)
    assert client.get("/v1/documents").status_code == 401


def test_behind_tls_the_cookie_never_travels_without(client: TestClient, keys: KeyFile) -> None:
    body = {"key": keys.create("phone", READ)}
    signed_in = client.post("/v1/session", json=body, headers={"X-Forwarded-Proto": "https"})
    assert "Secure" in signed_in.headers["set-cookie"]


def test_a_session_outlives_a_restart_but_not_its_key(guarded: Settings, keys: KeyFile) -> None:
    with TestClient(create_app(guarded)) as client:
        client.post("/v1/session", json={"key": keys.create("phone", READ)})
        cookies = dict(client.cookies)
    with TestClient(create_app(guarded), cookies=cookies) as client:
        assert client.get("/v1/documents").status_code == 200
        keys.revoke("phone")
        assert client.get("/v1/documents").status_code == 401


# --- other people's web pages


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_another_page_cannot_send_anything(client: TestClient, keys: KeyFile, site: str) -> None:
    client.post("/v1/session", json={"key": keys.create("phone", WRITE)})
    part = {"file": ("a.md", b"# A\nText of A.")}
    refused = client.post("/v1/documents", files=part, headers={"Sec-Fetch-Site": site})
    assert refused.status_code == 403 and refused.json()["type"].endswith(":other-page")
    assert client.get("/v1/documents").json()["documents"] == []
    assert client.post("/v1/documents", files=part, headers={"Sec-Fetch-Site": "same-origin"}).status_code == 202


def test_without_keys_neither(settings: Settings) -> None:
    with TestClient(create_app(settings)) as client:
        part = {"file": ("a.md", b"# A\nText of A.")}
        assert client.post("/v1/documents", files=part, headers={"Sec-Fetch-Site": "cross-site"}).status_code == 403
        for name, status in {
            "localhost:3000": 200,
            "127.0.0.1:3000": 200,
            "[::1]:3000": 200,
            "pageindex:3000": 200,
            "llm.lan": 200,
            "192.168.1.7": 200,
            "evil.example.com": 403,
            "evil.example.com:3000": 403,
            "localhost@evil.example.com": 403,
        }.items():
            assert client.get("/v1/documents", headers={"Host": name}).status_code == status, name


def test_with_keys_any_name_will_do(client: TestClient, bearer: Callable[[str], dict[str, str]]) -> None:
    headers = bearer(READ) | {"Host": "documents.example.com"}
    assert client.get("/v1/documents", headers=headers).status_code == 200


def test_a_key_that_a_client_has_to_send_does_no_harm_where_none_is_wanted(settings: Settings) -> None:
    with TestClient(create_app(settings)) as client:
        assert client.get("/v1/models", headers={"Authorization": "Bearer none"}).status_code == 200


# --- limits


def test_a_gateway_says_which_requests_need_a_key_all_the_same(settings: Settings, keys: KeyFile) -> None:
    """Those of other machines do, those of this one do not."""
    from_elsewhere = {"X-Pageindex-Require-Key": "true", "Host": "home.example.com"}
    with TestClient(create_app(replace(settings, require_key="false"))) as client:
        assert client.get("/v1/documents").status_code == 200
        assert client.get("/v1/session").json()["key_required"] is False
        assert client.get("/v1/documents", headers=from_elsewhere).status_code == 401
        assert client.get("/v1/session", headers=from_elsewhere).json()["key_required"] is True
        headers = {**from_elsewhere, "x-api-key": keys.create("laptop", READ)}
        # A public name is no danger to one who has to show a key.
        assert client.get("/v1/documents", headers=headers).status_code == 200
        assert client.post("/v1/documents", headers=headers).status_code == 403


def test_keys_may_come_from_a_file_that_others_write(guarded: Settings, keys: KeyFile, tmp_path: Path) -> None:
    shared = tmp_path / "shared" / "keys.json"
    elsewhere = KeyFile(shared)
    secret, own = elsewhere.create("laptop", READ), keys.create("phone", READ)
    with TestClient(create_app(replace(guarded, shared_keys=str(shared)))) as client:
        for key in (secret, own):
            assert client.get("/v1/documents", headers={"x-api-key": key}).status_code == 200
        # From other machines only those of the file that is theirs too, and no session by another.
        from_elsewhere = {"X-Pageindex-Require-Key": "true"}
        answers = [
            client.get("/v1/documents", headers={**from_elsewhere, "x-api-key": key}).status_code
            for key in (secret, own)
        ]
        assert answers == [200, 401]
        assert client.post("/v1/session", json={"key": own}, headers=from_elsewhere).status_code == 401
        assert client.post("/v1/session", json={"key": own}).status_code == 200
        assert client.get("/v1/documents").status_code == 200
        assert client.get("/v1/documents", headers=from_elsewhere).status_code == 401
        client.cookies.clear()
        # Replaced as a whole, as one who writes it elsewhere does.
        elsewhere.revoke("laptop")
        assert client.get("/v1/documents", headers={"x-api-key": secret}).status_code == 401
        shared.unlink()
        assert client.get("/v1/documents", headers={"x-api-key": own}).status_code == 200


def test_each_key_has_its_own_limit(guarded: Settings, keys: KeyFile) -> None:
    busy, other = ({"x-api-key": keys.create(name, READ)} for name in ("busy", "other"))
    with TestClient(create_app(replace(guarded, requests_per_minute=5))) as client:
        statuses = [client.get("/v1/documents", headers=busy).status_code for _ in range(6)]
        assert statuses == [200] * 5 + [429]
        refused = client.get("/v1/models", headers=busy)
        assert 1 <= int(refused.headers["retry-after"]) <= 12
        assert refused.json()["error"]["code"] == "too-many-requests"
        assert client.get("/v1/documents", headers=other).status_code == 200
        assert client.get("/healthz").status_code == 200


# --- the limits that a key has at the gateway, which knows no sessions


Limited = Callable[..., dict[str, str]]


@pytest.fixture
def limited(guarded: Settings, keys: KeyFile) -> Limited:
    """``limited(name, …)``: headers with a new key that has these limits, as the host's list of keys tells them."""

    def make(name: str, scope: str = WRITE, **limits: int) -> dict[str, str]:
        headers = {"x-api-key": keys.create(name, scope)}
        limit(keys_path(guarded), name, **limits)
        return headers

    return make


def limit(file: Path, name: str, **limits: int) -> None:
    """Give a key in *file* these limits."""
    entries = [one | (limits if one["name"] == name else {}) for one in json.loads(file.read_text())]
    file.write_text(json.dumps(entries))


def sign_in(client: TestClient, headers: dict[str, str]) -> None:
    """From now on *client* has a session."""
    assert client.post("/v1/session", json={"key": headers["x-api-key"]}).status_code == 200


def ask(client: httpx.Client) -> httpx.Response:
    """A question; there is no document, so it is answered at once with 409."""
    return client.post("/v1/query", json=QUESTION)


def test_a_session_has_the_limit_of_its_key(client: TestClient, limited: Limited) -> None:
    headers = limited("phone", requests_per_minute=3)
    sign_in(client, headers)
    assert [ask(client).status_code for _ in range(3)] == [409] * 3
    refused = ask(client)
    assert refused.status_code == 429 and 1 <= int(refused.headers["retry-after"]) <= 20
    assert refused.headers["content-type"] == "application/problem+json"
    # As the gateway says it, to its own clients and to OpenAI's.
    assert refused.json()["type"] == "urn:pageindex-home:problem:rate-limit-exceeded"
    assert "'phone'" in refused.json()["detail"] and "3 times a minute" in refused.json()["detail"]
    message = {"model": "pageindex", "messages": [{"role": "user", "content": "What?"}]}
    refused = client.post("/v1/chat/completions", json=message)
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "rate_limit_exceeded")
    # It is the key's, however it comes, and whatever it asks for.
    client.cookies.clear()
    client.headers.update(headers)
    assert ask(client).status_code == 429
    assert client.post("/v1/documents", files={"file": ("a.md", b"# A\nText of A.")}).status_code == 429
    assert client.delete("/v1/documents/doc_0").status_code == 429


def test_looking_costs_nothing_of_it(client: TestClient, limited: Limited) -> None:
    sign_in(client, limited("phone", requests_per_minute=1, concurrent_requests=1))
    for path in ("/", "/static/page.js", "/v1/session", "/v1/documents", "/v1/jobs", "/readyz") * 3:
        assert client.get(path).status_code in (200, 503), path
    assert ask(client).status_code == 409
    assert ask(client).status_code == 429
    assert client.get("/v1/documents").status_code == 200
    # Whoever leaves is let out.
    assert client.delete("/v1/session").status_code == 204


def test_a_limit_counts_from_the_next_request_on(client: TestClient, guarded: Settings, limited: Limited) -> None:
    sign_in(client, limited("phone", requests_per_minute=1))
    assert [ask(client).status_code for _ in range(2)] == [409, 429]
    limit(keys_path(guarded), "phone", requests_per_minute=0)
    assert [ask(client).status_code for _ in range(9)] == [409] * 9
    limit(keys_path(guarded), "phone", requests_per_minute=2)
    assert [ask(client).status_code for _ in range(3)] == [409, 409, 429]


def test_what_is_refused_counts_for_no_limit(guarded: Settings, limited: Limited) -> None:
    """By the service's own limit: not for the key's."""
    headers = limited("phone", requests_per_minute=3)
    with TestClient(create_app(replace(guarded, requests_per_minute=2)), headers=headers) as client:
        access = client.app.state.service.access  # type: ignore[attr-defined]
        assert [ask(client).status_code for _ in range(6)] == [409, 409, *[429] * 4]
        assert ask(client).json()["type"].endswith(":too-many-requests")
        access.settings = replace(guarded, requests_per_minute=0)
        assert [ask(client).status_code for _ in range(2)] == [409, 429]
        # And the other way round.
        access.settings = replace(guarded, requests_per_minute=60)
        assert [ask(client).json()["type"].rpartition(":")[2] for _ in range(70)] == ["rate-limit-exceeded"] * 70
        assert client.get("/v1/documents").status_code == 200


def test_a_question_runs_until_its_answer_has_ended(llm: FakeLanguageModel, tmp_path: Path) -> None:
    """Also a streamed one, which begins at once; and one whose asker goes away is over then."""
    keys = KeyFile(tmp_path / "data" / "keys.json")
    secret = keys.create("phone", WRITE)
    limit(tmp_path / "data" / "keys.json", "phone", concurrent_requests=1)
    with service(tmp_path / "data", llm, require_key="true") as (_, client):
        upload(client, "a.pdf", PDF, headers={"x-api-key": secret})
        client.post("/v1/session", json={"key": secret})
        await_until(lambda: client.get("/v1/documents").json()["documents"][0]["status"] == "ready", "the index")
        llm.pause = 0.3
        streamed = {**QUESTION, "stream": True}
        with client.stream("POST", "/v1/query", json=streamed) as stream:
            lines = stream.iter_lines()
            assert next(lines) == "event: step"
            refused = ask(client)
            assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
            assert refused.json()["type"] == "urn:pageindex-home:problem:concurrency-limit-exceeded"
            assert client.get("/v1/documents").status_code == 200
            assert any(line == "event: answer" for line in lines)
        llm.pause = 0.0
        await_until(lambda: ask(client).status_code == 200, "the place of the stream to be free", 5)
        llm.pause = 1.0
        with client.stream("POST", "/v1/query", json=streamed) as stream:
            next(stream.iter_lines())
        llm.pause = 0.0
        await_until(lambda: ask(client).status_code == 200, "the place of one who went away to be free", 5)
        # What fails is over as well.
        for _ in range(3):
            assert client.post("/v1/query", json={}).status_code == 422
            assert client.post("/nobody/thought/of").status_code == 404
        assert ask(client).status_code == 200


def test_what_is_refused_because_others_run_is_not_counted(
    guarded: Settings, llm: FakeLanguageModel, limited: Limited
) -> None:
    headers = limited("phone", requests_per_minute=3, concurrent_requests=1)
    with TestClient(create_app(guarded), headers=headers) as client:
        wait_for(client, client.post("/v1/documents", files={"file": ("a.pdf", PDF)}).json()["id"])
        with ThreadPoolExecutor() as threads:
            with llm.held():
                slow = threads.submit(ask, client)
                await_until(lambda: llm.running, "the question to run")
                refused = [ask(client).json()["type"].rpartition(":")[2] for _ in range(5)]
            assert refused == ["concurrency-limit-exceeded"] * 5
            assert slow.result().status_code == 200
        assert [ask(client).status_code for _ in range(2)] == [200, 429]


# --- audit and retention


def test_the_audit_log_says_who_asked_what_when(
    client: TestClient, guarded: Settings, bearer: Callable[[str], dict[str, str]]
) -> None:
    uploaded = client.post("/v1/documents", files={"file": ("a.pdf", PDF)}, headers=bearer(WRITE)).json()["id"]
    client.headers.update(bearer(READ))
    wait_for(client, uploaded)
    assert client.post("/v1/query", json=QUESTION).json()["found"]
    message = {"model": "pageindex", "messages": [{"role": "user", "content": QUESTION["question"]}]}
    client.post("/v1/chat/completions", json=message)
    assert client.delete(f"/v1/documents/{uploaded}").status_code == 403
    lines = client.get("/v1/audit", headers=bearer(ADMIN)).json()
    assert [(one["who"], one["action"], one["status"], one["documents"], one["question"]) for one in lines] == [
        ("read", "POST /v1/chat/completions", 200, [uploaded], None),
        ("read", "POST /v1/query", 200, [uploaded], None),
        ("write", "POST /v1/documents", 202, [], None),
    ]
    older = client.get(f"/v1/audit?limit=1&before={lines[1]['id']}", headers=bearer(ADMIN)).json()
    assert older == [lines[2]]
    moment = datetime.datetime.fromisoformat(lines[0]["at"])
    assert abs((datetime.datetime.now(datetime.UTC) - moment).total_seconds()) < 60


def test_questions_are_kept_where_it_is_said_until_their_document_goes(settings: Settings) -> None:
    with TestClient(create_app(replace(settings, audit_questions=True))) as client:
        uploaded = client.post("/v1/documents", files={"file": ("a.pdf", PDF)}).json()["id"]
        wait_for(client, uploaded)
        client.post("/v1/query", json=QUESTION)
        assert client.get("/v1/audit").json()[0]["question"] == QUESTION["question"]
        client.delete(f"/v1/documents/{uploaded}")
        assert [one["question"] for one in client.get("/v1/audit").json()] == [None] * 3
    kept = b"".join(path.read_bytes() for path in settings.data_directory.glob("access.sqlite3*"))
    assert b"gate code" not in kept


def test_what_is_older_than_the_settings_keep_is_erased(settings: Settings, llm: FakeLanguageModel) -> None:
    with TestClient(create_app(settings)) as client:
        old = client.post("/v1/documents", files={"file": ("old.md", b"# Old\nText of old.")}).json()["id"]
        wait_for(client, old)
        store = client.app.state.service.store  # type: ignore[attr-defined]
        with store._transaction():
            store._database.execute("UPDATE documents SET created_at = ?", (time.time() - 8 * 86400,))
        records = client.app.state.service.access.records  # type: ignore[attr-defined]
        records._database.execute("UPDATE audit SET at = ?", (time.time() - 8 * 86400,))
        new = client.post("/v1/documents", files={"file": ("new.md", b"# New\nText of new.")}).json()["id"]
        wait_for(client, new)
    with TestClient(create_app(replace(settings, retention_days=7, audit_days=7))) as client:
        deadline = time.monotonic() + 10
        while client.get(f"/v1/documents/{old}").status_code != 404 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert [one["id"] for one in client.get("/v1/documents").json()["documents"]] == [new]
        assert len(client.get("/v1/audit").json()) == 1
    assert [path.name for path in (settings.data_directory / "documents").iterdir()] == [new]
