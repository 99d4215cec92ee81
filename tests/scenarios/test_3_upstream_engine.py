"""PageIndex's own indexing in place of ours: built, asked, and taken back."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator

import pytest

from staging import host
from tests.acceptance import sample_document
from tests.scenarios.acceptance_run import run_acceptance
from tests.scenarios.ansible_run import converge
from tests.scenarios.conftest import StagingHost
from tests.scenarios.waiting import wait_for

pytestmark = pytest.mark.long

URL = "http://127.0.0.1:3000/v1/documents"


@pytest.fixture(scope="module")
def upstream(finished_host: StagingHost) -> Iterator[None]:
    """The service with upstream's engine; ours again afterwards."""
    converge("--tags", "pageindex", "-e", "pageindex_engine=upstream")
    yield
    converge("--tags", "pageindex")


def test_it_is_upstream_that_indexes(upstream: None) -> None:
    data = base64.b64encode(sample_document.make_document("48213")).decode()
    made = host.execute(
        f"echo {data} | base64 -d > /tmp/upstream.pdf && curl -sS -F file=@/tmp/upstream.pdf {URL}", check=True
    )
    document = f"{URL}/{json.loads(made.stdout)['id']}"

    def described() -> dict:
        return json.loads(host.execute(f"curl -sS {document}", check=True).stdout)

    try:
        wait_for("the index", lambda: described()["status"] in ("ready", "failed"), 300)
        found = described()
        assert (found["status"], found["engine"], found["warnings"]) == ("ready", "upstream-0.4.7", [])
    finally:
        host.execute(f"curl -sS -X DELETE {document}; rm /tmp/upstream.pdf")


def test_acceptance_suite_passes(upstream: None) -> None:
    run = run_acceptance("tests/acceptance/test_documents_api.py")
    assert run.returncode == 0, run.output
