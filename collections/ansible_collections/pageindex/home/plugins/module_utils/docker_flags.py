"""Options of dockerd that stand on the command line of its unit, by their names in daemon.json."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ansible_collections.pageindex.home.plugins.module_utils.commands import Runner, run_command

SHORT_FLAGS = {
    "-b": "bridge", "-D": "debug", "-g": "data-root", "-G": "group", "-H": "hosts",
    "-l": "log-level", "-p": "pidfile", "-s": "storage-driver",
}  # fmt: skip
# Flags that may be given several times have another name in the file.
FILE_NAMES = {
    "add-runtime": "runtimes",
    "allow-nondistributable-artifacts": "allow-nondistributable-artifacts",
    "authorization-plugin": "authorization-plugins",
    "cdi-spec-dir": "cdi-spec-dirs",
    "default-address-pool": "default-address-pools",
    "default-network-opt": "default-network-opts",
    "default-ulimit": "default-ulimits",
    "dns-opt": "dns-opts",
    "exec-opt": "exec-opts",
    "feature": "features",
    "graph": "data-root",
    "host": "hosts",
    "insecure-registry": "insecure-registries",
    "label": "labels",
    "log-opt": "log-opts",
    "node-generic-resource": "node-generic-resources",
    "registry-mirror": "registry-mirrors",
    "storage-opt": "storage-opts",
}


@dataclass(frozen=True)
class DaemonFlag:
    """One option on the command line: its name in daemon.json, how it is written, and in which file."""

    key: str
    text: str
    file: str


def parse_flags(words: Sequence[str]) -> list[tuple[str, str]]:
    """(name in daemon.json, flag as written) for each flag of a command line."""
    found = []
    for word, following in zip(words, [*words[1:], ""]):
        if word.startswith("--") and len(word) > 2:
            name = word[2:].partition("=")[0]
            key = FILE_NAMES.get(name, name)
        elif re.match(r"-[A-Za-z]", word) and word[:2] in SHORT_FLAGS:
            key = SHORT_FLAGS[word[:2]]
        else:
            continue
        # "--log-driver syslog" and "-H fd://" are two words, "--log-driver=syslog" and "-Hfd://" are one.
        alone = "=" not in word and (word.startswith("--") or len(word) == 2)
        value = f" {following}" if alone and following and not following.startswith("-") else ""
        found.append((key, f"{word}{value}"))
    return found


class DockerUnit:
    """The unit that starts dockerd."""

    def __init__(self, unit: str = "docker.service", runner: Runner = run_command) -> None:
        self._unit = unit
        self._run = runner

    def flags(self) -> list[DaemonFlag]:
        """The options on its command line; none while the unit is not installed."""
        shown = self._run(
            ["systemctl", "show", "-p", "ExecStart,EnvironmentFiles,Environment,FragmentPath,DropInPaths", self._unit]
        )
        properties: dict[str, str] = {}
        for line in shown.stdout.splitlines():
            name, equals, value = line.partition("=")
            if equals:
                # EnvironmentFiles comes once for each file.
                properties[name] = f"{properties[name]}\n{value}" if name in properties else value
        match = re.search(r"argv\[\]=(.*?) ; ignore_errors=", properties.get("ExecStart", ""))
        if not match:
            return []
        place = self._place(properties)
        variables = self._variables(properties)
        flags: list[DaemonFlag] = []
        words: list[str] = []
        for word in match.group(1).split():
            variable = re.fullmatch(r"\$\{?(\w+)\}?", word)
            if variable is None:
                words.append(word)
            elif variable.group(1) in variables:
                text, file = variables[variable.group(1)]
                flags += [DaemonFlag(key, shown, file) for key, shown in parse_flags(_split(text))]
        return [DaemonFlag(key, shown, place) for key, shown in parse_flags(words)] + flags

    def _place(self, properties: dict[str, str]) -> str:
        """The file whose ExecStart= counts: the last one that has it."""
        files = [properties.get("FragmentPath", ""), *properties.get("DropInPaths", "").split()]
        holders = [path for path in files if re.search(r"(?m)^\s*ExecStart\s*=\s*\S", _read(path))]
        return holders[-1] if holders else files[0]

    def _variables(self, properties: dict[str, str]) -> dict[str, tuple[str, str]]:
        """Variables for the command line: value, and the file it stands in."""
        found = {}
        for word in _split(properties.get("Environment", "")):
            name, equals, value = word.partition("=")
            if equals:
                found[name] = (value, f"Environment= of {self._unit}")
        for line in properties.get("EnvironmentFiles", "").splitlines():
            path = line.split(" (")[0].strip()
            for row in _read(path).splitlines():
                match = re.match(r"\s*([A-Za-z_]\w*)=(.*)", row)
                if match:
                    found[match.group(1)] = (" ".join(_split(match.group(2))), path)
        return found


def given_twice(document: dict[str, Any], flags: Sequence[DaemonFlag], path: str, unit: str) -> list[str]:
    """A sentence for each option that stands in the file and on the command line; dockerd refuses to start then."""
    return [
        f"`{flag.key}` stands in {path} and as `{flag.text}` on the command line of {unit} ({flag.file}): "
        f"dockerd would not start. Take it out of one of the two, then run the same command again."
        for flag in flags
        if flag.key in document
    ]


def _split(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError:
        return text.split()


def _read(path: str) -> str:
    if not path or not os.path.isfile(path):
        return ""
    with open(path, encoding="utf-8", errors="replace") as stream:
        return stream.read()
