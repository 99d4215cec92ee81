"""The HTTP interface: documents, errors, limits, restarts."""

from __future__ import annotations

import base64
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from documents import encrypted_pdf, scanned_pdf
from fake_llm import FakeLanguageModel
from fastapi.testclient import TestClient
from pageindex_home.api import create_app
from pageindex_home.settings import Settings, SettingsError
from pageindex_home.store import Store
from waiting import Upload, wait_for

from tests.acceptance import sample_document

PDF = sample_document.make_document("48213")


def post(client: TestClient, data: bytes, name: str = "report.pdf") -> Any:
    return client.post("/v1/documents", files={"file": (name, data)})


def test_life_of_a_document(client: TestClient, settings: Settings, upload: Upload) -> None:
    response = post(client, PDF)
    assert response.status_code == 202
    identifier = response.json()["id"]
    assert response.headers["location"] == f"/v1/documents/{identifier}"
    document = wait_for(client, identifier)
    assert document["status"] == "ready", document
    assert (document["page_count"], document["node_count"], document["structure"]) == (6, 6, "outline")
    assert document["media_type"] == "application/pdf"
    assert document["created_at"].endswith("Z")
    assert [item["id"] for item in client.get("/v1/documents").json()["documents"]] == [identifier]

    tree = client.get(f"/v1/documents/{identifier}/tree").json()
    assert (tree["doc_id"], tree["unit"]) == (identifier, "page")
    assert set(tree["structure"][0]) == {"title", "node_id", "start_index", "end_index", "summary", "nodes"}

    assert client.delete(f"/v1/documents/{identifier}").status_code == 204
    assert client.get(f"/v1/documents/{identifier}").status_code == 404
    assert client.delete(f"/v1/documents/{identifier}").status_code == 404
    assert list((settings.data_directory / "documents").iterdir()) == []
    assert list((settings.data_directory / "incoming").iterdir()) == []


def test_same_bytes_are_one_document(client: TestClient, upload: Upload) -> None:
    first = upload(PDF, "a.pdf")
    again = post(client, PDF, "b.pdf")
    assert (again.status_code, again.json()["id"], again.json()["name"]) == (200, first["id"], "a.pdf")
    assert len(client.get("/v1/documents").json()["documents"]) == 1


def test_two_uploads_at_once_are_one_document(client: TestClient) -> None:
    answers: list[Any] = []
    threads = [threading.Thread(target=lambda: answers.append(post(client, PDF))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answer.status_code for answer in answers) == [200, 200, 200, 202]
    assert len({answer.json()["id"] for answer in answers}) == 1


@pytest.mark.parametrize(
    ("data", "name", "status", "code"),
    [
        (b"", "empty.pdf", 422, "empty-document"),
        (encrypted_pdf(), "locked.pdf", 422, "encrypted-pdf"),
        (b"%PDF-1.4\nbroken", "broken.pdf", 422, "damaged-pdf"),
        (b"PK\x03\x04zip", "letter.docx", 415, "unsupported-format"),
        (b"Gr\xfc\xdfe", "latin.txt", 422, "not-utf8"),
        (b"x" * 2_500_000, "huge.txt", 413, "too-large"),
    ],
)
def test_refused_uploads(
    client: TestClient, settings: Settings, data: bytes, name: str, status: int, code: str
) -> None:
    response = post(client, data, name)
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert problem["type"] == f"urn:pageindex-home:problem:{code}"
    assert problem["status"] == status and problem["title"] and problem["detail"]
    assert client.get("/v1/documents").json()["documents"] == []
    assert list((settings.data_directory / "incoming").iterdir()) == []


def test_body_without_length_is_bounded(client: TestClient) -> None:
    def chunks() -> Any:
        yield b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.txt"\r\n\r\n'
        for _ in range(40):
            yield b"y" * 100_000
        yield b"\r\n--x--\r\n"

    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    response = client.post("/v1/documents", content=chunks(), headers=headers)
    assert response.status_code == 413


def test_scanned_pdf_fails_with_a_reason(client: TestClient, upload: Upload) -> None:
    document = upload(scanned_pdf())
    assert document["status"] == "failed"
    assert document["error"]["code"] == "no-text"
    assert "ocrmypdf" in document["error"]["detail"]
    response = client.post("/v1/query", json={"question": "What?", "document_ids": [document["id"]]})
    assert response.status_code == 409
    assert response.json()["type"].endswith(":no-text")
    assert client.get(f"/v1/documents/{document['id']}/tree").status_code == 409
    # Sent again it is tried again.
    assert post(client, scanned_pdf()).status_code == 202


def test_names_are_only_names(client: TestClient, settings: Settings, upload: Upload) -> None:
    document = upload(b"Some words about apples.", "../../etc/pass\nwd.txt")
    assert document["name"] in ("passwd.txt", "pass%0Awd.txt")
    folders = [path.name for path in (settings.data_directory / "documents").iterdir()]
    assert folders == [document["id"]]


@pytest.mark.parametrize("identifier", ["doc_nothing", "..", "%2e%2e%2fdocuments", "doc_" + "0" * 24])
def test_unknown_documents(client: TestClient, identifier: str) -> None:
    response = client.get(f"/v1/documents/{identifier}")
    assert response.status_code in (404, 200)
    if response.status_code == 404:
        assert response.headers["content-type"] == "application/problem+json"
    body = {"question": "What?", "document_ids": [identifier]}
    assert client.post("/v1/query", json=body).status_code == 404


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({}, 422),
        ({"question": ""}, 422),
        ({"question": "   ", "document_ids": []}, 422),
        ({"question": "What?", "document_ids": []}, 422),
        ({"question": "What?"}, 409),
        ({"question": "x" * 5000}, 422),
    ],
)
def test_bad_questions(client: TestClient, body: dict[str, Any], status: int) -> None:
    response = client.post("/v1/query", json=body)
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"


