"""The models in a host's models folder: which are needed, how large they are, and deleting the others.

The layout is that of jobs/model_files.py: <directory>/<repository>/<commit>/…, with refs/<revision> beside the commits.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible_collections.pageindex.home.plugins.module_utils.jobs.model_files import MANIFEST

_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class Model:
    """One revision of a repository on the disk."""

    repository: str
    commit: str
    path: Path
    size: int
    complete: bool
    needed: str = ""

    def as_dict(self) -> dict[str, Any]:
        """For Ansible; `line` is for people, `bytes` counts the disk's."""
        state = "" if self.complete else ", not complete"
        why = f": {self.needed}" if self.needed else ""
        return {
            "repository": self.repository,
            "commit": self.commit,
            "path": str(self.path),
            "bytes": self.size,
            "needed": self.needed,
            "line": f"{self.repository} @ {self.commit[:12]}: {self.size / 1e9:.2f} GB{state}{why}",
        }


def models(directory: str, needed: Mapping[str, str], fetched: Collection[str]) -> list[Model]:
    """Every revision on the disk. `needed` says of a path why it must stay; `fetched` are repositories on their way."""
    root = Path(directory)
    found = []
    for path in _revisions(root):
        repository = path.parent.relative_to(root).as_posix()
        why = needed.get(str(path), "") or ("is being fetched" if repository in fetched else "")
        found.append(Model(repository, path.name, path, _size(path), (path / MANIFEST).is_file(), why))
    return found


def needed_paths(state: Mapping[str, Any]) -> dict[str, str]:
    """Paths of models that deployments stand on, with the reason, from a state of llm_switch.store."""
    reasons = (("previous", "the model before"), ("switch", "a switch to it is under way"), ("current", "serves"))
    found = {}
    for name, reason in reasons:
        record = (state.get(name) or {}).get("record") or {}
        if record.get("path"):
            found[str(record["path"])] = reason
    return found


def delete(model: Model) -> None:
    """Delete a revision, its names, and folders that become empty. Raises OSError.

    The manifest goes first: what is left of an interrupted deletion is not taken for a complete model.
    """
    (model.path / MANIFEST).unlink(missing_ok=True)
    shutil.rmtree(model.path)
    repository = model.path.parent
    references = repository / "refs"
    for reference in sorted(references.rglob("*")) if references.is_dir() else []:
        if reference.is_file() and reference.read_text(encoding="utf-8").strip() == model.commit:
            reference.unlink()
    for folder in (references, repository, repository.parent):
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


def _revisions(root: Path) -> Iterator[Path]:
    """Folders named by a commit, one or two levels below the root."""
    for pattern in ("*/*", "*/*/*"):
        for path in sorted(root.glob(pattern)):
            if _COMMIT.fullmatch(path.name) and path.is_dir() and not path.is_symlink():
                yield path


def _size(path: Path) -> int:
    """Bytes on the disk below a folder."""
    return sum(
        os.lstat(os.path.join(folder, name)).st_blocks * 512 for folder, _, names in os.walk(path) for name in names
    )
