"""The image's NCCL step with the real wheels of PyPI: too old is patched, newer is left alone, cu12 over cu13 refused.

The real Dockerfile and program are built by this machine's engine on small base images that differ in one
wheel; the wheels answer `ncclGetVersion` without a GPU.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ansible_collections.pageindex.home.plugins.module_utils.catalogue_files import catalogue
from staging import cache, images, settings
from staging.steps import run

TEMPLATES = settings.REPOSITORY / "templates" / "vllm"
PREFIX = f"{settings.IMAGE_PREFIX}/nccl-test"
FLOOR = str(catalogue("versions")["nccl"]["minimum"])
TOO_OLD = ("nvidia-nccl-cu12", "2.26.2")
NEWER = ("nvidia-nccl-cu13", "2.29.7")
REPORT = "cat /etc/pageindex-home/nccl.json; python3 /opt/pageindex-home/container_report.py"


def wheels() -> Path:
    """A folder that pip takes for a package index, with the three wheels; kept in the cache."""
    wanted = (TOO_OLD, ("nvidia-nccl-cu12", FLOOR), NEWER)

    def build(folder: Path) -> None:
        for name, version in wanted:
            target = folder / name
            run(
                [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps",
                 "--only-binary=:all:", "--python-version", "3.13", "--platform", "manylinux_2_18_x86_64",
                 "--platform", "manylinux2014_x86_64", "--dest", str(target), f"{name}=={version}"],
                log=settings.STATE / "logs" / "pip-download-nccl.log",
            )  # fmt: skip
            links = "".join(f'<a href="{path.name}">{path.name}</a>\n' for path in sorted(target.glob("*.whl")))
            (target / "index.html").write_text(f"<!DOCTYPE html>\n{links}", encoding="utf-8")

    return cache.cached("wheels-nccl", cache.content_hash(repr(wanted)), build)


def base_image(package: str, version: str) -> str:
    """An image with Python and one NCCL wheel, and the wheels to install another from."""
    name = f"{PREFIX}-base:{package}-{version}"
    if subprocess.run(["docker", "image", "inspect", name], capture_output=True, check=False).returncode == 0:
        return name
    images.build(images.python())
    command = (
        "cp -r /wheels /index && python3 -m pip install --no-deps --no-cache-dir --break-system-packages"
        f" --index-url file:///index {package}=={version}"
    )
    container = run(
        ["docker", "create", "--network", "none", "--volume", f"{wheels()}:/wheels:ro", "--entrypoint", "sh",
         images.python().local_name, "-c", command]
    ).strip()  # fmt: skip
    try:
        run(["docker", "start", "--attach", container])
        run(["docker", "commit", "--change", 'ENTRYPOINT ["sh", "-c"]', container, name])
    finally:
        subprocess.run(["docker", "rm", "--force", container], capture_output=True, check=False)
    return name


def build(folder: Path, base: tuple[str, str], package: str = "") -> tuple[int, str, str]:
    """Build the vLLM role's Dockerfile on a base; returns exit status, output, and the image's name."""
    for file in ("nccl_check.py", "container_report.py"):
        shutil.copy(TEMPLATES / file, folder)
    # This machine's builder may not know secrets; here there is no proxy that would need them.
    text, mounts = re.subn(r"--mount=type=secret,\S+ ", "", (TEMPLATES / "Dockerfile.j2").read_text(encoding="utf-8"))
    assert mounts == 2, "the Dockerfile has other mounts than this test takes away"
    (folder / "Dockerfile").write_text(text, encoding="utf-8")
    name = f"{PREFIX}:{base[0]}-{base[1]}-{package or 'own'}"
    arguments = {
        "BASE_IMAGE": base_image(*base),
        "NCCL_MINIMUM": FLOOR,
        "NCCL_VERSION": FLOOR,
        "NCCL_PACKAGE": package,
        "PIP_INDEX_URL": "file:///index",
    }
    command = ["docker", "build", "--network", "none", "--force-rm", "--no-cache", "--tag", name]
    for key, value in arguments.items():
        command += ["--build-arg", f"{key}={value}"]
    built = subprocess.run([*command, str(folder)], capture_output=True, text=True, check=False, timeout=600)
    return built.returncode, built.stdout + built.stderr, name


def look_inside(image: str) -> tuple[dict, dict]:
    """The record that the build wrote, and what the library itself says in a running container."""
    output = run(["docker", "run", "--rm", "--network", "none", image, REPORT])
    decoder = json.JSONDecoder()
    record, end = decoder.raw_decode(output)
    return record, decoder.raw_decode(output[end:].strip())[0]


@pytest.fixture(autouse=True)
def no_images_left(surroundings: None) -> object:
    """Take the built images away again; the bases stay for the next run."""
    yield
    listed = run(["docker", "image", "ls", "--quiet", PREFIX]).split()
    if listed:
        run(["docker", "image", "rm", "--force", *sorted(set(listed))])


def test_too_old_is_patched(tmp_path: Path) -> None:
    status, output, image = build(tmp_path, TOO_OLD)
    assert status == 0, output
    record, report = look_inside(image)
    assert (record["found"], record["installed"], record["decision"]) == (TOO_OLD[1], FLOOR, "patched")
    assert record["package"] == TOO_OLD[0]
    assert report["nccl"]["version"] == FLOOR


def test_newer_is_left_alone(tmp_path: Path) -> None:
    status, output, image = build(tmp_path, NEWER)
    assert status == 0, output
    record, report = look_inside(image)
    assert (record["found"], record["installed"], record["decision"]) == (NEWER[1], NEWER[1], "untouched")
    assert report["nccl"]["version"] == NEWER[1]


def test_cu12_over_cu13_is_refused(tmp_path: Path) -> None:
    status, output, image = build(tmp_path, NEWER, package="nvidia-nccl-cu12")
    assert status != 0
    assert "refused" in output and "nvidia-nccl-cu12" in output and "nvidia-nccl-cu13" in output, output
    inspected = subprocess.run(["docker", "image", "inspect", image], capture_output=True, check=False)
    assert inspected.returncode != 0, "a refused image must not exist"