def test_other_errors_are_problems_too(client: TestClient) -> None:
    for response in (
        client.get("/nothing"),
        client.put("/v1/documents"),
        client.post("/v1/query", content=b"{broken", headers={"Content-Type": "application/json"}),
        client.post("/v1/documents", files={"other": ("a.txt", b"x")}),
        client.post("/v1/documents", content=b"plain"),
    ):
        assert response.status_code in (404, 405, 422)
        assert response.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(("mode", "status"), [("busy", 503), ("broken", 503), ("rejects", 502)])
def test_a_model_server_that_refuses_costs_neither_index_nor_service(
    client: TestClient, upload: Upload, llm: FakeLanguageModel, mode: str, status: int
) -> None:
    llm.mode = mode
    document = upload(PDF)
    assert document["status"] == "ready"
    question = {"question": sample_document.QUESTION}
    refused = client.post("/v1/query", json=question)
    assert refused.status_code == status and refused.headers["content-type"] == "application/problem+json"
    llm.mode = "good"
    assert "48213" in client.post("/v1/query", json=question).json()["answer"]


def test_the_text_of_a_tool_call_is_no_answer(client: TestClient, upload: Upload, llm: FakeLanguageModel) -> None:
    llm.mode = "tools"
    upload(PDF)
    answer = client.post("/v1/query", json={"question": sample_document.QUESTION}).json()
    assert "tool_call" not in answer["answer"]
    assert all(citation["verified"] for citation in answer["citations"])


def test_health_readiness_and_metrics(client: TestClient, llm: FakeLanguageModel, upload: Upload) -> None:
    assert client.get("/healthz").json()["status"] == "ok"
    assert client.get("/health").status_code == 200
    assert client.get("/readyz").json()["checks"]["llm"]["ok"] is True
    upload(PDF)
    llm.stop()
    response = client.get("/readyz")
    assert response.status_code == 503
    assert response.json()["checks"]["store"]["ok"] is True
    assert "ConnectError" in response.json()["checks"]["llm"]["detail"]
    assert client.get("/healthz").status_code == 200
    metrics = client.get("/metrics").text
    assert 'pageindex_documents{status="ready"} 1' in metrics
    assert 'pageindex_http_requests_total{method="POST",route="/v1/documents",status="202"} 1' in metrics
    assert 'pageindex_http_requests_total{method="GET",route="/readyz",status="503"} 1' in metrics
    assert 'pageindex_http_request_duration_seconds_bucket{le="+Inf",method="GET",route="/readyz"} 2' in metrics
    asked = len(llm.requests)
    assert asked and f"pageindex_llm_requests_total {asked}" in metrics
    assert f"pageindex_llm_request_duration_seconds_count {asked}" in metrics


@pytest.mark.parametrize("form", ["id", "name", "text", "data"])
def test_process(client: TestClient, upload: Upload, form: str) -> None:
    document = upload(PDF) if form in ("id", "name") else {"id": "", "name": ""}
    text = "# Notes\nThe inspection number of the Larkspur pumping station is 48213.\n"
    given = {
        "id": document["id"],
        "name": document["name"],
        "text": text,
        "data": "data:application/pdf;base64," + base64.b64encode(PDF).decode(),
    }[form]
    response = client.post("/api/process", json={"document": given, "query": sample_document.QUESTION})
    assert response.status_code == 200, response.text
    result = response.json()
    assert "48213" in result["answer"] and result["citations"][0]["verified"]
    assert result["document_id"].startswith("doc_")


