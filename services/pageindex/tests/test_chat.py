"""The documents as a model: what an OpenAI client sends, and what it gets."""

from __future__ import annotations

from typing import Any

import pytest
from fake_llm import FakeLanguageModel
from fastapi.testclient import TestClient
from test_reading import sent_events
from waiting import Upload

from tests.acceptance import sample_document

PDF = sample_document.make_document("48213")
QUESTION = sample_document.QUESTION


def ask(client: TestClient, content: Any = QUESTION, **more: Any) -> Any:
    messages = [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Something else?"},
        {"role": "assistant", "content": "No."},
        {"role": "user", "content": content},
    ]
    return client.post("/v1/chat/completions", json={"model": "pageindex", "messages": messages, **more})


def test_models_are_all_documents_and_each(client: TestClient, upload: Upload) -> None:
    document = upload(PDF)
    listed = client.get("/v1/models").json()["data"]
    assert [(entry["id"], entry["name"]) for entry in listed] == [
        ("pageindex", "All documents"),
        (f"pageindex/{document['id']}", "report.pdf"),
    ]


@pytest.mark.parametrize("content", [QUESTION, [{"type": "text", "text": QUESTION}]], ids=["text", "parts"])
def test_the_last_question_is_answered_with_its_sources(client: TestClient, upload: Upload, content: Any) -> None:
    document = upload(PDF)
    for model in ("pageindex", f"pageindex/{document['id']}"):
        reply = ask(client, content, model=model, temperature=0.7, max_tokens=50).json()
        [choice] = reply["choices"]
        assert (reply["object"], reply["model"], choice["finish_reason"]) == ("chat.completion", model, "stop")
        text = choice["message"]["content"]
        assert "48213" in text.split("Sources:")[0] and "- report.pdf, page 4: “" in text
        assert choice["message"]["citations"][0]["verified"]
        assert reply["usage"]["total_tokens"] == sum(
            reply["usage"][kind] for kind in ("prompt_tokens", "completion_tokens")
        )


def test_a_stream_is_the_same_text_in_pieces(client: TestClient, upload: Upload) -> None:
    upload(PDF)
    whole = ask(client).json()["choices"][0]["message"]["content"]
    response = ask(client, stream=True)
    assert response.headers["content-type"].startswith("text/event-stream")
    seen = sent_events(response.text)
    assert seen[-1] == ("", "[DONE]")
    chunks = [data for _, data in seen[:-1]]
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert len({chunk["id"] for chunk in chunks}) == 1
    assert "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks) == whole
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop" and chunks[-1]["citations"]
    assert len(chunks) > 5


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"model": "gpt-4"}, 404, "no-such-model"),
        ({"model": "pageindex/doc_" + "0" * 24}, 404, "no-such-document"),
        ({"messages": []}, 422, "invalid-request"),
        ({"messages": [{"role": "system", "content": "x"}]}, 422, "empty-question"),
        ({}, 409, "no-documents"),
    ],
)
def test_errors_are_those_of_the_openai_api(client: TestClient, body: dict[str, Any], status: int, code: str) -> None:
    response = ask(client, **body)
    assert (response.status_code, response.json()["error"]["code"]) == (status, code)
    assert response.json()["error"]["message"]


def test_an_absent_model_is_a_server_error(client: TestClient, upload: Upload, llm: FakeLanguageModel) -> None:
    upload(PDF)
    llm.mode = "outage"
    response = ask(client)
    assert (response.status_code, response.json()["error"]["type"]) == (503, "server_error")
    assert response.headers["retry-after"]
    assert "error" in sent_events(ask(client, stream=True).text)[-1][1]
