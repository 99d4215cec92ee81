"""An Ollama that is on a host without this project: its unit, where it listens, its models. Standard library only."""

from __future__ import annotations

import contextlib
import json
import pwd
import re
import shlex
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

UNIT = "ollama.service"
PROPERTIES = ("LoadState", "ActiveState", "UnitFileState", "Environment", "EnvironmentFiles", "User")
PORT = 11434
TIMEOUT_SECONDS = 10


def parse_unit(text: str) -> dict[str, str]:
    """Property → value, from what `systemctl show` says; of one that is there several times a line for each."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        name, equals, value = line.partition("=")
        if equals:
            found[name] = f"{found[name]}\n{value}" if name in found else value
    return found


def environment(unit: Mapping[str, str]) -> dict[str, str]:
    """The variables of a unit, those of its files before its own, as systemd has it."""
    variables = _variables(unit.get("Environment", ""))
    for path in re.findall(r"^(.+) \(ignore_errors=\w+\)$", unit.get("EnvironmentFiles", ""), re.MULTILINE):
        with contextlib.suppress(OSError):
            lines = Path(path).read_text(encoding="utf-8", errors="replace").splitlines()
            for line in lines:
                variables |= _variables(line) if not line.lstrip().startswith(("#", ";")) else {}
    return variables


def _variables(text: str) -> dict[str, str]:
    try:
        words = shlex.split(text)
    except ValueError:
        return {}
    return dict(word.split("=", 1) for word in words if "=" in word)


def address(variables: Mapping[str, str]) -> tuple[str, int]:
    """Where it listens, as this host asks it: OLLAMA_HOST is HOST, HOST:PORT or a URL of these."""
    text = variables.get("OLLAMA_HOST", "").strip()
    scheme, found, rest = text.partition("://")
    host = (rest if found else text).partition("/")[0]
    default = {"http": 80, "https": 443}.get(scheme, PORT) if found else PORT
    name, colon, port = host.rpartition(":")
    if host.endswith("]") or not colon or not port.isdigit():
        name, port = host, str(default)
    if name in ("", "0.0.0.0", "[::]", "::"):
        name = "127.0.0.1"
    return name, int(port)


def home_of(user: str) -> str:
    """The home directory of a user; "" for one who is not known."""
    try:
        return pwd.getpwnam(user or "root").pw_dir
    except KeyError:
        return ""


def models_directory(unit: Mapping[str, str], home: Callable[[str], str] = home_of) -> str:
    """Where its models are; "" where that cannot be known."""
    variables = environment(unit)
    if variables.get("OLLAMA_MODELS"):
        return variables["OLLAMA_MODELS"]
    folder = variables.get("HOME") or home(unit.get("User", ""))
    return f"{folder}/.ollama/models" if folder else ""


def ask(url: str, path: str) -> dict[str, Any] | None:
    """What it answers; None where it does not. Never through a proxy: it is on this host."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url + path, timeout=TIMEOUT_SECONDS) as response:
            found = json.loads(response.read())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def survey(unit: Mapping[str, str], home: Callable[[str], str] = home_of) -> dict[str, Any]:
    """Everything about it. `found` says whether there is a unit, `answers` whether it serves."""
    host, port = address(environment(unit))
    url = f"http://{host}:{port}"
    found = unit.get("LoadState") == "loaded"
    version = ask(url, "/api/version") if found else None
    tags = (ask(url, "/api/tags") or {}) if version else {}
    loaded = (ask(url, "/api/ps") or {}) if version else {}
    return {
        "found": found,
        "active": unit.get("ActiveState") == "active",
        "enabled": unit.get("UnitFileState") == "enabled",
        "answers": version is not None,
        "version": str((version or {}).get("version", "")),
        "url": url,
        "port": port,
        "models_directory": models_directory(unit, home) if found else "",
        "models": [str(model["name"]) for model in tags.get("models") or []],
        "loaded": [dict(model) for model in loaded.get("models") or []],
    }
