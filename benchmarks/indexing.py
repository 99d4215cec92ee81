"""Ours against upstream: documents indexed by the service's engine and by PageIndex's own, with the same model.

    .venv/bin/python -m benchmarks.indexing                                     # its own documents, a scripted model
    .venv/bin/python -m benchmarks.indexing manual.pdf --llm-url http://127.0.0.1:8000/v1
    .venv/bin/python -m benchmarks.indexing --upstream-python VENV/bin/python   # where pageindex is installed already

Without --upstream-python a temporary environment is made from services/pageindex/requirements-upstream.lock, which
takes minutes. A PDF that is given is indexed as it is and without its bookmarks, which say what there was to find.

Every indexing is a fresh process. Its seconds run from start to end, with the imports; its memory is the resident set
of its largest process. A heading counts as found where a section with its title, whatever the number before it, begins
on its page; of sections that upstream has merged the titles it merged count. Upstream's Flash mode is run, as its local
client does by default.

The exit status is 0 where ours refused nothing, made no more calls, took no longer and found no fewer headings, else 1.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.indexing_documents import Document, Heading, generated, given
from benchmarks.indexing_model import NAME, CountingModel

REPOSITORY = Path(__file__).resolve().parent.parent
SERVICE = REPOSITORY / "services" / "pageindex"
OURS, UPSTREAM = "ours", "upstream"
_LONGEST_SECONDS = 3600.0
_NUMBER = re.compile(r"(?:appendix\s+)?(?:[A-Z]|\d+)(?:\.\d+)*[.)]?\s+(?=\S)", re.IGNORECASE)

_UPSTREAM_PROGRAM = """
import json, sys
from pageindex import PageIndexAPIError, PageIndexLocalClient
file, out, url, model, concurrency = sys.argv[1:]
backend = {"api_base": url, "api_key": "none", "extra_body": {"chat_template_kwargs": {"enable_thinking": False}}}
client = PageIndexLocalClient(
    index_model="openai/" + model, index_backend=backend, summary_concurrency=int(concurrency), storage_path="store"
)
try:
    identifier = client.submit_document(file, mode="flash")["doc_id"]
    result = {"structure": client.get_tree(identifier, node_summary=True, include_text=False)["result"]}
except PageIndexAPIError as error:
    result = {"refused": str(error)}
