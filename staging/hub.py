"""The models that the staging hub serves: made in the vLLM stand-in, so that this machine needs no PyTorch."""

from __future__ import annotations

import json
import os
from pathlib import Path

from staging import cache, images, settings, wheels
from staging.images import Image
from staging.models import make_garbage
from staging.steps import run, step

_PROGRAMS = settings.REPOSITORY / "staging" / "models"
_README = "# Staging's own\n\nThe files of {original} under a second name. Nobody publishes this repository.\n"


def _make(image: Image, program: str, arguments: list[str], out: Path, sources: dict[Path, str]) -> None:
    """Run one of the programs in the stand-in image; it writes its model to /out."""
    images.build(image)
    command = ["docker", "run", "--rm", "--network", "none", "--entrypoint", "python3"]
    for path, target in {_PROGRAMS: "/programs", **sources}.items():
        command += ["--volume", f"{path}:{target}:ro"]
    command += ["--volume", f"{out}:/out", image.local_name, f"/programs/{program}", *arguments]
    run(command, log=settings.STATE / "logs" / f"{program}.log")


def add_own(root: Path) -> None:
    """Add the models that only staging has to a hub's root that holds SmolLM2 and the trained one."""
    _link(root / settings.SMOLLM2_REPOSITORY, root / settings.SECOND_REPOSITORY)
    tiny = root / settings.TINY_QWEN3_REPOSITORY
    _link(tiny, root / settings.GATED_REPOSITORY)
    garbage = root / settings.GARBAGE_REPOSITORY
    garbage.mkdir(parents=True)
    make_garbage.make(tiny, garbage)
    # Which repositories ask for which token; the depot's server reads it.
    (root / "gated.json").write_text(json.dumps({settings.GATED_REPOSITORY: settings.GATED_TOKEN}))


def _link(original: Path, folder: Path) -> None:
    """The same files under another name, on the disk once; the README gives the repository a commit of its own."""
    folder.mkdir(parents=True)
    for path in original.iterdir():
        os.link(path, folder / path.name)
    name = original.relative_to(original.parent.parent)
    (folder / "README.md").write_text(_README.format(original=name), encoding="utf-8")


def models(image: Image) -> Path:
    """Return the hub's root: ORGANISATION/NAME/files for each model. `image` is the vLLM stand-in."""
    gguf = wheels.smollm2()
    # This file says what is made of what the programs make.
    programs = [*sorted(_PROGRAMS.glob("*.py")), Path(__file__)]

    def build(folder: Path) -> None:
        smollm2 = folder / settings.SMOLLM2_REPOSITORY
        smollm2.mkdir(parents=True)
        _make(image, "convert_smollm2.py", ["/gguf", "/out"], smollm2, {gguf: "/gguf"})
        tiny = folder / settings.TINY_QWEN3_REPOSITORY
        tiny.mkdir(parents=True)
        _make(image, "train_tiny_qwen3.py", ["/out"], tiny, {})
        add_own(folder)

    with step("models of the staging hub"):
        return cache.cached("models", cache.content_hash(gguf.name, programs), build)
