"""The command line of `vllm serve`, from typed values, checked against what a vLLM version takes.

Plain data in, plain data out: what the pinned version knows comes as lists of flags and
environment variables (catalogue/vllm), so nothing here has to be changed for a new one.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


class ArgumentsError(ValueError):
    """The command line would not be valid; `problems` says each thing that is wrong with it."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = list(problems)


@dataclass
class Vocabulary:
    """What one version of vLLM takes."""

    version: str
    flags: frozenset[str]
    environment: frozenset[str] = frozenset()
    removed_flags: Mapping[str, str] = field(default_factory=dict)
    removed_environment: Mapping[str, str] = field(default_factory=dict)
    reserved_flags: Mapping[str, str] = field(default_factory=dict)
    plain_switches: frozenset[str] = frozenset()

    def negative(self, flag: str) -> str | None:
        """The flag that switches another one off, or None where it takes a value or has no such form.

        `--no-enable-x` is accepted wherever `--disable-x` is listed for it: the parser takes both, and only the
        former is valid in every version (checked with the parsers of 0.32.0 and 0.33.0).
        """
        negative = "--no-" + flag.removeprefix("--")
        opposites = {"--enable-": "--disable-", "--disable-": "--enable-"}
        candidates = {negative}
        for prefix, opposite in opposites.items():
            if flag.startswith(prefix):
                candidates.add(opposite + flag.removeprefix(prefix))
        return negative if candidates & self.flags else None


def flag_name(name: str) -> str:
    """max_model_len, max-model-len and --max-model-len are one flag: --max-model-len."""
    bare = str(name).lstrip("-").replace("_", "-")
    return f"-{bare}" if str(name).startswith("-") and not str(name).startswith("--") else f"--{bare}"


def nearest(name: str, known: Iterable[str]) -> str:
    """ "; did you mean X?" for the most similar known name, or nothing."""
    found = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"; did you mean {found[0]}?" if found else ""


def flag_problem(flag: str, vocabulary: Vocabulary) -> str | None:
    """What is wrong with using a flag, or None."""
    if flag in vocabulary.reserved_flags:
        return f"{flag} is not for vllm_extra_arguments: {vocabulary.reserved_flags[flag]}"
    positive = flag.replace("--no-", "--", 1) if flag.startswith("--no-") else flag
    for candidate in (flag, positive):
        if candidate in vocabulary.removed_flags and flag not in vocabulary.flags:
            return f"{flag} does not exist in vLLM {vocabulary.version}. Instead: {vocabulary.removed_flags[candidate]}"
    if flag in vocabulary.flags:
        if not flag.startswith("--"):
            return f"{flag}: give the long name of the flag, so that it is seen when it is set twice"
        return None
    if flag.startswith("--no-") and vocabulary.negative(positive) == flag:
        return None
    return f"{flag} is not an argument of vLLM {vocabulary.version}{nearest(flag, vocabulary.flags)}"


def words(flag: str, value: Any, vocabulary: Vocabulary) -> list[str]:
    """The words of one argument. Raises ArgumentsError when the value does not fit the flag.

    True and False switch (`--x`, `--no-x`), mappings become JSON, lists several words, None nothing.
    """
    if value is None:
        return []
    negative = vocabulary.negative(flag)
    switch = negative is not None or flag in vocabulary.plain_switches
    if switch and str(value).lower() in ("true", "false"):
        # `-e vllm_enforce_eager=true` on the command line is a text.
        value = str(value).lower() == "true"
    if isinstance(value, bool):
        if flag in vocabulary.plain_switches:
            return [flag] if value else []
        if flag.startswith("--no-"):
            raise ArgumentsError([f"{flag}: give the flag without no, and the value {str(not value).lower()}"])
        if negative is None:
            raise ArgumentsError([f"{flag} takes a value, got {str(value).lower()}"])
        return [flag] if value else [negative]
    if switch:
        raise ArgumentsError([f"{flag} is a switch: expected true or false, got {value!r}"])
    if isinstance(value, Mapping):
        return [flag, as_json(value)]
    if isinstance(value, (list, tuple)):
        return [flag, *(as_json(entry) if isinstance(entry, Mapping) else str(entry) for entry in value)]
    text = str(value)
    if text == "":
        raise ArgumentsError([f"{flag} has an empty value; leave it out (null) instead"])
    # A value that looks like a flag would be read as one.
    return [f"{flag}={text}"] if text.startswith("-") else [flag, text]


def as_json(value: Any) -> str:
    """JSON as vLLM's parser reads it, the same text for the same value."""
    return json.dumps(_plain(value), separators=(",", ":"), sort_keys=True)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(entry) for entry in value]
    return str(value) if isinstance(value, str) else value


def build_arguments(settings: Mapping[str, Any], extra: Mapping[str, Any], vocabulary: Vocabulary) -> list[str]:
    """The words after `vllm serve MODEL`.

    `settings` are the role's own, in the order wanted; `extra` are the owner's, which win over
    them and stand last. Raises ArgumentsError with every problem.
    """
    problems: list[str] = []
    chosen: dict[str, Any] = {flag_name(name): value for name, value in settings.items()}
    for name, value in extra.items():
        flag = flag_name(name)
        problem = flag_problem(flag, vocabulary)
        if problem:
            problems.append(problem)
        else:
            chosen.pop(flag, None)
            chosen[flag] = value
    arguments: list[str] = []
    for flag, value in chosen.items():
        if value is None:
            continue
        if flag not in vocabulary.flags and flag.removeprefix("--no-") == flag:
            problems.append(f"{flag} is not an argument of vLLM {vocabulary.version}{nearest(flag, vocabulary.flags)}")
            continue
        try:
            arguments += words(flag, value, vocabulary)
        except ArgumentsError as error:
            problems += error.problems
    if problems:
        raise ArgumentsError(problems)
    return arguments


def environment_problems(environment: Mapping[str, Any], vocabulary: Vocabulary) -> list[str]:
    """What is wrong with environment variables for the server. Only names that begin with VLLM_ are vLLM's to know."""
    problems = []
    for name in environment:
        if name in vocabulary.removed_environment:
            problems.append(
                f"the environment variable {name} does not exist in vLLM {vocabulary.version}. "
                f"Instead: {vocabulary.removed_environment[name]}"
            )
        elif name.startswith("VLLM_") and vocabulary.environment and name not in vocabulary.environment:
            problems.append(
                f"the environment variable {name} is unknown to vLLM {vocabulary.version}"
                f"{nearest(name, vocabulary.environment)}"
            )
        elif name == "VLLM_API_KEY":
            problems.append(
                "VLLM_API_KEY shows in `docker inspect` and guards only some paths; the gateway checks keys"
            )
    return problems
