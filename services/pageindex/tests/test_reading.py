"""Reading a document through the interface: the file, its pages, its sections; and following its indexing."""

from __future__ import annotations

import itertools
import json
import struct
import zlib
from typing import Any

import pytest
from fake_llm import FakeLanguageModel
from fastapi.testclient import TestClient
from pageindex_home import tree
from waiting import Upload

from tests.acceptance import sample_document

PDF = sample_document.make_document("48213")
MARKDOWN = b"# Garden\nAll about it.\n## Well\nThe well is old.\n### Depth\nIt is 48 m deep.\n# House\nSmall."


def sent_events(text: str) -> list[tuple[str, Any]]:
    """Name and data of every server-sent event."""
    found = []
    for block in text.strip().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if fields:
            data = fields["data"]
            found.append((fields.get("event", ""), data if data == "[DONE]" else json.loads(data)))
    return found


@pytest.mark.parametrize(
    ("data", "name", "media_type"), [(PDF, "report.pdf", "application/pdf"), (MARKDOWN, "garden.md", "text/markdown")]
)
def test_the_original_comes_back(client: TestClient, upload: Upload, data: bytes, name: str, media_type: str) -> None:
    response = client.get(f"/v1/documents/{upload(data, name)['id']}/original")
    assert response.content == data
    assert response.headers["content-type"].split(";")[0] == media_type
    assert name in response.headers["content-disposition"]
    assert response.headers["x-content-type-options"] == "nosniff"


def test_a_name_cannot_break_out_of_its_header(client: TestClient, upload: Upload) -> None:
    document = upload(MARKDOWN, 'a"; x="\u00fc;b.md')
    shown = client.get(f"/v1/documents/{document['id']}/original").headers["content-disposition"]
    assert shown.startswith("inline; filename*=UTF-8''") and '"' not in shown and shown.isascii()


def test_pages_are_those_that_were_asked_for(client: TestClient, upload: Upload) -> None:
    document = upload(PDF)
    base = f"/v1/documents/{document['id']}/pages"
    one = client.get(base, params={"first": 4}).json()
    assert (one["unit"], one["first"], one["last"], one["of"]) == ("page", 4, 4, document["page_count"])
    assert len(one["texts"]) == 1 and "48213" in one["texts"][0]
    every = client.get(base, params={"first": 1, "last": document["page_count"]}).json()["texts"]
    assert len(every) == document["page_count"] and every[3] == one["texts"][0]


def test_lines_of_a_text(client: TestClient, upload: Upload) -> None:
    base = f"/v1/documents/{upload(MARKDOWN, 'garden.md')['id']}/pages"
    assert client.get(base, params={"first": 5, "last": 6}).json()["texts"] == ["### Depth", "It is 48 m deep."]


@pytest.mark.parametrize("wanted", [{"first": 0}, {"first": 9}, {"first": 3, "last": 2}, {"first": "x"}])
def test_pages_that_are_not_there(client: TestClient, upload: Upload, wanted: dict[str, Any]) -> None:
    response = client.get(f"/v1/documents/{upload(MARKDOWN, 'garden.md')['id']}/pages", params=wanted)
    assert response.status_code == 422 and response.json()["detail"]


def test_a_section_knows_where_it_is(client: TestClient, upload: Upload) -> None:
    identifier = upload(MARKDOWN, "garden.md")["id"]
    structure = client.get(f"/v1/documents/{identifier}/tree").json()["structure"]
    well = next(node for node in tree.walk(structure) if node["title"] == "Depth")
    found = client.get(f"/v1/documents/{identifier}/nodes/{well['node_id']}").json()
    assert (found["path"], found["start_index"], found["end_index"]) == (["Garden", "Well"], 5, 6)
    assert found["text"] == "### Depth\nIt is 48 m deep." and found["children"] == []
    missing = client.get(f"/v1/documents/{identifier}/nodes/9999")
    assert missing.status_code == 404 and missing.json()["type"].endswith("no-such-node")


