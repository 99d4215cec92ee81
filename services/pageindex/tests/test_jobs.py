"""The indexing of a document as a job: followed, cancelled, taken up again."""

from __future__ import annotations

from documents import flat_pdf
from fake_llm import FakeLanguageModel
from fastapi.testclient import TestClient
from waiting import Upload, wait_for

PDF = flat_pdf([[f"Chapter about topic {n}", *[f"Words of page {n} say a thing."] * 20] for n in range(1, 9)])


def test_a_document_has_a_job(client: TestClient, upload: Upload) -> None:
    document = upload(PDF)
    job = client.get(f"/v1/jobs/{document['job_id']}").json()
    assert (job["document_id"], job["state"], job["error"]) == (document["id"], "done", None)
    assert client.get(job["events"]).headers["content-type"].startswith("text/event-stream")
    assert [one["id"] for one in client.get("/v1/jobs").json()] == [job["id"]]


def test_one_that_runs_tells_how_far_it_is_and_can_be_cancelled(client: TestClient, llm: FakeLanguageModel) -> None:
    with llm.held():
        document = client.post("/v1/documents", files={"file": ("report.pdf", PDF)}).json()
        wait_for(client, document["id"], "indexing")
        job = client.get(f"/v1/jobs/{document['job_id']}").json()
        assert job["state"] == "running" and set(job["progress"]) == {"phase", "done", "total"}
        cancelled = client.post(f"/v1/jobs/{job['id']}/cancel").json()
    assert cancelled["state"] == "cancelled" and "Upload the file again" in cancelled["error"]["detail"]
    asked = len(llm.requests)
    assert client.get(f"/v1/documents/{document['id']}").json()["status"] == "failed"
    again = client.post(f"/v1/jobs/{job['id']}/cancel")
    assert again.status_code == 409 and "cancelled already" in again.json()["detail"]

    assert client.post("/v1/documents", files={"file": ("report.pdf", PDF)}).status_code == 202
    assert wait_for(client, document["id"])["status"] == "ready"
    assert asked < len(llm.requests)
    assert client.post(f"/v1/jobs/{job['id']}/cancel").status_code == 409


def test_one_that_waits_can_be_cancelled_too(client: TestClient, llm: FakeLanguageModel) -> None:
    with llm.held():
        first = client.post("/v1/documents", files={"file": ("first.pdf", PDF)}).json()
        wait_for(client, first["id"], "indexing")
        second = client.post("/v1/documents", files={"file": ("second.md", b"# A\nText of A.")}).json()
        assert client.get(f"/v1/jobs/{second['job_id']}").json()["state"] == "queued"
        assert client.post(f"/v1/jobs/{second['job_id']}/cancel").json()["state"] == "cancelled"
    assert wait_for(client, first["id"])["status"] == "ready"
    assert client.get(f"/v1/jobs/{second['job_id']}").json()["state"] == "cancelled"


def test_what_is_no_job_is_said(client: TestClient, upload: Upload) -> None:
    document = upload(PDF)
    for identifier in ("job_0", document["id"]):
        assert client.get(f"/v1/jobs/{identifier}").json()["type"].endswith(":no-such-job")
        assert client.post(f"/v1/jobs/{identifier}/cancel").status_code == 404
