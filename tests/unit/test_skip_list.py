"""The rule that a skip comes from the list, shown on small test runs of their own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.skip_list import objection, read_skip_list

REPOSITORY = Path(__file__).resolve().parents[2]


def test_listed_skip_in_a_listed_test_passes() -> None:
    name, entry = next(iter(read_skip_list().items()))
    assert objection(entry.tests[0] + "[ansible://some-host]", f"Skipped: [skip-list: {name}] …") is None


@pytest.mark.parametrize(
    ("nodeid", "message", "says"),
    [
        ("tests/unit/test_a.py::test_b", "Skipped: no time", "does not come from"),
        ("tests/unit/test_a.py::test_b", "[skip-list: no-such-name] x", "does not list"),
        ("tests/unit/test_a.py::test_b", "[skip-list: engine-without-cuda] x", "does not list this test"),
    ],
)
def test_any_other_skip_is_objected_to(nodeid: str, message: str, says: str) -> None:
    found = objection(nodeid, message)
    assert found is not None and says in found


@pytest.mark.parametrize(
    "body",
    [
        "def test_skips():\n    pytest.skip('not today')\n",
        "@pytest.mark.skip(reason='later')\ndef test_skips():\n    pass\n",
        "pytest.importorskip('a_package_that_does_not_exist')\n",
    ],
)
def test_an_unlisted_skip_fails_the_run(tmp_path: Path, body: str) -> None:
    (tmp_path / "conftest.py").write_text((REPOSITORY / "conftest.py").read_text())
    (tmp_path / "test_sample.py").write_text("import pytest\n" + body)
    finished = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(tmp_path), "."],
        cwd=tmp_path,
        env={"PYTHONPATH": str(REPOSITORY), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode != 0, finished.stdout
    assert "does not come from skips.yml" in finished.stdout