def test_a_tree_can_be_cut_and_stays_whole(client: TestClient, upload: Upload) -> None:
    base = f"/v1/documents/{upload(MARKDOWN, 'garden.md')['id']}/tree"
    whole = client.get(base).json()["structure"]
    assert [node["nodes"] for node in client.get(base, params={"depth": 1}).json()["structure"]] == [[], []]
    two = client.get(base, params={"depth": 2}).json()["structure"]
    assert [node["title"] for node in tree.walk(two)] == ["Garden", "Well", "House"]
    assert client.get(base, params={"depth": 3}).json()["structure"] == whole == client.get(base).json()["structure"]
    assert client.get(base, params={"depth": 0}).status_code == 422


@pytest.mark.parametrize("path", ["original", "pages", "tree", "nodes/0000", "events"])
def test_nothing_of_a_document_that_is_not_there(client: TestClient, path: str) -> None:
    response = client.get(f"/v1/documents/doc_{'0' * 24}/{path}")
    assert response.status_code == 404 and response.json()["type"].endswith("no-such-document")


def test_indexing_can_be_followed(client: TestClient, llm: FakeLanguageModel) -> None:
    llm.delay = 0.7  # more than passes between two looks
    identifier = client.post("/v1/documents", files={"file": ("report.pdf", PDF)}).json()["id"]
    seen = sent_events(client.get(f"/v1/documents/{identifier}/events").text)
    assert {name for name, _ in seen} == {"document"}
    assert seen[-1][1]["status"] == "ready"
    phases = {data["progress"]["phase"] for _, data in seen if data["progress"]}
    assert "summaries" in phases
    assert all(before[1] != after[1] for before, after in itertools.pairwise(seen))


def test_a_streamed_question_tells_its_steps_and_the_same_answer(client: TestClient, upload: Upload) -> None:
    identifier = upload(PDF)["id"]
    body = {"question": sample_document.QUESTION, "document_ids": [identifier]}
    plain = client.post("/v1/query", json=body).json()
    response = client.post("/v1/query", json={**body, "stream": True})
    assert response.headers["content-type"].startswith("text/event-stream")
    seen = sent_events(response.text)
    assert [data["step"] for name, data in seen if name == "step"][:3] == ["rank", "choose", "read"]
    assert seen[-1][0] == "answer"
    assert {key: seen[-1][1][key] for key in ("answer", "found", "citations")} == {
        key: plain[key] for key in ("answer", "found", "citations")
    }


def test_a_draft_grows_and_is_not_the_answer(client: TestClient, upload: Upload, llm: FakeLanguageModel) -> None:
    identifier = upload(PDF)["id"]
    llm.pause = 0.15
    body = {"question": sample_document.QUESTION, "document_ids": [identifier], "stream": True}
    seen = sent_events(client.post("/v1/query", json=body).text)
    drafts = [data["text"] for name, data in seen if name == "draft"]
    answer = seen[-1][1]
    assert len(drafts) > 3 and all(after.startswith(before) for before, after in itertools.pairwise(drafts))
    assert drafts[-1] in answer["answer"] and answer["citations"][0]["verified"]
    assert answer["trace"]["completion_tokens"] > 0

    llm.mode = "invents"
    seen = sent_events(client.post("/v1/query", json=body).text)
    assert any("99999999" in data["text"] for name, data in seen if name == "draft")
    assert "99999999" not in seen[-1][1]["answer"]


def test_a_draft_that_breaks_off_is_no_answer(client: TestClient, upload: Upload, llm: FakeLanguageModel) -> None:
    identifier = upload(PDF)["id"]
    llm.mode = "truncated"
    body = {"question": sample_document.QUESTION, "document_ids": [identifier], "stream": True}
    seen = sent_events(client.post("/v1/query", json=body).text)
    assert seen[-1][0] == "problem" and seen[-1][1]["status"] == 503


def test_a_streamed_question_to_an_absent_model_ends_with_the_problem(
    client: TestClient, upload: Upload, llm: FakeLanguageModel
) -> None:
    upload(PDF)
    llm.mode = "outage"
    seen = sent_events(client.post("/v1/query", json={"question": "What?", "stream": True}).text)
    assert seen[-1][0] == "problem" and seen[-1][1]["status"] == 503


def test_what_is_wrong_with_a_streamed_question_is_said_by_its_status(client: TestClient) -> None:
    assert client.post("/v1/query", json={"question": "What?", "stream": True}).status_code == 409


