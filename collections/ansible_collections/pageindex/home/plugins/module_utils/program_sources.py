"""The source files of a program of ours that runs on a host apart from Ansible."""

from __future__ import annotations

import ast
from pathlib import Path

_PREFIX = "ansible_collections.pageindex.home.plugins.module_utils"
_ROOT = Path(__file__).parent


def program_sources(entry: str, root: Path = _ROOT) -> dict[str, str]:
    """Everything of module_utils that a module imports, itself included: {path below the import root: source}.

    `entry` is a name below module_utils, such as "llm_switch.program". With the paths under a folder,
    `PYTHONPATH=<folder> python3 -m <prefix>.<entry>` runs it. Raises FileNotFoundError for a name that does not exist.
    """
    found: dict[str, str] = {}
    waiting = [entry]
    while waiting:
        path = _file(waiting.pop(), root)
        relative = f"{_PREFIX.replace('.', '/')}/{path.relative_to(root).as_posix()}"
        if relative in found:
            continue
        found[relative] = path.read_text(encoding="utf-8")
        waiting += _imported(found[relative], root)
        if path.name != "__init__.py" and (path.parent / "__init__.py").is_file() and path.parent != root:
            waiting.append(".".join(path.parent.relative_to(root).parts))
    return dict(sorted(found.items()))


def _file(name: str, root: Path) -> Path:
    path = root.joinpath(*name.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def _imported(source: str, root: Path) -> list[str]:
    """Names below module_utils that a source imports, wherever in it."""
    names = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith(_PREFIX):
            base = node.module.removeprefix(_PREFIX).lstrip(".")
            for alias in node.names:
                inner = f"{base}.{alias.name}".lstrip(".")
                # `from package import module`, or `from module import name`.
                names.append(inner if _file(inner, root).is_file() else base)
    return names
