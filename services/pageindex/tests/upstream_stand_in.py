"""A package ``pageindex`` that does what the name of its model says, to see what the engine makes of it."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = """
import json, os, pathlib, socket, subprocess, sys, time

class PageIndexAPIError(Exception):
    pass

class PageIndexLocalClient:
    def __init__(self, *, index_model, summary_concurrency, index_backend, storage_path):
        self.does = index_model.removeprefix("openai/")
        self.told = {"lane": summary_concurrency, "backend": index_backend, "environment": dict(os.environ)}

    def submit_document(self, path, mode):
        print("libraries print")
        assert pathlib.Path(path).read_bytes().startswith(b"%PDF-") and path.endswith(".pdf") and mode == "flash"
        if self.does == "refuses":
            raise PageIndexAPIError("Failed to submit document: found no layout structure")
        if self.does == "crashes":
            json.loads("{")
        if self.does == "dies":
            os._exit(9)
        if self.does == "hangs":
            subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
            time.sleep(60)
        if self.does == "calls home":
            socket.create_connection(("127.0.0.1", 9))
        if self.does == "asks names":
            socket.getaddrinfo("api.pageindex.ai", 443)
        return {"doc_id": "pi-1"}

    def get_tree(self, identifier, *, node_summary, include_text):
        last = 4711 if self.does == "misses" else 1
        told = json.dumps(self.told)
        return {"result": [{"title": told, "node_id": "0000", "start_index": 1, "end_index": last}]}
"""


def install(folder: Path) -> None:
    """Put it into *folder*, which is to be on the path; its version is the real one's."""
    (folder / "pageindex").mkdir()
    (folder / "pageindex" / "__init__.py").write_text(_PACKAGE)
    (folder / "pageindex-0.4.7.dist-info").mkdir()
    (folder / "pageindex-0.4.7.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: pageindex\nVersion: 0.4.7\n"
    )
