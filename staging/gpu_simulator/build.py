"""Compiles the simulated NVML library and the two programs beside it."""

from __future__ import annotations

import os
from pathlib import Path

from staging.steps import run

SOURCES = Path(__file__).resolve().parent
LIBRARY = "libnvidia-ml.so.1"


def build_library(output: Path, flags: str = "-O2 -g0") -> Path:
    """Build LIBRARY, `nvidia-smi` and `nvidia-persistenced` into `output` and return the library's path.

    `flags` go to the C compiler. Raises StepFailed when a tool is missing or the compiler refuses.
    """
    run(["make", "-C", str(SOURCES), f"OUT={output.resolve()}", f"CFLAGS={flags}", f"-j{os.cpu_count()}"])
    return output / LIBRARY
