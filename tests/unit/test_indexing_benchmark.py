"""The benchmark of indexing: what it counts as found, as worse, and as asked of the model."""

from __future__ import annotations

import argparse
import json
import urllib.request
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.indexing import OURS, UPSTREAM, Run, describe, found, measure, missed
from benchmarks.indexing_documents import Heading, generated, given
from benchmarks.indexing_model import CountingModel

GOOD = Run("manual", OURS, 2.0, 10, 1, 1000, 60.0, 1.0)


def test_a_heading_is_found_by_its_title_on_its_page() -> None:
    structure = [
        {"title": "1. Wells", "start_index": 1, "nodes": [{"title": "1.1 Depth", "start_index": 2}]},
        {"title": "All of page three", "start_index": 3, "key_items": ["Pipes", "Meters"]},
    ]
    headings = [
        Heading("1 WELLS", 1),
        Heading("Depth", 2),
        Heading("Depth", 3),
        Heading("Meters", 3),
        Heading("Costs", 4),
    ]
    assert found(structure, headings) == 0.6
    assert found([], headings) == 0


def test_what_is_worse_is_said_and_a_refusal_is_no_merit() -> None:
    assert missed([GOOD, replace(GOOD, engine=UPSTREAM)]) == []
    better = replace(GOOD, engine=UPSTREAM, seconds=1.5, llm_calls=4)
    assert missed([GOOD, better]) == ["manual: seconds 2, upstream 1.5", "manual: LLM calls 10, upstream 4"]
    assert missed([GOOD, replace(better, refused="no structure")]) == []
    assert missed([replace(GOOD, refused="broken"), better])[0] == "manual: refused: broken"
    assert "no structure" in describe([GOOD, replace(better, refused="no structure")])


def test_calls_and_tokens_are_counted_in_front_of_another_server_too() -> None:
    model = CountingModel(headings=["Pipes"])
    proxy = CountingModel(model.url)
    try:
        for prompt in ("Summarise. Text: One. Two.", "<page_3>\nPipes\nText\n</page_3> Reply with JSON"):
            body = json.dumps({"messages": [{"role": "user", "content": prompt}]}).encode()
            with urllib.request.urlopen(f"{proxy.url}/chat/completions", body) as response:
                reply = json.load(response)["choices"][0]["message"]["content"]
        assert json.loads(reply) == {"subsections": [{"title": "Pipes", "page": 3}]}
        assert (proxy.calls, proxy.prompt_tokens) == (model.calls, model.prompt_tokens) == (2, 19)
    finally:
        proxy.close()
        model.close()


def test_our_engine_is_measured_as_a_program(tmp_path: Path) -> None:
    report = generated(tmp_path)[0]
    options = argparse.Namespace(llm_url="", model="pageindex-llm", delay=0.0, concurrency=8)
    run = measure(report, OURS, options)
    assert (run.refused, run.headings_found) == ("", 1.0)
    assert run.llm_calls > 0 and run.seconds > 0 and run.memory_mib > 10


def test_bookmarks_are_what_there_is_to_find(tmp_path: Path) -> None:
    report, bare = generated(tmp_path)[:2]
    whole, copy = given(report.file, tmp_path)
    assert whole.headings == copy.headings == report.headings
    with pytest.raises(ValueError, match="has no bookmarks"):
        given(bare.file, tmp_path)
