"""What holds for every input, not only for the examples one thinks of."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.pageindex.home.plugins.module_utils.config_hash import config_hash
from ansible_collections.pageindex.home.plugins.module_utils.json_documents import merge, parse_object, render
from ansible_collections.pageindex.home.plugins.module_utils.openpgp import armor, dearmor
from ansible_collections.pageindex.home.plugins.module_utils.vllm_arguments import ArgumentsError, build_arguments
from ansible_collections.pageindex.home.plugins.module_utils.vllm_vocabulary import vocabulary

# The same inputs in every run: a red build can be repeated. No time limit on a busy machine, nothing kept on disk.
settings.register_profile("repeatable", derandomize=True, deadline=None, database=None)
settings.load_profile("repeatable")

VLLM = vocabulary("0.32.0")
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
OBJECTS = st.dictionaries(st.text(max_size=8), VALUES, max_size=5)


@given(OBJECTS, OBJECTS)
def test_merging_a_second_time_changes_nothing(base: dict[str, Any], ours: dict[str, Any]) -> None:
    once = merge(base, ours)
    assert merge(once, ours) == once


@given(OBJECTS, OBJECTS)
def test_merging_keeps_the_keys_of_others(base: dict[str, Any], ours: dict[str, Any]) -> None:
    merged = merge(base, ours)
    assert set(merged) == set(base) | set(ours)
    assert {key: merged[key] for key in set(base) - set(ours)} == {key: base[key] for key in set(base) - set(ours)}


@given(OBJECTS)
def test_a_written_document_is_read_back(document: dict[str, Any]) -> None:
    assert parse_object(render(document), "daemon.json") == document


@given(st.binary(min_size=1, max_size=400))
def test_armor_is_undone(packets: bytes) -> None:
    assert dearmor(armor(packets).encode()) == packets


@given(OBJECTS)
def test_hash_does_not_depend_on_the_order_of_keys(value: dict[str, Any]) -> None:
    assert config_hash(value) == config_hash(dict(reversed(value.items())))


@given(OBJECTS, st.text(max_size=8), st.integers())
def test_hash_sees_a_change(value: dict[str, Any], key: str, number: int) -> None:
    assert config_hash({**value, key: number}) != config_hash({**value, key: number + 1})


FLAG_VALUES = st.booleans() | st.integers() | st.text(max_size=12) | st.dictionaries(st.text(max_size=5), st.integers())


@given(st.dictionaries(st.sampled_from(sorted(VLLM.flags)) | st.text(max_size=20), FLAG_VALUES, max_size=4))
def test_a_command_line_has_only_flags_that_exist_or_is_refused(extra: dict[str, Any]) -> None:
    try:
        built = build_arguments({}, extra, VLLM)
    except ArgumentsError as error:
        assert error.problems and all(problem.strip() for problem in error.problems)
        return
    flags = [word.split("=")[0] for word in built if word.startswith("--")]
    assert all(flag in VLLM.flags or VLLM.negative(flag.replace("--no-", "--", 1)) == flag for flag in flags), built
    assert not set(flags) & set(VLLM.reserved_flags)
    json.dumps(built)
