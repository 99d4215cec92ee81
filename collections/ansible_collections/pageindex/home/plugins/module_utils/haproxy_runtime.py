"""HAProxy's runtime API (docs.haproxy.org/3.0/management.html, 9.3), on loopback in the gateway's container.

What is changed here counts from the next request on, without a restart and without a lost connection; whoever changes
something writes it to the file as well, from which HAProxy starts.
"""

from __future__ import annotations

import csv
import io
import re
import time

from ansible_collections.pageindex.home.plugins.module_utils.commands import Runner, run_command

# A command with its payload comes by standard input: a key or a certificate has no business in a list of processes.
_ASK = 'exec 3<>/dev/tcp/127.0.0.1/"$1" && cat >&3 && cat <&3'
# What the servers are like just now, for the process that comes after this one; `server-state-file` names it.
_KEEP_STATES = 'exec 3<>/dev/tcp/127.0.0.1/"$1" && echo "show servers state" >&3 && cat <&3 > "$2"'
SECONDS = 15
# The backend in which requests wait for a server, and the server that stands for none (haproxy.cfg.j2).
WAITING, NOBODY = "_wait", "nobody"
# Longest wait before a reload for what it would spoil: as long as a server is drained.
PATIENCE_SECONDS = 300
# The process that starts the others (management.html, 9.4).
_MASTER = "@master"
# HAProxy takes a payload of at most 16 KiB.
_LINES = 50


def statistics(told: str | None) -> list[dict[str, str]]:
    """The rows of what `show stat` tells; none where HAProxy does not run."""
    return [dict(row) for row in csv.DictReader(io.StringIO((told or "").lstrip("# ")))]


class HaproxyError(Exception):
    """HAProxy did not take a change; the message says what it answered."""


