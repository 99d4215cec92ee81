"""Upstream's indexing in this process: a request as JSON on standard input, the tree as JSON on standard output.

``{"path", "folder", "memory_bytes", "client"}`` → ``{"structure"}``, or ``{"refused": why}`` for whatever went wrong.
Upstream keeps its files in *folder*, and reaches nothing but the model server of ``client["index_backend"]``.
"""

from __future__ import annotations

import json
import os
import resource
import socket
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit


def main() -> None:
    """Do what the request on standard input tells."""
    request = json.load(sys.stdin)
    answers = os.fdopen(os.dup(1), "w")
    # What libraries print must not end up in the answer.
    os.dup2(2, 1)
    resource.setrlimit(resource.RLIMIT_AS, (request["memory_bytes"], request["memory_bytes"]))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.chdir(request["folder"])
    try:
        result = {"structure": index(Path(request["path"]), request["client"])}
    except MemoryError:
        result = {"refused": f"it needs more than {request['memory_bytes'] // 2**20} MiB of memory"}
    except Exception as error:  # whatever it is, the document is indexed without upstream
        result = {"refused": _reason(error)}
    json.dump(result, answers)
    answers.close()


def index(path: Path, client: dict[str, Any]) -> Any:
    """Upstream's tree of the PDF at *path*, summaries included. Raises whatever upstream raises."""
    os.environ.update(
        HOME=os.getcwd(),
        LITELLM_LOCAL_MODEL_COST_MAP="True",  # else its import downloads prices
        HF_HUB_OFFLINE="1",  # else a tokenizer is looked for by the name of the model
    )
    reach_only(client["index_backend"]["api_base"])
    from pageindex import PageIndexLocalClient

    # Ours has no suffix, and upstream goes by it.
    named = Path("document.pdf").absolute()
    named.symlink_to(path)
    upstream = PageIndexLocalClient(storage_path="store", **client)
    submitted = upstream.submit_document(str(named), mode="flash")
    tree = upstream.get_tree(submitted["doc_id"], node_summary=True, include_text=False)
    return tree["result"]


def reach_only(url: str) -> None:
    """Refuse connections of Python code in this process to anything but the host and port of *url*, from now on."""
    parts = urlsplit(url)
    host, port = parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)

    def guard(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "socket.getaddrinfo" and arguments[0] not in (host, host and host.encode()):
            raise PermissionError(f"{arguments[0]} is not the model server; nothing else may be reached")
        if event in ("socket.connect", "socket.sendto") and arguments[0].family != socket.AF_UNIX:
            address = arguments[1]
            if address[1] != port or address[0] not in {found[4][0] for found in socket.getaddrinfo(host, port)}:
                raise PermissionError(f"{address[0]}:{address[1]} is not the model server; nothing else may be reached")

    sys.addaudithook(guard)


def _reason(error: Exception) -> str:
    """What upstream said, without its own preamble."""
    name, text = type(error).__name__, str(error)
    if name == "PageIndexAPIError":
        return text.removeprefix("Failed to submit document: ")
    return f"{name}: {text}"


if __name__ == "__main__":
    main()
