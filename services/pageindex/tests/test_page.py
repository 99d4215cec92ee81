"""The web page, in a real browser: upload, follow, outline, ask, open what was quoted, delete."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from browser import chromium, program
from fake_llm import FakeLanguageModel
from pageindex_home.keys import KeyFile
from playwright.sync_api import Browser, ConsoleMessage, Page, expect
from running import await_until, finished, service, upload

from tests.acceptance import sample_document
from tests.skip_list import skip

# A condition is awaited; on a busy machine that takes a while.
expect.set_options(timeout=20_000)
PDF = sample_document.make_document("48213")
HOSTILE = "<img src=x onerror=document.title='owned'>"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    path = program()
    if path is None:
        skip("no-browser-on-this-machine")
    with chromium(path) as started:
        yield started


def is_complaint(message: ConsoleMessage) -> bool:
    """Not one about an answer that is an error: the page says those itself."""
    return message.type == "error" and not message.text.startswith("Failed to load resource")


@pytest.fixture
def page(browser: Browser, llm: FakeLanguageModel, tmp_path: Path) -> Iterator[Page]:
    """The page of a service without documents; whatever it says to the console or asks elsewhere is a failure."""
    complaints: list[str] = []
    with service(tmp_path / "data", llm) as (_, client):
        opened = browser.new_page(base_url=str(client.base_url))
        opened.on("pageerror", lambda error: complaints.append(str(error)))
        opened.on("console", lambda message: complaints.append(message.text) if is_complaint(message) else None)
        opened.on(
            "request",
            lambda request: (
                None if request.url.startswith((str(client.base_url), "data:")) else complaints.append(request.url)
            ),
        )
        opened.goto("/")
        yield opened
        opened.close()
    assert complaints == []


def add(page: Page, name: str, data: bytes) -> None:
    page.get_by_label("Add PDF, Markdown or text files").set_input_files(
        {"name": name, "mimeType": "application/octet-stream", "buffer": data}
    )


def document(page: Page, name: str) -> Any:
    return page.get_by_role("list", name="Documents").get_by_role("listitem").filter(has_text=name)


def serious(page: Page) -> list[str]:
    """What axe-core finds that keeps somebody from using the page."""
    found = Axe().run(page).response["violations"]
    return [f"{one['id']}: {one['help']}" for one in found if one["impact"] in ("serious", "critical")]


def test_upload_ask_open_the_quote_and_delete(page: Page, llm: FakeLanguageModel) -> None:
    expect(page.locator("#readiness")).to_have_text("Ready")
    expect(page.get_by_text("None yet. Add one above.")).to_be_visible()
    assert serious(page) == []

    add(page, "report.pdf", PDF)
    line = document(page, "report.pdf")
    expect(line.get_by_text("sections")).to_be_visible()
    expect(page.locator("#scope")).to_have_text("1 of 1 documents are read.")

    llm.pause = 0.1
    page.get_by_label("Question").fill(sample_document.QUESTION)
    page.get_by_role("button", name="Ask").click()
    expect(page.locator("#steps")).to_have_text("A draft, not checked yet:")
    expect(page.locator("#answer-text")).to_contain_text("48213")
    expect(page.locator("#draft")).to_be_hidden()
    expect(page.locator("#steps")).to_be_empty()
    assert serious(page) == []

    page.get_by_role("list", name="Sources").get_by_role("button").first.click()
    reader = page.get_by_role("dialog")
    expect(reader.get_by_role("heading")).to_have_text("report.pdf, page 4")
    expect(reader.locator("mark")).to_contain_text("48213")
    link = reader.get_by_role("link", name="Open the original").get_attribute("href")
    assert link and link.endswith("/original#page=4")
    picture = reader.get_by_role("img")
    expect(picture).to_be_visible()
    assert picture.evaluate("image => image.naturalWidth") == 1000
    assert serious(page) == []
    page.keyboard.press("Escape")
    expect(reader).to_be_hidden()

    page.once("dialog", lambda asked: asked.accept())
    page.get_by_role("button", name="Delete report.pdf").click()
    expect(page.get_by_text("None yet. Add one above.")).to_be_visible()


def test_the_outline_opens_sections(page: Page) -> None:
    add(page, "garden.md", b"# Garden\nAll about it.\n## Well\nThe well is old.\n# House\nSmall.")
    page.get_by_role("button", name="Outline of garden.md").click()
    page.get_by_text("Garden", exact=True).click()
    page.get_by_text("Well", exact=True).click()
    page.get_by_role("button", name="Read line 3").click()
    expect(page.get_by_role("dialog").locator("#reader-text")).to_contain_text("The well is old.")
    page.get_by_role("button", name="Close").click()
    assert serious(page) == []


def test_progress_is_shown_while_it_is_indexed(page: Page, llm: FakeLanguageModel) -> None:
    with llm.held():
        add(page, "report.pdf", PDF)
        expect(page.get_by_role("progressbar", name="Indexing report.pdf")).to_be_visible()
    expect(document(page, "report.pdf").get_by_text("sections")).to_be_visible()


def test_what_goes_wrong_is_said_in_words(page: Page, llm: FakeLanguageModel) -> None:
    add(page, "broken.pdf", b"no pdf")
    expect(page.get_by_role("alert")).to_contain_text("does not begin with %PDF-")
    add(page, "note.md", b"# Note\nWords.")
    expect(document(page, "note.md").get_by_text("sections")).to_be_visible()
    page.get_by_label("Question").fill("Which planet is the largest of all?")
    page.get_by_role("button", name="Ask").click()
    expect(page.locator("#answer-text")).to_have_text("Not found in the documents.")


def test_only_documents_that_are_ticked_are_read(page: Page) -> None:
    add(page, "report.pdf", PDF)
    add(page, "note.md", b"# Note\nThe inspection number of nothing is 11111.")
    expect(page.locator("#scope")).to_have_text("2 of 2 documents are read.")
    page.get_by_label("report.pdf", exact=True).uncheck()
    expect(page.locator("#scope")).to_have_text("1 of 2 documents are read.")
    with page.expect_request(re.compile("/v1/query$")) as asked:
        page.get_by_label("Question").fill("What is the inspection number?")
        page.get_by_role("button", name="Ask").click()
    assert len(asked.value.post_data_json["document_ids"]) == 1


def test_a_document_cannot_run_anything_in_the_page(page: Page) -> None:
    add(page, f"{HOSTILE.replace('/', '')}.md", f"# {HOSTILE}\n{HOSTILE} and more words to read.".encode())
    page.get_by_role("button", name=re.compile("^Outline of")).click()
    page.locator(".outline summary").first.click()
    page.get_by_role("button", name="Read line 1").click()
    expect(page.get_by_role("dialog").locator("#reader-text")).to_contain_text(HOSTILE)
    assert page.title() == "PageIndex Home"
    assert page.locator("img:not(#reader-image)").count() == 0


def test_it_can_be_used_with_the_keyboard_alone(page: Page) -> None:
    add(page, "report.pdf", PDF)
    expect(page.locator("#scope")).to_have_text("1 of 1 documents are read.")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the question")).to_be_focused()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    page.get_by_label("Question").focus()
    page.keyboard.type(sample_document.QUESTION)
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="Ask")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#answer-text")).to_contain_text("48213")
    page.keyboard.press("Tab")
    expect(page.get_by_role("list", name="Sources").get_by_role("button").first).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_be_visible()


def test_a_person_signs_in_with_a_key_and_out(browser: Browser, llm: FakeLanguageModel, tmp_path: Path) -> None:
    keys = KeyFile(tmp_path / "data" / "keys.json")
    secret = keys.create("Ada", "write")
    with service(tmp_path / "data", llm, require_key="true") as (_, client):
        upload(client, "report.pdf", PDF, headers={"x-api-key": secret})
        page = browser.new_page(base_url=str(client.base_url))
        page.goto("/")
        dialog = page.get_by_role("dialog", name="Sign in")
        expect(dialog).to_be_visible()
        assert serious(page) == []
        page.keyboard.press("Escape")
        expect(dialog).to_be_visible()
        dialog.get_by_label("Key").fill("pih_wrong")
        dialog.get_by_role("button", name="Sign in").click()
        expect(dialog.get_by_role("alert")).to_contain_text("not valid")
        dialog.get_by_label("Key").fill(secret)
        page.keyboard.press("Enter")
        expect(dialog).to_be_hidden()
        expect(document(page, "report.pdf").get_by_text("sections")).to_be_visible()
        expect(page.locator("#who")).to_contain_text("Ada")
        page.reload()
        add(page, "notes.md", b"# Notes\nThe garden gate is green.")
        expect(document(page, "notes.md").get_by_text("sections")).to_be_visible()
        assert page.evaluate("document.cookie") == ""
        keys.revoke("Ada")
        page.reload()
        expect(dialog).to_be_visible()
        page.close()


def test_several_files_fit_a_key_that_may_have_one_request_at_a_time(
    browser: Browser, llm: FakeLanguageModel, tmp_path: Path
) -> None:
    """They are sent one after the other, and wait while a question runs."""
    file = tmp_path / "data" / "keys.json"
    secret = KeyFile(file).create("Ada", "write")
    file.write_text(json.dumps([one | {"concurrent_requests": 1} for one in json.loads(file.read_text())]))
    with service(tmp_path / "data", llm, require_key="true") as (_, client):
        first = upload(client, "report.pdf", PDF, headers={"x-api-key": secret})
        client.headers["x-api-key"] = secret
        finished(client, first)
        page = browser.new_page(base_url=str(client.base_url))
        page.goto("/")
        page.get_by_label("Key").fill(secret)
        page.keyboard.press("Enter")
        expect(page.locator("#scope")).to_have_text("1 of 1 documents are read.")
        notes = [
            {"name": f"note-{n}.md", "mimeType": "text/markdown", "buffer": f"# Note {n}\nWords of {n}.".encode()}
            for n in range(3)
        ]
        with llm.held():
            page.get_by_label("Question").fill(sample_document.QUESTION)
            page.get_by_role("button", name="Ask").click()
            await_until(lambda: llm.running, "the question to run")
            page.get_by_label("Add PDF, Markdown or text files").set_input_files(notes)
            expect(page.locator("#uploads").get_by_role("listitem")).to_have_count(3)
        expect(page.locator("#answer-text")).to_contain_text("48213")
        expect(page.locator("#scope")).to_have_text("4 of 4 documents are read.")
        expect(page.locator("#uploads").get_by_role("listitem")).to_have_count(0)
        expect(page.locator("#notice")).to_be_empty()
        page.close()


def test_documents_that_leave_the_host_are_spoken_of(browser: Browser, llm: FakeLanguageModel, tmp_path: Path) -> None:
    elsewhere = {"llm_url": "https://llm.example.com/v1", "llm_external": "true"}
    with service(tmp_path / "data", llm, **elsewhere) as (_, client):
        page = browser.new_page(base_url=str(client.base_url))
        page.goto("/")
        expect(page.get_by_role("note")).to_contain_text("they are read by llm.example.com")
        assert serious(page) == []
        page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_both_colour_schemes_can_be_read(browser: Browser, llm: FakeLanguageModel, tmp_path: Path, scheme: Any) -> None:
    with service(tmp_path / "data", llm) as (_, client):
        upload(client, "report.pdf", PDF)
        page = browser.new_page(base_url=str(client.base_url), color_scheme=scheme)
        page.goto("/")
        expect(document(page, "report.pdf").get_by_text("sections")).to_be_visible()
        page.get_by_role("button", name="Outline of report.pdf").click()
        expect(page.locator(".outline summary").first).to_be_visible()
        assert serious(page) == []
        page.close()
