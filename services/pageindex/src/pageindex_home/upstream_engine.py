"""PageIndex's own indexing (PyPI ``pageindex``, its Flash mode) as an engine beside ours.

It runs in a process of its own (upstream_child.py), because it blocks, brings LiteLLM with it and may never end. What
it refuses, fails at or does not read is indexed by the engine given as *fallback*: no readable document is refused.
"""

from __future__ import annotations

import json
import logging
import tempfile
from importlib import metadata
from pathlib import Path
from typing import Any

from . import child, tree
from .engine import Engine, Index, Progress
from .extraction import Extract
from .journal import Journal
from .llm import NO_FALLBACK
from .settings import PREFIX, Settings, SettingsError
from .text import first_sentences, tidy

log = logging.getLogger(__name__)

_KEY = "upstream"
_LONGEST_REASON = 300
# Python 3.13 reads it: upstream starts a process per core for a long document, each of them some 100 MiB.
_ENVIRONMENT = {"PYTHON_CPU_COUNT": "4"}
# Upstream asks ten times, a second apart; within each, the client waits about this long between tries.
_TRIES, _BACK_OFF_SECONDS = 10, 8.0


def installed_version() -> str:
    """The version of the package ``pageindex``.

    Raises:
        SettingsError: it is not installed.
    """
    try:
        return metadata.version("pageindex")
    except metadata.PackageNotFoundError as error:
        raise SettingsError(
            f"{PREFIX}ENGINE is 'upstream', but the package pageindex is not installed. Set pageindex_engine: upstream "
            "in the inventory and run site.yml --tags pageindex; without Ansible: "
            "pip install --require-hashes -r services/pageindex/requirements-upstream.lock"
        ) from error


class UpstreamEngine:
    """Upstream's tree where there is one, *fallback*'s with a warning where not."""

    def __init__(self, settings: Settings, fallback: Engine) -> None:
        self.name = f"upstream-{installed_version()}"
        self._settings = settings
        self._fallback = fallback

    async def build(
        self, extract: Extract, progress: Progress, journal: Journal | None = None, original: Path | None = None
    ) -> Index:
        """See :class:`~pageindex_home.engine.Engine`."""
        journal = journal if journal is not None else Journal()
        if extract.unit != "page" or original is None:
            reason = "it reads PDF files only"
        else:
            kept = journal.recall(_KEY)
            if kept is None:
                progress(_KEY, 0, 1)
                kept = await self._index(original)
                await journal.keep(_KEY, kept)
                progress(_KEY, 1, 1)
            try:
                return Index(converted(kept["structure"], extract))
            except KeyError:
                reason = str(kept["refused"])
            except ValueError as error:
                reason = f"its tree does not fit the document: {error}"
        log.info("%s: %s; %s goes on", self.name, reason, self._fallback.name)
        index = await self._fallback.build(extract, progress, journal, original)
        index.warnings.insert(0, f"{self.name}: {reason}; indexed by {self._fallback.name} instead")
        index.engine = self._fallback.name
        return index

    async def _index(self, original: Path) -> dict[str, Any]:
        """``{"structure"}``, or ``{"refused"}`` with the reason; raises nothing that is about the document."""
        limit = self._settings.engine_timeout_seconds
        with tempfile.TemporaryDirectory(prefix="upstream-") as folder:
            request = {
                "path": str(original.absolute()),
                "folder": folder,
                "memory_bytes": self._settings.extraction_memory_bytes,
                "client": client_arguments(self._settings),
            }
            try:
                output, status = await child.outcome(
                    "pageindex_home.upstream_child", request, timeout=limit, environment=_ENVIRONMENT
                )
            except TimeoutError:
                return {"refused": f"it took longer than {limit:.0f} s and was stopped"}
        try:
            result: dict[str, Any] = json.loads(output)
        except ValueError:
            return {"refused": f"it ended with status {status} and no result"}
        if "refused" in result:
            return {"refused": tidy(result["refused"])[:_LONGEST_REASON]}
        return result


def client_arguments(settings: Settings) -> dict[str, Any]:
    """What upstream's local client is made with: our model server, our bounds, and no key for upstream's cloud."""
    # Expansion and summaries run side by side, each with this many requests.
    lane = max(1, settings.llm_concurrency // 2)
    return {
        "index_model": f"openai/{settings.llm_model}",
        "summary_concurrency": lane,
        "index_backend": {
            "api_base": settings.llm_url.rstrip("/"),
            "api_key": settings.llm_api_key or "none",
            "timeout": settings.llm_timeout_seconds + settings.llm_wait_seconds,
            # Upstream alone gives up after some ten seconds without a server.
            "max_retries": round(settings.llm_patience_seconds / _TRIES / _BACK_OFF_SECONDS),
            "extra_headers": NO_FALLBACK,
            "extra_body": settings.llm_extra_body,
        },
    }


def converted(structure: Any, extract: Extract) -> list[tree.Node]:
    """Upstream's tree in our format; a node that has no summary gets its first sentences.

    Raises:
        ValueError: it does not fit the document.
    """
    nodes = tree.imported(structure, extract.last)
    for node in tree.walk(nodes):
        if not node["summary"]:
            node["summary"] = first_sentences(extract.text_between(node["start_index"], node["end_index"]))
    return nodes
