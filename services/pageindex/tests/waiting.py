"""Uploads in tests, and waiting for what happens after them."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from fastapi.testclient import TestClient

Upload = Callable[..., dict[str, Any]]


def wait_for(client: TestClient, identifier: str, *statuses: str, seconds: float = 15.0) -> dict[str, Any]:
    """Poll a document until it has one of *statuses* (ready or failed when none is given)."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        document: dict[str, Any] = client.get(f"/v1/documents/{identifier}").json()
        if document["status"] in (statuses or ("ready", "failed")):
            return document
        time.sleep(0.03)
    raise AssertionError(f"still {document['status']} after {seconds} s: {document}")
