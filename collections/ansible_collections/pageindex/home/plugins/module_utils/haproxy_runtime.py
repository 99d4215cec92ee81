"""HAProxy's runtime API (docs.haproxy.org/3.0/management.html, 9.3), on loopback in the gateway's container.

What is changed here counts from the next request on, without a restart and without a lost connection; whoever changes
something writes it to the file as well, from which HAProxy starts.
"""

from __future__ import annotations

import re

from ansible_collections.pageindex.home.plugins.module_utils.commands import Runner, run_command

# A command with its payload comes by standard input: a key or a certificate has no business in a list of processes.
_ASK = 'exec 3<>/dev/tcp/127.0.0.1/"$1" && cat >&3 && cat <&3'
SECONDS = 15
# HAProxy takes a payload of at most 16 KiB.
_LINES = 50


class HaproxyError(Exception):
    """HAProxy did not take a change; the message says what it answered."""


class HaproxyRuntime:
    """A running HAProxy in a container."""

    def __init__(self, container: str, admin_port: int, runner: Runner = run_command) -> None:
        self._container = container
        self._port = str(admin_port)
        self._run = runner

    def ask(self, command: str, payload: str = "") -> str | None:
        """What HAProxy answers; None when it does not run. Raises HaproxyError when it runs and cannot be asked."""
        text = f"{command} <<\n{payload.rstrip()}\n\n" if payload else f"{command}\n"
        arguments = ["docker", "exec", "--interactive", self._container, "bash", "-c", _ASK, "ask", self._port]
        done = self._run(arguments, timeout=SECONDS, text=text)
        if done.returncode == 0:
            return done.stdout
        # "It does not run" is said only where it is known: else a revoked key would go on being accepted unnoticed.
        state = self._run(["docker", "inspect", "--format", "{{.State.Running}}", self._container], timeout=SECONDS)
        if state.returncode == 127 or state.stdout.strip() == "false" or "no such" in state.stderr.lower():
            return None
        raise HaproxyError(f"the container {self._container} cannot be asked: {done.explanation(3)}")

    def replace_map(self, name: str, content: str, check: bool = False) -> bool:
        """Have the map *name* hold the lines of *content*, in one step. Returns whether that was a change.

        Where HAProxy does not run, or from a configuration that has no such map, there is nothing to change: it reads
        the file when it starts. Raises HaproxyError.
        """
        shown = self.ask(f"show map {name}")
        if shown is None or "Unknown map" in shown:
            return False
        # `0x55d… SHA-256 value`
        found = {line.split(" ", 1)[1] for line in shown.splitlines() if line.startswith("0x")}
        wanted = {line for line in content.splitlines() if line}
        if found == wanted or check:
            return found != wanted
        version = re.search(r"\d+", self._told(f"prepare map {name}"))
        if not version:
            raise HaproxyError(f"it does not prepare a new version of the map {name}")
        lines = sorted(wanted)
        for start in range(0, len(lines), _LINES):
            self._told(f"add map @{version.group(0)} {name}", "\n".join(lines[start : start + _LINES]))
        self._told(f"commit map @{version.group(0)} {name}")
        return True

    def replace_certificate(self, path: str, pem: str, serial: str, *, anew: bool = False, check: bool = False) -> bool:
        """Have new connections shown the certificate in *pem* instead of what was read from *path*.

        *serial* (hexadecimal) tells whether it is shown already; *anew* that the file has changed, if only in what it
        has beside that certificate. Connections that are open stay. Where HAProxy does not
        run, or shows no certificate from there, there is nothing to change. Raises HaproxyError.
        """
        shown = self.ask(f"show ssl cert {path}")
        found = re.search(r"^Serial: *([0-9A-Fa-f]+)", shown or "", re.MULTILINE)
        if not found:
            return False
        differs = anew or found.group(1).lstrip("0").upper() != serial.lstrip("0").upper()
        if not differs or check:
            return differs
        self._told(f"set ssl cert {path}", pem)
        answer = self._told(f"commit ssl cert {path}")
        if "Success" not in answer:
            raise HaproxyError(f"it did not take the certificate {path}: {answer.strip()}")
        return True

    def _told(self, command: str, payload: str = "") -> str:
        answer = self.ask(command, payload)
        if answer is None or re.search(r"unknown|error|invalid|can't|cannot|fail", answer, re.IGNORECASE):
            said = (answer or "it stopped running").strip()
            raise HaproxyError(f"`{command}`: {said}. `systemctl restart pageindex-home@gateway` reads the files anew.")
        return answer