def pixels(data: bytes) -> tuple[int, int, list[bytes]]:
    """Width, height and rows of one of our PNGs."""
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    chunks: dict[bytes, bytes] = {}
    at = 8
    while at < len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        kind, content = data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        assert zlib.crc32(kind + content) == struct.unpack(">I", data[at + 8 + length : at + 12 + length])[0]
        chunks[kind] = content
        at += 12 + length
    width, height, depth, kind_of_colour = struct.unpack(">IIBB", chunks[b"IHDR"][:10])
    assert (depth, kind_of_colour) == (8, 2)
    raw = zlib.decompress(chunks[b"IDAT"])
    rows = [raw[row * (width * 3 + 1) + 1 : (row + 1) * (width * 3 + 1)] for row in range(height)]
    return width, height, rows


def test_a_page_is_drawn_and_the_quote_is_marked_on_it(client: TestClient, upload: Upload) -> None:
    base = f"/v1/documents/{upload(PDF)['id']}/pages/4/image"
    plain = client.get(base)
    assert (plain.status_code, plain.headers["content-type"]) == (200, "image/png")
    width, height, rows = pixels(plain.content)
    assert (width, len(rows)) == (1000, height) and height > width
    assert any(min(row) < 100 for row in rows), "there is text on it"
    quote = "The inspection number of the\n Larkspur pumping station is 48213."
    marked = pixels(client.get(base, params={"quote": quote}).content)[2]
    differing = [number for number, (one, other) in enumerate(zip(rows, marked, strict=True)) if one != other]
    assert 5 < len(differing) < height / 4, "some lines of it"
    assert differing == list(range(differing[0], differing[-1] + 1))
    assert marked == pixels(client.get(base, params={"quote": quote}).content)[2]
    assert pixels(client.get(base, params={"quote": "words that are not there"}).content)[2] == rows


@pytest.mark.parametrize("number", [0, 99])
def test_a_page_that_is_not_there_is_not_drawn(client: TestClient, upload: Upload, number: int) -> None:
    assert client.get(f"/v1/documents/{upload(PDF)['id']}/pages/{number}/image").status_code == 422


def test_a_text_has_no_pictures(client: TestClient, upload: Upload) -> None:
    response = client.get(f"/v1/documents/{upload(MARKDOWN, 'garden.md')['id']}/pages/1/image")
    assert response.status_code == 422 and "no pages" in response.json()["detail"]


def test_a_tree_from_elsewhere_takes_the_place_of_ours(client: TestClient, upload: Upload) -> None:
    base = f"/v1/documents/{upload(PDF)['id']}"
    theirs = {
        "doc_name": "report.pdf",
        "structure": [
            {"title": "All of it", "start_index": 1, "end_index": 6, "node_id": "0000", "summary": "Everything.",
             "prefix_summary": "unknown key", "nodes": [{"title": "Inspection", "start_index": 4, "end_index": 4}]},
        ],
    }  # fmt: skip
    changed = client.put(f"{base}/tree", json=theirs)
    assert (changed.status_code, changed.json()["engine"], changed.json()["node_count"]) == (200, "imported", 2)
    kept = client.get(f"{base}/tree").json()["structure"]
    assert [(node["node_id"], node["title"]) for node in tree.walk(kept)] == [
        ("0000", "All of it"),
        ("0001", "Inspection"),
    ]
    answer = client.post("/v1/query", json={"question": sample_document.QUESTION}).json()
    assert answer["citations"][0]["title"] == "Inspection"


def test_ours_can_be_taken_out_and_put_back(client: TestClient, upload: Upload) -> None:
    base = f"/v1/documents/{upload(MARKDOWN, 'garden.md')['id']}"
    ours = client.get(f"{base}/tree").json()
    assert client.put(f"{base}/tree", json=ours).status_code == 200
    assert client.get(f"{base}/tree").json() == ours


def test_a_tree_that_does_not_fit_changes_nothing(client: TestClient, upload: Upload) -> None:
    base = f"/v1/documents/{upload(MARKDOWN, 'garden.md')['id']}"
    before = client.get(f"{base}/tree").json()
    refused = client.put(f"{base}/tree", json={"structure": [{"title": "X", "start_index": 1, "end_index": 99}]})
    assert refused.status_code == 422 and "expected whole numbers, 1 ≤ start_index" in refused.json()["detail"]
    assert client.get(f"{base}/tree").json() == before