@pytest.mark.parametrize("given", ["/etc/passwd", "report.pdf", "doc_" + "0" * 24, "data:text/plain,hello"])
def test_process_opens_no_paths(client: TestClient, given: str) -> None:
    response = client.post("/api/process", json={"document": given, "query": "What?"})
    assert response.status_code in (404, 422)
    assert client.get("/v1/documents").json()["documents"] == []


def test_indexing_goes_on_after_a_restart(settings: Settings, llm: FakeLanguageModel) -> None:
    with llm.held(), TestClient(create_app(settings)) as client:
        identifier = post(client, PDF).json()["id"]
        wait_for(client, identifier, "indexing")
    with TestClient(create_app(settings)) as client:
        assert wait_for(client, identifier)["status"] == "ready"


def test_delete_while_indexing_leaves_nothing(client: TestClient, settings: Settings, llm: FakeLanguageModel) -> None:
    with llm.held():
        identifier = post(client, PDF).json()["id"]
        wait_for(client, identifier, "indexing")
        assert client.post("/v1/query", json={"question": "What?", "document_ids": [identifier]}).status_code == 409
        assert client.delete(f"/v1/documents/{identifier}").status_code == 204
    time.sleep(0.3)
    assert list((settings.data_directory / "documents").iterdir()) == []
    assert post(client, PDF).status_code == 202
    assert wait_for(client, identifier)["status"] == "ready"


def test_deleted_document_is_in_no_file(client: TestClient, settings: Settings, upload: Upload) -> None:
    document = upload(PDF, "very-private-name.pdf")
    assert client.delete(f"/v1/documents/{document['id']}").status_code == 204
    kept = {path.name: path.read_bytes() for path in settings.data_directory.rglob("*") if path.is_file()}
    assert "documents.sqlite3" in kept
    for trace in (document["id"].encode(), b"very-private-name"):
        # That it was uploaded and deleted, and by whom, is what the audit log is for.
        allowed = {"access.sqlite3", "access.sqlite3-wal"} if trace.startswith(b"doc_") else set()
        assert {name for name, content in kept.items() if trace in content} <= allowed


def test_outage_while_indexing_delays_or_degrades(settings: Settings, llm: FakeLanguageModel) -> None:
    patient = replace(settings, llm_patience_seconds=20.0)
    llm.stop()
    with TestClient(create_app(patient)) as client:
        identifier = post(client, PDF).json()["id"]
        wait_for(client, identifier, "indexing")
        llm.start()
        document = wait_for(client, identifier)
    assert (document["status"], document["warnings"]) == ("ready", [])
    llm.stop()
    with TestClient(create_app(settings)) as client:
        other = post(client, sample_document.make_document("11111")).json()["id"]
        document = wait_for(client, other)
    assert document["status"] == "ready"
    assert "model server unavailable" in document["warnings"][0]


def test_store_sweeps_what_an_interruption_left(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.close()
    (tmp_path / "documents" / "doc_orphan").mkdir()
    (tmp_path / "incoming" / "half").write_bytes(b"x")
    Store(tmp_path).close()
    assert list((tmp_path / "documents").iterdir()) == []
    assert list((tmp_path / "incoming").iterdir()) == []


def test_settings_from_environment_and_files(tmp_path: Path) -> None:
    secret = tmp_path / "key"
    secret.write_text("s3cret\n")
    settings = Settings.from_environment(
        {
            "PAGEINDEX_LLM_API_KEY_FILE": str(secret),
            "PAGEINDEX_LISTEN_PORT": "3001",
            "PAGEINDEX_LLM_EXTRA_BODY": "{}",
            "PAGEINDEX_DATA_DIRECTORY": "/somewhere",
        }
    )
    assert (settings.llm_api_key, settings.listen_port, settings.llm_extra_body) == ("s3cret", 3001, {})
    assert settings.data_directory == Path("/somewhere")


@pytest.mark.parametrize(
    "environment",
    [
        {"PAGEINDEX_LISTEN_PORT": "many"},
        {"PAGEINDEX_LLM_URL": "vllm:8000"},
        {"PAGEINDEX_SUMMARIES": "poems"},
        {"PAGEINDEX_LLM_EXTRA_BODY": "[1]"},
        {"PAGEINDEX_LLM_API_KEY_FILE": "/does/not/exist"},
    ],
)
def test_bad_settings_name_the_variable(environment: dict[str, str]) -> None:
    with pytest.raises(SettingsError, match=next(iter(environment))[:20]):
        Settings.from_environment(environment)
