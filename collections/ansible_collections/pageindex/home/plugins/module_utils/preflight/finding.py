"""Findings, and the register of the checks that make them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Union

GREEN, YELLOW, RED = "green", "yellow", "red"

Survey = Mapping[str, Any]
Wanted = Mapping[str, Any]


@dataclass(frozen=True)
class Finding:
    """One line of the table: what was found, what was expected, and what to do about it."""

    check: str
    status: str
    found: str
    expected: str = ""
    fix: str = ""

    def __post_init__(self) -> None:
        """Raise ValueError for a finding that would leave its reader alone."""
        if self.status not in (GREEN, YELLOW, RED):
            raise ValueError(f"{self.check}: status {self.status!r}, expected green, yellow or red")
        if self.status != GREEN and not (self.fix and self.expected):
            raise ValueError(f"{self.check}: a {self.status} finding says what was expected and how to mend it")


def green(check: str, found: str, expected: str = "") -> Finding:
    """All is well."""
    return Finding(check, GREEN, found, expected)


def yellow(check: str, found: str, expected: str, fix: str) -> Finding:
    """It works, but less well than it could, or a role is going to mend it."""
    return Finding(check, YELLOW, found, expected, fix)


def red(check: str, found: str, expected: str, fix: str) -> Finding:
    """It cannot work, or data is at risk: nothing is changed before this is mended or waived."""
    return Finding(check, RED, found, expected, fix)


CheckResult = Union[Finding, Sequence[Finding], None]
CheckFunction = Callable[[Survey, Wanted], CheckResult]


@dataclass(frozen=True)
class Check:
    """A registered check: its name, and the topics of the survey that it reads first."""

    name: str
    topic: str
    function: CheckFunction


# In the order of registration, which is the order of the table.
CHECKS: dict[str, Check] = {}


def check(name: str, topic: str) -> Callable[[CheckFunction], CheckFunction]:
    """Register a function as a check. It returns findings, or None where it does not apply.

    A check is not called when the survey has nothing about its topic.
    Raises ValueError when the name is taken.
    """

    def register(function: CheckFunction) -> CheckFunction:
        if name in CHECKS:
            raise ValueError(f"two checks are named {name}")
        CHECKS[name] = Check(name, topic, function)
        return function

    return register
