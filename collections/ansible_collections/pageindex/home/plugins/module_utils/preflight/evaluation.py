"""From surveys to findings, and from findings to the report that people and programs read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from ansible_collections.pageindex.home.plugins.module_utils.preflight.finding import (
    CHECKS,
    GREEN,
    RED,
    YELLOW,
    Finding,
    Survey,
    Wanted,
    green,
    red,
    yellow,
)

SETTINGS_SUFFIX = "_settings"
WAIVED = "waived"


def evaluate(seen: Survey, wanted: Wanted, settings_problems: Mapping[str, Iterable[str]]) -> list[Finding]:
    """All findings about one host.

    seen: topic → what the survey saw, or {"error": text} where looking failed.
    wanted: thresholds and expectations. settings_problems: role → sentences about its variables.
    """
    findings: list[Finding] = []
    for topic, content in seen.items():
        if isinstance(content, Mapping) and set(content) == {"error"}:
            findings.append(
                yellow(
                    f"survey_{topic}",
                    f"could not be looked at: {content['error']}",
                    "an answer",
                    "Run the playbook with -vvv and look at the host; the checks about it were left out.",
                )
            )
    unknown = {finding.check.removeprefix("survey_") for finding in findings}
    order = [topic for topic in seen if topic not in unknown and seen[topic] is not None]
    applicable = [entry for entry in CHECKS.values() if entry.topic in order]
    for entry in sorted(applicable, key=lambda entry: order.index(entry.topic)):
        result = entry.function(seen, wanted)
        for finding in [result] if isinstance(result, Finding) else result or ():
            if finding.check != entry.name:
                raise ValueError(f"check {entry.name} made a finding named {finding.check}")
            findings.append(finding)
    for role, sentences in settings_problems.items():
        problems = [sentence for sentence in sentences if sentence]
        name = role + SETTINGS_SUFFIX
        if not problems:
            findings.append(green(name, "nothing to object to"))
        for problem in problems:
            findings.append(
                red(name, problem, "settings that can work", f"Change the inventory; docs/{role}.md explains it.")
            )
    return findings


def waive(findings: Iterable[Finding], waivers: Mapping[str, str]) -> list[dict[str, Any]]:
    """Findings as dictionaries {check, status, found, expected, fix, reason}, waived ones with status "waived".

    Only what is not green can be waived. Unusable waivers become red findings of the check "waivers".
    """
    findings = list(findings)
    judged = [
        {**asdict(finding), "status": WAIVED, "reason": str(waivers[finding.check])}
        if finding.status != GREEN and str(waivers.get(finding.check) or "").strip()
        else {**asdict(finding), "reason": ""}
        for finding in findings
    ]
    names = {*CHECKS, *(finding.check for finding in findings)}
    for name, reason in waivers.items():
        if name not in names:
            problem = red(
                "waivers",
                f"there is no check named {name}",
                "a name from the table",
                "Correct preflight_waivers; `-e preflight_table=all` shows every check.",
            )
        elif not str(reason or "").strip():
            problem = red(
                "waivers",
                f"{name} is waived without a reason",
                "a reason that will make sense in a year",
                f"Set preflight_waivers: {{{name}: the reason}}.",
            )
        else:
            continue
        judged.append({**asdict(problem), "reason": ""})
    return judged


def report(findings_by_host: Mapping[str, Sequence[Mapping[str, Any]]], missing: Sequence[str] = ()) -> dict[str, Any]:
    """What `preflight_report` writes: ok, failures, warnings, waived and passed, each a flat list.

    missing: hosts that could not be reached, which is a failure as well.
    """
    flat = [{"host": host, **finding} for host in sorted(findings_by_host) for finding in findings_by_host[host]]
    for host in missing:
        fix = f"Try `ansible {host} -m ansible.builtin.ping`."
        problem = red("connection", "no answer", "a host that Ansible can log in to", fix)
        flat.append({"host": host, **asdict(problem), "reason": ""})

    def with_status(status: str) -> list[dict[str, Any]]:
        return [
            {key: value for key, value in entry.items() if key != "status" and value != ""}
            for entry in flat
            if entry["status"] == status
        ]

    failures = with_status(RED)
    return {
        "ok": not failures,
        "failures": failures,
        "warnings": with_status(YELLOW),
        "waived": with_status(WAIVED),
        "passed": with_status(GREEN),
    }
