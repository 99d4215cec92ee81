"""Which values of a shared JSON file are ours, and what comes back when we go."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from ansible_collections.pageindex.home.plugins.module_utils.json_documents import JsonDocumentError
from ansible_collections.pageindex.home.plugins.module_utils.json_ownership import Ownership, read_ownership

OURS = {"log-driver": "json-file", "log-opts": {"max-size": "100m"}, "features": {"cdi": True}}


def saved(ownership: Ownership) -> Ownership:
    """The same after a trip through its file."""
    return Ownership.from_document(copy.deepcopy(ownership.to_document()))


def test_what_was_there_before_comes_back() -> None:
    theirs: dict[str, Any] = {"data-root": "/big", "log-driver": "journald", "log-opts": {"max-size": "1g", "tag": "x"}}
    ownership = Ownership()
    merged = ownership.set(theirs, OURS)
    assert merged["log-opts"] == {"max-size": "100m", "tag": "x"}
    assert saved(ownership).restore(merged) == theirs


def test_what_was_the_same_before_stays() -> None:
    theirs = {"log-driver": "json-file", "features": {"cdi": True, "buildkit": True}}
    ownership = Ownership()
    assert ownership.restore(ownership.set(theirs, OURS)) == theirs


def test_what_somebody_changed_after_us_stays() -> None:
    ownership = Ownership()
    merged = ownership.set({}, OURS)
    merged["log-opts"]["max-size"] = "5g"
    merged["debug"] = True
    assert ownership.restore(merged) == {"log-opts": {"max-size": "5g"}, "debug": True}


def test_a_setting_that_is_no_longer_ours_goes_back() -> None:
    ownership = Ownership()
    mirrors = {"registry-mirrors": ["https://ours.example"]}
    merged = ownership.set({"registry-mirrors": ["https://theirs.example"]}, {**OURS, **mirrors})
    ownership = saved(ownership)
    assert ownership.set(merged, OURS) == {"registry-mirrors": ["https://theirs.example"], **OURS}


def test_the_second_run_changes_nothing() -> None:
    found: list[dict[str, Any]] = [{}, {"log-opts": "wrong kind"}, {"features": {}}, {"log-opts": {"max-size": "1g"}}]
    for before in found:
        ownership = Ownership()
        merged = ownership.set(before, OURS)
        noted = ownership.to_document()
        again = saved(ownership)
        assert again.set(merged, OURS) == merged
        assert again.to_document() == noted
    assert Ownership().set({}, {}) == {}


def test_a_changed_setting_still_remembers_the_first_value() -> None:
    ownership = Ownership()
    merged = ownership.set({"log-opts": {"max-size": "1g"}}, OURS)
    merged = ownership.set(merged, {**OURS, "log-opts": {"max-size": "200m"}})
    assert merged["log-opts"] == {"max-size": "200m"}
    assert ownership.restore(merged) == {"log-opts": {"max-size": "1g"}}


def test_a_value_in_the_place_of_an_object_comes_back() -> None:
    ownership = Ownership()
    merged = ownership.set({"log-opts": "wrong kind"}, OURS)
    assert merged["log-opts"] == {"max-size": "100m"}
    assert ownership.restore(merged) == {"log-opts": "wrong kind"}


def test_the_note_is_read_carefully(tmp_path: Any) -> None:
    path = tmp_path / "state.json"
    assert read_ownership(str(path)) is None
    path.write_text('{"values": [{"wrong": 1}]}')
    with pytest.raises(JsonDocumentError, match="move it away"):
        read_ownership(str(path))
