"""What is deployed, what was before, and the switch under way: one JSON file, replaced atomically.

    <directory>/state.json                  current, previous, switch, last (see `State`)
    <directory>/deployments/<id>/<file>     the files of a deployment, as they lie in the service's folder
    <directory>/observed.json               what starts of each server have told (memory, speed)

Standard library and module_utils.files only: the program on the host reads it too.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ansible_collections.pageindex.home.plugins.module_utils.files import write_atomically

_ID = re.compile(r"[0-9a-f]{12,64}")


class StoreError(RuntimeError):
    """The state cannot be read; the message says which file and what to do."""


@dataclass
class State:
    """`current` and `previous` are {"id", "record", "servers": [{"service", "gpus"}], "since"} or None.

    `switch` is the switch under way: {"id", "model", "ticket", "phase", "boot", "started", "record", "servers",
    "steps", "begun" (a number of steps), "reached", "prediction", "settings", "timeline"}; None when there is none.
    `last` tells how the last one ended: {"ok", "model", "ticket", "reason", "serves", "lines", …}.
    """

    current: dict[str, Any] | None = None
    previous: dict[str, Any] | None = None
    switch: dict[str, Any] | None = None
    last: dict[str, Any] | None = None


class Store:
    """The folder of one server's deployments, such as /var/lib/pageindex-home/llm."""

    def __init__(self, directory: str) -> None:
        self.directory = Path(directory)
        self._state = self.directory / "state.json"
        self._observed = self.directory / "observed.json"

    def read(self) -> State:
        """The state; an empty one where nothing was ever deployed. Raises StoreError."""
        found = self._json(self._state, {})
        return State(**{name: found.get(name) for name in ("current", "previous", "switch", "last")})

    def write(self, state: State) -> None:
        """Replace the state in one step. Raises OSError."""
        self._write(self._state, json.dumps(asdict(state), indent=2) + "\n", 0o644)

    def observed(self) -> list[dict[str, Any]]:
        """What starts have told, the oldest first. Raises StoreError."""
        found = self._json(self._observed, [])
        return found if isinstance(found, list) else []

    def keep_observation(self, entry: Mapping[str, Any]) -> None:
        """Put an entry in the place of the one of the same server, as the newest. Raises OSError, StoreError."""
        others = [one for one in self.observed() if one.get("server") != entry.get("server")]
        self._write(self._observed, json.dumps([*others, dict(entry)], indent=2) + "\n", 0o644)

    def keep_files(self, identifier: str, files: Mapping[str, str]) -> None:
        """Store the files of a deployment. They may hold an owner's secrets (environment). Raises OSError."""
        folder = self._folder(identifier)
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for name, content in files.items():
            self._write(folder / name, content, 0o600)
        for extra in set(os.listdir(folder)) - set(files):
            (folder / extra).unlink()

    def files(self, identifier: str) -> dict[str, str]:
        """The files of a deployment by name; empty where they are gone."""
        folder = self._folder(identifier)
        if not folder.is_dir():
            return {}
        return {path.name: path.read_text(encoding="utf-8") for path in sorted(folder.iterdir()) if path.is_file()}

    def tidy(self) -> None:
        """Delete the files of deployments that are neither current, nor previous, nor on their way."""
        state = self.read()
        named = {one["id"] for one in (state.current, state.previous, state.switch) if one}
        folder = self.directory / "deployments"
        for name in os.listdir(folder) if folder.is_dir() else []:
            if name not in named:
                shutil.rmtree(folder / name, ignore_errors=True)

    @contextmanager
    def locked(self, name: str, wait: bool) -> Iterator[bool]:
        """Hold one of this store's locks while the block runs; yields whether it could be had. Raises OSError."""
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o755)
        with (self.directory / f".{name}").open("w", encoding="utf-8") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                yield False
                return
            yield True

    def _folder(self, identifier: str) -> Path:
        if not _ID.fullmatch(identifier):
            raise StoreError(f"{identifier!r} is not the id of a deployment")
        return self.directory / "deployments" / identifier

    def _json(self, path: Path, default: Any) -> Any:
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return default
        except ValueError as error:
            raise StoreError(
                f"{path} is not JSON ({error}); it is written whole, so the disk or a hand has changed it. Move it "
                f"away and run `ansible-playbook site.yml --tags vllm`: the model is then deployed as if for the "
                f"first time"
            ) from error

    def _write(self, path: Path, text: str, mode: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
        write_atomically(str(path), text.encode(), mode, os.geteuid(), os.getegid())
