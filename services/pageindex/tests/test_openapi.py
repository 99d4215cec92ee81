"""The OpenAPI document and the service say the same: hundreds of requests, sensible and not, and no unhandled error."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import hypothesis
import pytest
import schemathesis
from fake_llm import FakeLanguageModel
from running import finished, service, upload
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from test_resume import MARKDOWN

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]


@pytest.fixture(scope="module")
def base_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A service with one document that is ready."""
    llm = FakeLanguageModel()
    folder: Path = tmp_path_factory.mktemp("openapi")
    with service(folder, llm) as (_, client):
        finished(client, upload(client, "garden.md", MARKDOWN))
        yield str(client.base_url)
    llm.stop()


def test_every_answer_is_one_that_the_document_names(base_url: str) -> None:
    described = schemathesis.openapi.from_url(f"{base_url}/openapi.json")
    operations = [found.ok() for found in described.get_all_operations()]
    assert len(operations) >= 15
    for operation in operations:

        @hypothesis.given(case=operation.as_strategy())
        @hypothesis.settings(
            max_examples=25,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(hypothesis.HealthCheck),
        )
        def meets(case: Any) -> None:
            case.call_and_validate(checks=CHECKS, timeout=30)

        meets()


def test_every_endpoint_names_its_errors(base_url: str) -> None:
    document = httpx.get(f"{base_url}/openapi.json").json()
    assert "/v1/chat/completions" in document["paths"]
    for path, operations in document["paths"].items():
        for operation in operations.values():
            [media_type] = operation["responses"]["4XX"]["content"]
            wanted = (
                "application/json" if path in ("/v1/chat/completions", "/v1/models") else "application/problem+json"
            )
            assert media_type == wanted, path


def test_another_method_is_told_which_there_are(base_url: str) -> None:
    refused = httpx.put(f"{base_url}/v1/documents")
    assert (refused.status_code, refused.headers["allow"]) == (405, "GET, POST")
