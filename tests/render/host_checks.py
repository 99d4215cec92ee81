"""Commands that judge a rendered file with the program that will read it.

The same commands run on this machine where it has the programs (test_render.py), and on the staging host,
which has all of them (tests/scenarios).
"""

from __future__ import annotations

from dataclasses import dataclass

from tests.render.rendering import Rendered


@dataclass(frozen=True)
class Check:
    """Files to lay out in an empty folder (relative path → content), and the shell command to run there."""

    name: str
    program: str
    files: dict[str, str]
    command: str


def compose_checks(rendered: Rendered) -> list[Check]:
    """`docker compose config` for every Compose file; of other files it opens .env alone."""
    files = rendered.files
    return [
        Check(
            name=f"compose {path.split('/')[-2]}",
            program="docker compose version",
            files={"compose.yml": content, ".env": files.get(path.replace("compose.yml", ".env"), "")},
            command="docker compose --file compose.yml config --quiet",
        )
        for path, content in files.items()
        if path.endswith("/compose.yml")
    ]


def unit_checks(rendered: Rendered) -> list[Check]:
    """`systemd-analyze verify` for every unit; the programs it starts need not be on this machine."""
    units = {}
    for path, content in rendered.files.items():
        # A drop-in is nothing without the unit of others that it changes.
        if path.startswith("/etc/systemd/system/") and not path.endswith(".conf"):
            name = path.rsplit("/", 1)[-1].replace("@.", "@example.")
            lines = (line for line in content.splitlines() if not line.startswith(("Exec", "WorkingDirectory")))
            units[name] = "\n".join(lines).replace("[Service]", "[Service]\nExecStart=/bin/true")
    checks = []
    for name in units:
        # Warnings are printed and do not fail the command, so any word is a failure. systemd before 254 does
        # not know the back-off settings and ignores them, as the unit says.
        known = "grep -vE \"Unknown key (name )?'(RestartSteps|RestartMaxDelaySec)'\""
        command = f"! systemd-analyze verify --man=no ./{name} 2>&1 | {known}"
        # All of them: a timer wants its service beside it.
        checks.append(Check(f"unit {name}", "systemd-analyze --version", units, command))
    return checks


def haproxy_checks(rendered: Rendered) -> list[Check]:
    """`haproxy -c` for every HAProxy configuration."""
    return [
        # Older ones know neither the times of a request nor how to give up a connection whose client has gone.
        Check(
            "haproxy",
            "haproxy -v | grep -q 'version 3'",
            # As the image is built: without a certificate, and with an empty list of keys.
            {"haproxy.cfg": content.replace("/keys/keys.map", "keys.map"), "keys.map": ""},
            "CHECK_ONLY=1 haproxy -c -f haproxy.cfg",
        )
        for path, content in rendered.files.items()
        if path.endswith("/haproxy.cfg")
    ]


def shell_checks(rendered: Rendered) -> list[Check]:
    """`sh -n` for every shell script."""
    return [
        Check(f"script {path.rsplit('/', 1)[-1]}", "sh -c true", {"script": content}, "sh -n script")
        for path, content in rendered.files.items()
        if content.startswith("#!/bin/sh")
    ]


def checks(rendered: Rendered) -> list[Check]:
    """All of them."""
    return [
        *compose_checks(rendered),
        *unit_checks(rendered),
        *haproxy_checks(rendered),
        *shell_checks(rendered),
    ]
