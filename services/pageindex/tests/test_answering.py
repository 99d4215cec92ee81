"""Answers over HTTP: right page, checked quote, or an honest no."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import pytest
from documents import flat_pdf
from fake_llm import FakeLanguageModel
from fastapi.testclient import TestClient
from pageindex_home.answering import NOT_FOUND, first_statement
from pageindex_home.api import create_app
from pageindex_home.settings import Settings
from waiting import Upload, wait_for

from tests.acceptance import sample_document


def ask(client: TestClient, question: str, *identifiers: str) -> dict[str, Any]:
    body: dict[str, Any] = {"question": question}
    if identifiers:
        body["document_ids"] = list(identifiers)
    response = client.post("/v1/query", json=body)
    assert response.status_code == 200, response.text
    result: dict[str, Any] = response.json()
    return result


@pytest.mark.parametrize("context", [1024, 2048, 32768])
@pytest.mark.parametrize("mode", ["good", "malformed", "foreign"])
def test_value_is_found_whatever_the_choice_of_nodes(
    client: TestClient, upload: Upload, llm: FakeLanguageModel, mode: str, context: int
) -> None:
    llm.context_tokens = context
    value = sample_document.new_value()
    document = upload(sample_document.make_document(value))
    llm.mode = mode
    result = ask(client, sample_document.QUESTION, document["id"])
    assert value in result["answer"]
    assert result["found"] is True
    citation = result["citations"][0]
    assert citation["pages"] == [sample_document.VALUE_PAGE]
    assert citation["title"] == sample_document.VALUE_SECTION
    assert citation["node_id"] == "0003"
    assert (citation["document_id"], citation["document_name"]) == (document["id"], "report.pdf")
    assert value in citation["quote"]
    assert citation["verified"] is True
    assert llm.overflows == 0
    steps = [step["step"] for step in result["trace"]["steps"]]
    assert steps == ["rank", "choose", "read", "answer", "verify"]
    assert result["trace"]["prompt_tokens"] > 0


def test_requests_name_the_document_they_are_about(client: TestClient, upload: Upload, llm: FakeLanguageModel) -> None:
    """For a gateway that sends them where their beginning is remembered."""
    first, second = (upload(sample_document.make_document(value)) for value in ("48213", "51302"))
    assert set(llm.affinity) == {first["id"], second["id"]}, "each index is made by one server"
    llm.affinity.clear()
    ask(client, "What is it about?", first["id"])
    assert set(llm.affinity) == {first["id"]}
    llm.affinity.clear()
    ask(client, "What are they about?", second["id"], first["id"])
    assert set(llm.affinity) == {"+".join(sorted([first["id"], second["id"]]))}


def test_a_fallback_answers_questions_and_writes_no_index(settings: Settings, llm: FakeLanguageModel) -> None:
    """Its answer helps the one who asked; in an index a smaller model's words would stay."""
    with TestClient(create_app(replace(settings, llm_patience_seconds=60.0))) as client:
        part = {"file": ("report.pdf", sample_document.make_document("48213"))}
        first = wait_for(client, client.post("/v1/documents", files=part).json()["id"])
        assert set(llm.fallback) == {"no"}

        llm.only_fallback = True
        llm.fallback.clear()
        part = {"file": ("other.pdf", sample_document.make_document("51302"))}
        second = client.post("/v1/documents", files=part).json()["id"]
        wait_for(client, second, "indexing")
        deadline = time.monotonic() + 10
        while len(llm.fallback) < 2 and time.monotonic() < deadline:
            time.sleep(0.02)
        assert set(llm.fallback) == {"no"} and len(llm.fallback) > 1, "it is tried again"
        assert "48213" in ask(client, sample_document.QUESTION, first["id"])["answer"]
        assert None in llm.fallback
        assert client.get(f"/v1/documents/{second}").json()["status"] == "indexing"

        llm.only_fallback = False
        indexed = wait_for(client, second, seconds=30)
        assert (indexed["status"], indexed["warnings"]) == ("ready", [])


@pytest.mark.parametrize("mode", ["invents", "unwilling"])
def test_unsupported_answers_are_not_passed_on(
    client: TestClient, upload: Upload, llm: FakeLanguageModel, mode: str
) -> None:
    document = upload(sample_document.make_document("48213"))
    llm.mode = mode
    result = ask(client, "What did the engineer say about safety valves in winter?", document["id"])
    assert (result["answer"], result["found"], result["citations"]) == (NOT_FOUND, False, [])