class HaproxyRuntime:
    """A running HAProxy in a container: the process that works, and by *master_port* those before it that end."""

    def __init__(
        self, container: str, admin_port: int, runner: Runner = run_command, *, master_port: int | None = None
    ) -> None:
        self._container = container
        self._port = str(admin_port)
        self._master_port = str(master_port) if master_port else None
        self._run = runner

    def ask(self, command: str, payload: str = "", *, process: str = "") -> str | None:
        """What HAProxy answers; None when it does not run. Raises HaproxyError when it runs and cannot be asked.

        *process* asks another one than that which works, as the master calls it: one of `ending`, or the master itself.
        """
        text = f"{command} <<\n{payload.rstrip()}\n\n" if payload else f"{command}\n"
        port = self._port
        if process and self._master_port:
            # The master goes on listening after an answer.
            port, text = self._master_port, f"{process} {text}quit\n"
        arguments = ["docker", "exec", "--interactive", self._container, "bash", "-c", _ASK, "ask", port]
        done = self._run(arguments, timeout=SECONDS, text=text)
        if done.returncode == 0:
            return done.stdout
        # "It does not run" is said only where it is known: else a revoked key would go on being accepted unnoticed.
        state = self._run(["docker", "inspect", "--format", "{{.State.Running}}", self._container], timeout=SECONDS)
        if state.returncode == 127 or state.stdout.strip() == "false" or "no such" in state.stderr.lower():
            return None
        raise HaproxyError(
            f"the container {self._container} cannot be asked, and goes on as it was: {done.explanation(3)}. "
            "Next: `docker ps` on the host says how it is; "
            f"`systemctl restart pageindex-home@{self._container}` has it read its files anew; then this command again"
        )

    def ending(self) -> list[str]:
        """The processes that a reload has left to finish what they have. Raises HaproxyError."""
        if not self._master_port:
            return []
        try:
            told = self.ask("show proc", process=_MASTER) or ""
        except HaproxyError:
            # A container from before there was such a port; it is replaced by this very run.
            made = ["docker", "inspect", "--format", "{{json .Config.Cmd}}", self._container]
            if f":{self._master_port}" in self._run(made, timeout=SECONDS).stdout:
                raise
            return []
        return [f"@!{number}" for number in re.findall(r"^(\d+)", told.partition("# old workers")[2], re.MULTILINE)]

    def replace_map(self, name: str, content: str, check: bool = False) -> bool:
        """Have the map *name* hold the lines of *content*, in one step. Returns whether that was a change.

        Where HAProxy does not run, or from a configuration that has no such map, there is nothing to change: it reads
        the file when it starts. Raises HaproxyError.
        """
        changed = self._replace_map(name, content, check)
        if not check:
            # Whoever keeps a connection of HTTP/2 to one of them busy goes on asking there.
            for process in self.ending():
                try:
                    self._replace_map(name, content, check, process)
                except HaproxyError:
                    # One that has ended meanwhile lets nobody in any more.
                    if process in self.ending():
                        raise
        return changed

    def _replace_map(self, name: str, content: str, check: bool, process: str = "") -> bool:
        shown = self.ask(f"show map {name}", process=process)
        if shown is None or "Unknown map" in shown:
            return False
        # An empty map is an empty line.
        if process and (not shown or "the target" in shown):
            raise HaproxyError(f"the process {process} does not tell of its keys: {shown.strip()}")
        # `0x55d… SHA-256 value`
        found = {line.split(" ", 1)[1] for line in shown.splitlines() if line.startswith("0x")}
        wanted = {line for line in content.splitlines() if line}
        if found == wanted or check:
            return found != wanted
        version = re.search(r"\d+", self._told(f"prepare map {name}", process=process))
        if not version:
            raise HaproxyError(f"it does not prepare a new version of the map {name}")
        lines = sorted(wanted)
        for start in range(0, len(lines), _LINES):
            self._told(f"add map @{version.group(0)} {name}", "\n".join(lines[start : start + _LINES]), process)
        self._told(f"commit map @{version.group(0)} {name}", process=process)
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

    def configuration(self) -> str | None:
        """The `description` of the configuration that it runs with; None when it does not run. Raises HaproxyError."""
        shown = self.ask("show info")
        if shown is None:
            return None
        found = re.search(r"^description: *(.*)$", shown, re.MULTILINE)
        return found.group(1).strip() if found else ""

    def reload(self, configuration: str, states: str) -> None:
        """Have it read its file again, until it runs with the one whose `description` is *configuration*.

        Requests that run are finished by the process before. *states* is the `server-state-file`, by which the new one
        knows at once who is up and whose door is shut. Raises HaproxyError.
        """
        deadline = time.monotonic() + PATIENCE_SECONDS
        while self._would_spoil() and time.monotonic() < deadline:
            time.sleep(1)
        arguments = ["docker", "exec", self._container, "bash", "-c", _KEEP_STATES, "keep", self._port, states]
        kept = self._run(arguments, timeout=SECONDS)
        sent = self._run(["docker", "kill", "--signal", "USR2", self._container], timeout=SECONDS)
        for done in (kept, sent):
            if done.returncode != 0:
                raise HaproxyError(
                    f"the container {self._container} cannot be told to reload, and goes on with the configuration "
                    f"before: {done.explanation(3)}. "
                    f"Next: `systemctl restart pageindex-home@{self._container}` on the host"
                )
        deadline = time.monotonic() + SECONDS
        while time.monotonic() < deadline:
            # Between the two processes nobody may be there to be asked.
            if self.configuration() == configuration:
                return
            time.sleep(0.1)
        log = self._run(["docker", "logs", "--tail", "10", self._container], timeout=SECONDS)
        raise HaproxyError(
            f"{SECONDS} s after it was told to read the new configuration it goes on with the old one. It says:\n"
            f"{log.stdout}{log.stderr}"
        )

    def _would_spoil(self) -> bool:
        """Whether somebody counts on this process.

        Who drains a server counts its requests, and would not see those that the process before has left; and who waits
        for a server would wait in vain, because that process looks at none any more.
        """
        rows = statistics(self.ask("show stat"))
        drained = any(row["status"].startswith(("DRAIN", "MAINT")) and int(row["scur"] or 0) for row in rows)
        waiting = {row["pxname"]: int(row["scur"] or 0) for row in rows if row["svname"] == "BACKEND"}
        for row in rows:
            if row["svname"] not in ("BACKEND", "FRONTEND", NOBODY):
                waiting[row["pxname"]] -= int(row["scur"] or 0)
        return drained or any(number > 0 for name, number in waiting.items() if name.endswith(WAITING))

    def _told(self, command: str, payload: str = "", process: str = "") -> str:
        answer = self.ask(command, payload, process=process)
        if answer is None or re.search(r"unknown|error|invalid|can't|cannot|fail", answer, re.IGNORECASE):
            said = (answer or "it stopped running").strip()
            raise HaproxyError(f"`{command}`: {said}. `systemctl restart pageindex-home@gateway` reads the files anew.")
        return answer
