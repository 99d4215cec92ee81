"""Merging our keys into a JSON file of others."""

from __future__ import annotations

import pytest

from ansible_collections.pageindex.home.plugins.module_utils.json_documents import (
    JsonDocumentError,
    merge,
    parse_object,
    render,
    without,
)


def test_merges_object_by_object_and_keeps_the_rest() -> None:
    theirs = {"data-root": "/big", "log-opts": {"tag": "x", "max-size": "1g"}, "dns": ["1.1.1.1"]}
    ours = {"log-opts": {"max-size": "100m"}, "features": {"cdi": True}, "dns": ["9.9.9.9"]}
    assert merge(theirs, ours) == {
        "data-root": "/big",
        "log-opts": {"tag": "x", "max-size": "100m"},
        "dns": ["9.9.9.9"],
        "features": {"cdi": True},
    }
    assert theirs["dns"] == ["1.1.1.1"], "the original is not touched"


def test_takes_our_keys_out_again() -> None:
    document = {"log-opts": {"tag": "x", "max-size": "100m"}, "features": {"cdi": True}, "data-root": "/big"}
    paths = ["log-opts.max-size", "features.cdi", "never.there", "data-root.below"]
    assert without(document, paths) == {"log-opts": {"tag": "x"}, "data-root": "/big"}


@pytest.mark.parametrize("text", ["{", "{'a': 1}", '{"a": 1,}'])
def test_invalid_json_is_reported_with_its_path(text: str) -> None:
    with pytest.raises(JsonDocumentError, match=r"/etc/docker/daemon\.json is not valid JSON"):
        parse_object(text, "/etc/docker/daemon.json")


def test_only_objects_can_be_merged() -> None:
    with pytest.raises(JsonDocumentError, match="list"):
        parse_object("[]", "x")


def test_empty_files_are_empty_objects() -> None:
    assert parse_object(" \n", "x") == {}
    assert parse_object(render({"a": "ü"}), "x") == {"a": "ü"}