def test_a_small_model_cannot_hide_what_is_stated(client: TestClient, upload: Upload, llm: FakeLanguageModel) -> None:
    document = upload(sample_document.make_document("48213"))
    llm.mode = "invents"
    result = ask(client, sample_document.QUESTION, document["id"])
    assert result["answer"] == "The inspection number of the Larkspur pumping station is 48213."
    assert result["citations"][0]["verified"] is True
    # A large model is told that it may say no, and is believed.
    llm.context_tokens, llm.mode = 32768, "unwilling"
    with TestClient(client.app) as fresh:  # the context size is remembered for a while
        assert ask(fresh, sample_document.QUESTION, document["id"])["found"] is False


def test_question_about_something_else(client: TestClient, upload: Upload) -> None:
    document = upload(sample_document.make_document("48213"))
    assert ask(client, sample_document.UNANSWERABLE_QUESTION, document["id"])["answer"] == NOT_FOUND


def test_markdown_is_cited_by_line(client: TestClient, upload: Upload) -> None:
    filler = "\n".join("Nothing of interest happens in this line." for _ in range(100))
    text = f"# Intro\n{filler}\n# Facts\n\nThe access code of the mill is 7731-B.\n\n# End\n{filler}\n"
    document = upload(text.encode(), "notes.md")
    result = ask(client, "What is the access code of the mill?", document["id"])
    citation = result["citations"][0]
    assert (citation["lines"], citation["pages"], citation["title"]) == ([104, 104], [], "Facts")
    assert citation["verified"] and "7731-B" in result["answer"]


def test_the_right_one_of_several_documents(client: TestClient, upload: Upload) -> None:
    upload(b"# Garden\nThe garden gate code is 1111 since spring.\n", "garden.md")
    right = upload(b"# Cellar\nThe cellar door code is 2222 since autumn.\n", "cellar.md")
    result = ask(client, "What is the cellar door code?")
    assert "2222" in result["answer"]
    assert [citation["document_id"] for citation in result["citations"]] == [right["id"]]


def test_sections_on_one_page_are_told_apart(client: TestClient, upload: Upload) -> None:
    text = "# One\nalpha\n## Inner\nThe seal size is 17 here.\n# Two\nThe seal colour is blue here.\n"
    document = upload(text.encode(), "notes.md")
    assert ask(client, "What is the seal size?", document["id"])["citations"][0]["title"] == "Inner"
    assert ask(client, "What is the seal colour?", document["id"])["citations"][0]["title"] == "Two"


def test_needle_on_one_of_many_pages_fits_a_tiny_context(
    client: TestClient, upload: Upload, llm: FakeLanguageModel
) -> None:
    llm.context_tokens = 700
    pages = [[f"Page about matter {n} and its details.", *["Filler words in a line."] * 40] for n in range(120)]
    pages[77].append("The serial number of the turbine is 90210.")
    document = upload(flat_pdf(pages))
    result = ask(client, "What is the serial number of the turbine?", document["id"])
    assert result["citations"][0]["pages"] == [78]
    assert llm.overflows == 0


def test_model_away(client: TestClient, upload: Upload, llm: FakeLanguageModel) -> None:
    document = upload(sample_document.make_document("48213"))
    llm.mode = "outage"
    response = client.post("/v1/query", json={"question": "Which number?", "document_ids": [document["id"]]})
    assert response.status_code == 503
    assert response.headers["retry-after"] == "15"
    assert response.json()["type"].endswith("llm-unavailable")


@pytest.mark.parametrize(
    ("reply", "statement"),
    [
        ("The code is 5. It is 5. It is", "The code is 5."),
        ("Yes. It rained.", "Yes. It rained."),
        ("7731. That is all.", "7731."),
        ("", ""),
    ],
)
def test_first_statement(reply: str, statement: str) -> None:
    assert first_statement(reply) == statement


def test_long_questions_do_not_overflow(client: TestClient, upload: Upload, llm: FakeLanguageModel) -> None:
    document = upload(sample_document.make_document("48213"))
    question = sample_document.QUESTION + " Please tell me about it." * 120
    response = client.post("/v1/query", json={"question": question, "document_ids": [document["id"]]})
    assert response.status_code in (200, 422, 502), response.text
