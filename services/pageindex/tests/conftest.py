"""Fixtures: a scripted model server, and the service running against it in this process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_llm import FakeLanguageModel
from fastapi.testclient import TestClient
from pageindex_home.api import create_app
from pageindex_home.settings import Settings
from waiting import Upload, wait_for


@pytest.fixture
def llm() -> Iterator[FakeLanguageModel]:
    """A well-behaved model server with a context of 2048 tokens."""
    fake = FakeLanguageModel()
    yield fake
    fake.stop()


@pytest.fixture
def settings(llm: FakeLanguageModel, tmp_path: Path) -> Settings:
    """Settings that give up quickly."""
    return Settings(
        data_directory=tmp_path / "data",
        listen_address="127.0.0.1",
        llm_url=llm.url,
        llm_timeout_seconds=5.0,
        llm_patience_seconds=1.0,
        llm_query_patience_seconds=1.0,
        max_upload_bytes=2_000_000,
    )


@pytest.fixture
def client(settings: Settings) -> Iterator[TestClient]:
    """A client of the running service."""
    with TestClient(create_app(settings), raise_server_exceptions=False) as started:
        yield started


@pytest.fixture
def upload(client: TestClient) -> Upload:
    """``upload(data, name)``: upload and wait until it is ready or failed."""

    def run(data: bytes, name: str = "report.pdf", content_type: str = "") -> dict[str, Any]:
        part = (name, data, content_type) if content_type else (name, data)
        response = client.post("/v1/documents", files={"file": part})
        assert response.status_code in (200, 202), response.text
        return wait_for(client, response.json()["id"])

    return run
