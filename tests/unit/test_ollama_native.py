"""An Ollama that somebody else installed: found by its unit, asked for the rest."""

from __future__ import annotations

from pathlib import Path

import pytest

from ansible_collections.pageindex.home.plugins.module_utils import ollama_native
from tests.unit.ollama_server import ollama

UNIT = """LoadState=loaded
ActiveState=active
UnitFileState=enabled
Environment=PATH=/usr/bin:/bin "OLLAMA_MODELS=/srv/my models" OLLAMA_HOST=0.0.0.0
User=ollama
"""


def test_a_unit_is_read() -> None:
    unit = ollama_native.parse_unit(UNIT)
    assert (unit["LoadState"], unit["User"]) == ("loaded", "ollama")
    assert ollama_native.environment(unit)["OLLAMA_MODELS"] == "/srv/my models"
    assert ollama_native.environment({"Environment": 'BROKEN="'}) == {}


def test_what_stands_in_the_units_files_counts_too(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_text('# OLLAMA_HOST=wrong\nOLLAMA_MODELS="/mnt/my models"\n\n; no\n')
    other.write_text("OLLAMA_HOST=127.0.0.1:11500\nOLLAMA_ORIGINS='broken\n")
    files = "".join(f"EnvironmentFiles={path} (ignore_errors=yes)\n" for path in (one, tmp_path / "none", other))
    unit = ollama_native.parse_unit(UNIT + files)
    assert ollama_native.models_directory(unit) == "/mnt/my models"
    assert ollama_native.address(ollama_native.environment(unit)) == ("127.0.0.1", 11500)


@pytest.mark.parametrize(
    ("host", "found"),
    [
        ("", ("127.0.0.1", 11434)),
        ("0.0.0.0", ("127.0.0.1", 11434)),
        ("0.0.0.0:8080", ("127.0.0.1", 8080)),
        (":12000", ("127.0.0.1", 12000)),
        ("http://192.168.1.5:11434/", ("192.168.1.5", 11434)),
        ("http://ai.lan", ("ai.lan", 80)),
        ("[::]:11434", ("127.0.0.1", 11434)),
    ],
)
def test_where_it_listens(host: str, found: tuple[str, int]) -> None:
    assert ollama_native.address({"OLLAMA_HOST": host}) == found


def test_where_its_models_are() -> None:
    homes = {"ollama": "/usr/share/ollama", "": "/root"}.__getitem__
    assert ollama_native.models_directory(ollama_native.parse_unit(UNIT)) == "/srv/my models"
    assert ollama_native.models_directory({"User": "ollama"}, homes) == "/usr/share/ollama/.ollama/models"
    assert ollama_native.models_directory({}, homes) == "/root/.ollama/models"
    assert ollama_native.models_directory({"User": "nobody-of-this-name"}) == ""


def test_one_that_serves_is_asked(tmp_path: Path) -> None:
    with ollama(tmp_path) as served:
        served.server.wait(10)
        served.server.pull("llama3.2", lambda *_, **__: None)
        unit = ollama_native.parse_unit(UNIT) | {"Environment": f"OLLAMA_HOST=127.0.0.1:{served.port}"}
        found = ollama_native.survey(unit, lambda _: "/usr/share/ollama")
    assert found["found"] and found["active"] and found["enabled"] and found["answers"]
    assert (found["url"], found["port"]) == (served.url, served.port)
    assert [name.partition(":")[0] for name in found["models"]] == ["llama3.2"]
    assert found["version"] and found["models_directory"] == "/usr/share/ollama/.ollama/models"


def test_without_a_unit_there_is_none_and_nobody_is_asked() -> None:
    found = ollama_native.survey({"LoadState": "not-found", "ActiveState": "inactive"})
    assert not any(found[name] for name in ("found", "active", "enabled", "answers", "models", "models_directory"))


def test_one_that_is_stopped_is_found_and_does_not_answer(tmp_path: Path) -> None:
    with ollama(tmp_path) as served:
        port = served.port
    unit = {
        "LoadState": "loaded",
        "ActiveState": "inactive",
        "Environment": f"OLLAMA_HOST=127.0.0.1:{port}",
        "User": "",
    }
    found = ollama_native.survey(unit)
    assert found["found"] and not found["active"] and not found["answers"]
