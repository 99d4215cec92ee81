"""The document service, live: a PDF made for this test, a question about it, and its deletion."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.acceptance.containers import Containers
from tests.acceptance.http_on_host import Answer, HttpOnHost, multipart, request
from tests.acceptance.sample_document import QUESTION, UNANSWERABLE_QUESTION, VALUE_PAGE, make_document, new_value

INDEX_SECONDS = 180


@dataclass(frozen=True)
class Uploaded:
    """A document that this test run uploaded: nobody can have known the value in it."""

    value: str
    id: str
    upload: Answer
    description: dict[str, Any]


@pytest.fixture(scope="module")
def document(http: HttpOnHost, documents_url: str) -> Iterator[Uploaded]:
    value = new_value()
    body, headers = multipart(f"report-{value}.pdf", make_document(value), "application/pdf")
    upload = http.send(f"{documents_url}/v1/documents", body=body, headers=headers)
    assert upload.status == 202, str(upload)
    identifier = upload.json()["id"]
    address = f"{documents_url}/v1/documents/{identifier}"
    deadline = time.monotonic() + INDEX_SECONDS
    while (description := http.send(address).json())["status"] in ("queued", "indexing"):
        assert time.monotonic() < deadline, f"not indexed after {INDEX_SECONDS} s: {description}"
        time.sleep(0.5)
    try:
        yield Uploaded(value, identifier, upload, description)
    finally:
        http.send(address, method="DELETE")


def test_health_and_readiness(http: HttpOnHost, documents_url: str) -> None:
    paths = ("/healthz", "/health", "/readyz")
    answers = http.send_all([request(documents_url + path) for path in paths])
    assert [answer.status for answer in answers] == [200, 200, 200], [str(answer) for answer in answers]
    assert all(check["ok"] for check in answers[2].json()["checks"].values())


def test_the_page_is_served_with_all_that_it_needs(http: HttpOnHost, documents_url: str) -> None:
    paths = ("/", "/static/page.js", "/static/page.css", "/static/nothing", "/nothing")
    answers = http.send_all([request(documents_url + path) for path in paths])
    assert [answer.status for answer in answers] == [200, 200, 200, 404, 404], [str(answer) for answer in answers]
    assert "default-src 'none'" in answers[0].headers["content-security-policy"]


def test_a_key_is_wanted_as_the_settings_say(
    http: HttpOnHost, settings: dict[str, Any], documents_url: str
) -> None:
    answers = http.send_all(
        [request(f"{documents_url}{path}", with_key=False) for path in ("/v1/documents", "/v1/audit")]
    )
    expected = 401 if settings["documents"]["key_required"] else 200
    assert [answer.status for answer in answers] == [expected] * 2, [str(answer) for answer in answers]


def test_document_is_indexed(document: Uploaded) -> None:
    assert document.description["status"] == "ready", document.description
    assert document.description["page_count"] >= 1
    assert document.description["node_count"] >= 1


def test_document_is_listed_and_has_a_tree(http: HttpOnHost, documents_url: str, document: Uploaded) -> None:
    listing, tree = http.send_all(
        [
            request(f"{documents_url}/v1/documents"),
            request(f"{documents_url}/v1/documents/{document.id}/tree"),
        ]
    )
    assert document.id in [entry["id"] for entry in listing.json()["documents"]]
    nodes = tree.json()["structure"]
    assert nodes and all(1 <= node["start_index"] <= node["end_index"] for node in nodes)


def test_question_is_answered_with_the_value_and_a_verified_quote(
    http: HttpOnHost, documents_url: str, document: Uploaded
) -> None:
    answer = http.send(
        f"{documents_url}/v1/query",
        json_body={"question": QUESTION, "document_ids": [document.id]},
        timeout=300,
    )
    assert answer.status == 200, str(answer)
    found = answer.json()
    assert document.value in found["answer"], found
    proof = [quote for quote in found["citations"] if quote["verified"] and document.value in quote["quote"]]
    assert proof, found
    assert proof[0]["document_id"] == document.id
    assert VALUE_PAGE in proof[0]["pages"], proof


def test_question_without_an_answer_in_the_document_gets_none(
    http: HttpOnHost, documents_url: str, document: Uploaded
) -> None:
    answer = http.send(
        f"{documents_url}/v1/query",
        json_body={"question": UNANSWERABLE_QUESTION, "document_ids": [document.id]},
        timeout=300,
    )
    assert answer.status == 200, str(answer)
    assert answer.json()["found"] is False, answer.json()
    assert "not found in the documents" in answer.json()["answer"], answer.json()
    assert answer.json()["citations"] == []


def test_process_answers_in_one_request(http: HttpOnHost, documents_url: str, document: Uploaded) -> None:
    answer = http.send(
        f"{documents_url}/api/process", json_body={"document": document.id, "query": QUESTION}, timeout=300
    )
    assert answer.status == 200, str(answer)
    assert document.value in answer.json()["answer"], answer.json()


def test_an_openai_client_gets_the_answer_and_its_source_as_a_stream(
    http: HttpOnHost, documents_url: str, document: Uploaded
) -> None:
    body = {
        "model": f"pageindex/{document.id}",
        "messages": [{"role": "user", "content": QUESTION}],
        "stream": True,
    }
    answer = http.send(f"{documents_url}/v1/chat/completions", json_body=body, timeout=300)
    assert answer.status == 200, str(answer)
    *chunks, end = answer.events()
    assert end == "[DONE]", str(answer)
    text = "".join(json.loads(chunk)["choices"][0]["delta"].get("content", "") for chunk in chunks)
    assert document.value in text and f"page {VALUE_PAGE}" in text, text


def test_unknown_document_is_named(http: HttpOnHost, documents_url: str) -> None:
    answer = http.send(f"{documents_url}/v1/documents/doc_{'0' * 24}")
    assert answer.status == 404, str(answer)
    assert answer.headers["content-type"].startswith("application/problem+json")
    assert "doc_000" in answer.json()["detail"]


def test_server_paths_are_never_opened(http: HttpOnHost, documents_url: str) -> None:
    answer = http.send(f"{documents_url}/api/process", json_body={"document": "/etc/passwd", "query": "Who?"})
    assert answer.status == 422, str(answer)
    assert "root:" not in answer.body


def test_deletion_removes_every_trace(
    http: HttpOnHost, documents_url: str, containers: Containers, host: Any
) -> None:
    value = new_value()
    marker = f"erase-me-{value}"
    text = f"# Note\n\nThe code of the {marker} locker is {value}.\n".encode()
    body, headers = multipart(f"{marker}.md", text, "text/markdown")
    upload = http.send(f"{documents_url}/v1/documents", body=body, headers=headers)
    assert upload.status == 202, str(upload)
    identifier = upload.json()["id"]
    [volume] = [
        mount["Source"]
        for mount in containers["pageindex"]["Mounts"]
        if mount["RW"] and mount["Type"] != "tmpfs"
    ]

    def traces() -> list[str]:
        # That it was there, by its id, and who deleted it, is what the audit log (access.sqlite3) is for.
        named = host.run("grep -rlaF -e %s %s", marker, volume)
        known = host.run("grep -rlaF --exclude=%s -e %s %s", "access.sqlite3*", identifier, volume)
        return (named.stdout + known.stdout).split()

    assert traces(), f"the upload left no trace in {volume}"
    address = f"{documents_url}/v1/documents/{identifier}"
    deleted, again, listing = http.send_all(
        [request(address, method="DELETE"), request(address), request(f"{documents_url}/v1/documents")]
    )
    assert (deleted.status, again.status) == (204, 404), f"{deleted} {again}"
    assert identifier not in listing.body
    deadline = time.monotonic() + 10
    while (left := traces()) and time.monotonic() < deadline:
        time.sleep(0.5)
    assert left == []
