"""Make a model that loads, starts and says one thing for ever, out of a trained one.

Architecture, tokenizer and sizes stay; nothing of what was learned does. Every token is embedded as ones, every
layer adds nothing, and the output knows one token, whatever was asked and at whatever temperature. The weights are
rewritten as bytes (the format is at https://github.com/huggingface/safetensors#format), so neither PyTorch nor a
second training is needed.
"""

from __future__ import annotations

import json
import shutil
import struct
from pathlib import Path

WORD = "!"
EMBEDDING, OUTPUT, NORM = "model.embed_tokens.weight", "lm_head.weight", "model.norm.weight"
# 0.0 and 1.0 in bfloat16, little-endian.
_ZERO, _ONE = b"\x00\x00", b"\x80\x3f"


def make(trained: Path, out: Path) -> None:
    """Write the garbage model of a trained one (bfloat16, tied embeddings) into the folder `out`.

    Raises ValueError where the weights are of another kind.
    """
    for path in trained.iterdir():
        if path.name not in ("config.json", "model.safetensors"):
            shutil.copy(path, out)
    config = json.loads((trained / "config.json").read_text(encoding="utf-8"))
    # The trained one uses the embedding for the output as well; here the two differ.
    (out / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": False}, indent=2), encoding="utf-8")
    vocabulary = json.loads((trained / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"]
    shapes = _shapes(trained / "model.safetensors")
    rows, width = shapes[EMBEDDING]
    tensors = {name: _filled(_ONE if name in (EMBEDDING, NORM) else _ZERO, shape) for name, shape in shapes.items()}
    word = vocabulary[WORD]
    shapes[OUTPUT] = shapes[EMBEDDING]
    tensors[OUTPUT] = _ZERO * width * word + _ONE * width + _ZERO * width * (rows - word - 1)
    _write(out / "model.safetensors", shapes, tensors)


def _shapes(path: Path) -> dict[str, list[int]]:
    """The shape of every tensor. Raises ValueError for an output of its own, or another type than bfloat16."""
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
    tensors = {name: entry for name, entry in header.items() if name != "__metadata__"}
    others = {name: entry["dtype"] for name, entry in tensors.items() if entry["dtype"] != "BF16" or name == OUTPUT}
    if others or not {EMBEDDING, NORM} <= set(tensors):
        raise ValueError(f"{path}: expected bfloat16 weights with tied embeddings, found {others or sorted(tensors)}")
    return {name: entry["shape"] for name, entry in tensors.items()}


def _filled(value: bytes, shape: list[int]) -> bytes:
    size = 1
    for length in shape:
        size *= length
    return value * size


def _write(path: Path, shapes: dict[str, list[int]], tensors: dict[str, bytes]) -> None:
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    position = 0
    for name, data in tensors.items():
        end = position + len(data)
        header[name] = {"dtype": "BF16", "shape": shapes[name], "data_offsets": [position, end]}
        position = end
    text = json.dumps(header).encode()
    # What follows the header begins at a multiple of eight.
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(tensors.values()))
