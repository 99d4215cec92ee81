"""The models that only the staging hub has: linked, not copied; and one whose output knows one token."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest

from staging import hub, settings
from staging.depot import server
from staging.models import make_garbage

SHAPES = {"model.embed_tokens.weight": [6, 4], "model.layers.0.mlp.up_proj.weight": [3, 4], "model.norm.weight": [4]}


def write_model(folder: Path, dtype: str = "BF16", shapes: dict[str, list[int]] = SHAPES) -> Path:
    """A model as transformers saves one, its weights all 0x1234."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "qwen3", "tie_word_embeddings": True}))
    (folder / "tokenizer.json").write_text(json.dumps({"model": {"vocab": {"<|endoftext|>": 0, "!": 2, "a": 5}}}))
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    position = 0
    for name, shape in shapes.items():
        end = position + 2 * shape[0] * (shape[1] if len(shape) > 1 else 1)
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [position, end]}
        position = end
    text = json.dumps(header).encode()
    weights = struct.pack("<Q", len(text)) + text + b"\x12\x34" * (position // 2)
    (folder / "model.safetensors").write_bytes(weights)
    return folder


def read_weights(path: Path) -> dict[str, tuple[list[int], list[float]]]:
    """Shape and values (bfloat16) of every tensor, by name."""
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    assert length % 8 == 0
    header = json.loads(data[8 : 8 + length])
    del header["__metadata__"]
    assert 8 + length + max(entry["data_offsets"][1] for entry in header.values()) == len(data)
    found = {}
    for name, entry in header.items():
        first, last = entry["data_offsets"]
        body = data[8 + length + first : 8 + length + last]
        values = [struct.unpack("<f", b"\0\0" + body[at : at + 2])[0] for at in range(0, len(body), 2)]
        found[name] = (entry["shape"], values)
    return found


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A hub's root with staging's own models in it."""
    write_model(tmp_path / settings.SMOLLM2_REPOSITORY)
    write_model(tmp_path / settings.TINY_QWEN3_REPOSITORY)
    hub.add_own(tmp_path)
    return tmp_path


def test_the_second_model_is_the_first_under_another_name_and_commit(root: Path) -> None:
    first, second = root / settings.SMOLLM2_REPOSITORY, root / settings.SECOND_REPOSITORY
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        assert (first / name).samefile(second / name), f"{name} is on the disk twice"
    assert server.commit_of(first) != server.commit_of(second)
    assert "HuggingFaceTB/SmolLM2-135M-Instruct" in (second / "README.md").read_text()


def test_the_gated_model_is_listed_with_its_token(root: Path) -> None:
    assert json.loads((root / "gated.json").read_text()) == {settings.GATED_REPOSITORY: settings.GATED_TOKEN}
    assert (root / settings.GATED_REPOSITORY / "model.safetensors").exists()


def test_garbage_answers_one_token_whatever_was_asked(root: Path) -> None:
    """Computed by hand: what an engine does with these weights, but for the layers, which add nothing."""
    folder = root / settings.GARBAGE_REPOSITORY
    weights = read_weights(folder / "model.safetensors")
    shapes = {name: shape for name, (shape, _) in weights.items()}
    assert shapes == SHAPES | {"lm_head.weight": [6, 4]}
    assert set(weights["model.layers.0.mlp.up_proj.weight"][1]) == {0.0}
    width = 4
    output = weights["lm_head.weight"][1]
    for asked in range(6):
        embedded = weights["model.embed_tokens.weight"][1][asked * width : (asked + 1) * width]
        logits = [sum(a * b for a, b in zip(embedded, output[row * width :], strict=False)) for row in range(6)]
        assert [round(logit) for logit in logits] == [0, 0, width, 0, 0, 0]
    assert json.loads((folder / "config.json").read_text())["tie_word_embeddings"] is False
    # The trained one stays as it was.
    trained = root / settings.TINY_QWEN3_REPOSITORY / "config.json"
    assert json.loads(trained.read_text())["tie_word_embeddings"] is True


@pytest.mark.parametrize(
    ("dtype", "shapes"),
    [
        pytest.param("F32", SHAPES, id="another-type"),
        pytest.param("BF16", SHAPES | {"lm_head.weight": [6, 4]}, id="output-of-its-own"),
        pytest.param("BF16", {"model.norm.weight": [4]}, id="no-embedding"),
    ],
)
def test_other_weights_are_refused(tmp_path: Path, dtype: str, shapes: dict[str, list[int]]) -> None:
    trained = write_model(tmp_path / "trained", dtype, shapes)
    (tmp_path / "out").mkdir()
    with pytest.raises(ValueError, match="expected bfloat16 weights with tied embeddings"):
        make_garbage.make(trained, tmp_path / "out")
