"""Every command line that the roles can build, through the real parsers of the default vLLM and of the next."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from ansible_collections.pageindex.home.plugins.module_utils.catalogue_files import (
    CATALOGUE_DIRECTORY,
    catalogue,
)
from staging import images, wheels
from tests.render.vllm_command_lines import command_lines

PROGRAM = Path(__file__).resolve().parents[1] / "render" / "parse_vllm_arguments.py"
DEFAULT = str(catalogue("versions")["vllm"]["version"])
NEXT = str(catalogue("versions")["vllm"]["next"])


def ask_parser(version: str, lines: dict[str, list[str]]) -> dict:
    """What the parser of a version says to the command lines: version, flags, refused."""
    command = ["docker", "run", "--rm", "--interactive", "--network", "none", "--entrypoint", "python3"]
    if version != DEFAULT:
        command += ["--volume", f"{wheels.vllm_next(version)}:/next:ro", "--env", "PYTHONPATH=/next"]
    image = images.vllm(wheels.vllm())
    answer = subprocess.run(
        [*command, image.local_name, "-c", PROGRAM.read_text(encoding="utf-8")],
        input=json.dumps(lines),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert answer.returncode == 0, answer.stdout + answer.stderr
    return json.loads(answer.stdout.splitlines()[-1])


@pytest.mark.parametrize("version", [DEFAULT, NEXT])
def test_every_command_line_parses(surroundings: None, version: str) -> None:
    lines = command_lines(version)
    answer = ask_parser(version, {**lines, "a removed flag": ["some/model", "--enable-reasoning"]})
    assert answer["version"].startswith(version)
    # The removed flag shows that the parser was really asked.
    assert set(answer["refused"]) == {"a removed flag"}, answer["refused"]
    listed = json.loads((CATALOGUE_DIRECTORY / "vllm" / f"flags_{version}.json").read_text(encoding="utf-8"))
    assert sorted(listed) == sorted(answer["flags"]), "catalogue/vllm does not list what this version takes"