json.dump(result, open(out, "w"))
"""


@dataclass(frozen=True)
class Run:
    """One indexing; *refused* is empty where there is a tree, *headings_found* a share of 0 to 1."""

    document: str
    engine: str
    seconds: float
    llm_calls: int
    most_at_once: int
    prompt_tokens: int
    memory_mib: float
    headings_found: float
    refused: str = ""


def measure(document: Document, engine: str, options: argparse.Namespace) -> Run:
    """Index *document* in a fresh process; raises nothing that is about the engine."""
    model = CountingModel(
        options.llm_url, headings=[heading.title for heading in document.headings], delay=options.delay
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if engine == OURS:
            out = folder / f"{document.file.stem}_tree.json"
            command = [sys.executable, "-m", "pageindex_home", "index", str(document.file), "--out", name]
        else:
            out = folder / "tree.json"
            command = [options.upstream_python, "-c", _UPSTREAM_PROGRAM, str(document.file), str(out)]
            command += [model.url, options.model, str(options.concurrency)]
        try:
            seconds, memory, said = _timed(command, folder, _environment(model.url, options))
        finally:
            model.close()
        result = json.loads(out.read_bytes()) if out.exists() else {"refused": said or "it ended without a tree"}
    return Run(
        document.name,
        engine,
        round(seconds, 1),
        model.calls,
        model.most_running,
        model.prompt_tokens,
        round(memory, 1),
        found(result.get("structure", []), document.headings),
        result.get("refused", ""),
    )


def _environment(url: str, options: argparse.Namespace) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(SERVICE / "src"),  # of no use to upstream, and no harm
        "PAGEINDEX_LLM_URL": url,
        "PAGEINDEX_LLM_MODEL": options.model,
        "PAGEINDEX_LLM_CONCURRENCY": str(options.concurrency),
    }


def _timed(command: Sequence[str], folder: Path, environment: dict[str, str]) -> tuple[float, float, str]:
    """Seconds, MiB of the largest process, and the last line it said."""
    with (folder / "said").open("w+b") as said:
        begun = time.monotonic()
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=said, stderr=said)
        while True:
            done, _, usage = os.wait4(process.pid, os.WNOHANG)
            seconds = time.monotonic() - begun
            if done:
                break
            if seconds > _LONGEST_SECONDS:
                process.kill()
            time.sleep(0.02)
        process.returncode = 0  # it is reaped already
        said.seek(0)
        lines = said.read().decode("utf-8", "replace").strip().splitlines()
    return seconds, usage.ru_maxrss / 1024, lines[-1] if lines else ""


def found(structure: Any, headings: Sequence[Heading]) -> float:
    """The share of *headings* that a section of the tree *structure* stands for."""
    named = set()
    for node in _walk(structure):
        for title in [node["title"], *(node.get("key_items") or [])]:
            named.add((_plain(title), node["start_index"]))
    hits = sum((_plain(heading.title), heading.page) in named for heading in headings)
    return round(hits / len(headings), 3)


def _walk(nodes: Any) -> Iterator[dict[str, Any]]:
    for node in nodes:
        yield node
        yield from _walk(node.get("nodes") or [])


def _plain(title: str) -> str:
    """Letters and digits alone, without a section number: bookmarks often lack the one on the page."""
    bare = _NUMBER.sub("", title.strip())
    return "".join(character for character in bare.casefold() if character.isalnum())


def missed(runs: Sequence[Run]) -> list[str]:
    """What ours is worse at than upstream, document by document, in sentences."""
    by_document: dict[str, dict[str, Run]] = {}
    for run in runs:
        by_document.setdefault(run.document, {})[run.engine] = run
    sentences = []
    for name, pair in by_document.items():
        ours, upstream = pair[OURS], pair[UPSTREAM]
        if ours.refused:
            sentences.append(f"{name}: refused: {ours.refused}")
        if upstream.refused:
            continue  # a refusal is quick, and costs no calls
        for what, mine, theirs in (
            ("seconds", ours.seconds, upstream.seconds),
            ("LLM calls", ours.llm_calls, upstream.llm_calls),
            ("headings missed", 1 - ours.headings_found, 1 - upstream.headings_found),
        ):
            if mine > theirs:
                sentences.append(f"{name}: {what} {mine:g}, upstream {theirs:g}")
    return sentences


def describe(runs: Sequence[Run]) -> str:
    """The runs as a table for people."""
    numbers = f"{'s':>7}{'calls':>7}{'at once':>9}{'tokens':>9}{'MiB':>7}{'headings':>10}"
    lines = [f"{'document':24}{'engine':10}{numbers}  refused"]
    for run in runs:
        lines.append(
            f"{run.document[:23]:24}{run.engine:10}{run.seconds:>7.1f}{run.llm_calls:>7}{run.most_at_once:>9}{run.prompt_tokens:>9}"
            f"{run.memory_mib:>7.0f}{run.headings_found:>10.0%}  {run.refused[:80]}"
        )
    return "\n".join(lines)


def _installed(folder: Path) -> str:
    """The Python of a new environment with upstream in it."""
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    python = str(folder / "bin" / "python")
    lock = SERVICE / "requirements-upstream.lock"
    install = [python, "-m", "pip", "install", "--quiet", "--require-hashes", "--only-binary=:all:", "-r", str(lock)]
    subprocess.run(install, check=True)
    return python


def main(arguments: Sequence[str] | None = None) -> int:
    """Index everything with both and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("files", nargs="*", type=Path, metavar="PDF", help="with bookmarks; beside those of its own")
    parser.add_argument("--llm-url", default="", help="OpenAI-compatible URL; a scripted model when left out")
    parser.add_argument("--model", default=NAME, help="name that it serves")
    parser.add_argument("--delay", type=float, default=0.5, help="seconds that the scripted model takes (0.5)")
    parser.add_argument("--concurrency", type=int, default=8, help="requests at a time (8; upstream: in each lane)")
    parser.add_argument("--upstream-python", help="Python of an environment with pageindex 0.4.7")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        try:
            documents = [document for file in options.files for document in given(file.absolute(), folder)]
        except ValueError as error:
            parser.error(str(error))
        documents += generated(folder)
        options.upstream_python = options.upstream_python or _installed(folder / "upstream")
        runs = [measure(document, engine, options) for document in documents for engine in (UPSTREAM, OURS)]
    worse = missed(runs)
    if options.json:
        print(json.dumps({"runs": [asdict(run) for run in runs], "missed": worse}, indent=2))
    else:
        print("\n".join([describe(runs), *worse]))
    return 1 if worse else 0


if __name__ == "__main__":
    sys.exit(main())
