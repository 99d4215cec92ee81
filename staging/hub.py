"""The models that the staging hub serves: made in the vLLM stand-in, so that this machine needs no PyTorch."""

from __future__ import annotations

from pathlib import Path

from staging import cache, images, settings, wheels
from staging.images import Image
from staging.steps import run, step

_PROGRAMS = settings.REPOSITORY / "staging" / "models"


def _make(image: Image, program: str, arguments: list[str], out: Path, sources: dict[Path, str]) -> None:
    """Run one of the programs in the stand-in image; it writes its model to /out."""
    images.build(image)
    command = ["docker", "run", "--rm", "--network", "none", "--entrypoint", "python3"]
    for path, target in {_PROGRAMS: "/programs", **sources}.items():
        command += ["--volume", f"{path}:{target}:ro"]
    command += ["--volume", f"{out}:/out", image.local_name, f"/programs/{program}", *arguments]
    run(command, log=settings.STATE / "logs" / f"{program}.log")


def models(image: Image) -> Path:
    """Return the hub's root: ORGANISATION/NAME/files for each model. `image` is the vLLM stand-in."""
    gguf = wheels.smollm2()
    programs = sorted(_PROGRAMS.glob("*.py"))

    def build(folder: Path) -> None:
        smollm2 = folder / settings.SMOLLM2_REPOSITORY
        smollm2.mkdir(parents=True)
        _make(image, "convert_smollm2.py", ["/gguf", "/out"], smollm2, {gguf: "/gguf"})
        tiny = folder / settings.TINY_QWEN3_REPOSITORY
        tiny.mkdir(parents=True)
        _make(image, "train_tiny_qwen3.py", ["/out"], tiny, {})

    with step("models of the staging hub"):
        return cache.cached("models", cache.content_hash(gguf.name, programs), build)
