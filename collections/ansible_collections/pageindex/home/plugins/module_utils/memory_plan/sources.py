"""Where a plan's facts come from: the catalogue, a config.json, a name. Reads files; everything else here is plain."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible_collections.pageindex.home.plugins.module_utils.catalogue_files import CATALOGUE_DIRECTORY, catalogue
from ansible_collections.pageindex.home.plugins.module_utils.memory_plan.cases import Facts
from ansible_collections.pageindex.home.plugins.module_utils.memory_plan.model import (
    ModelShape,
    shape_from_catalogue,
    shape_from_config,
    weight_bytes_of_directory,
)
from ansible_collections.pageindex.home.plugins.module_utils.memory_plan.units import PlanError
from ansible_collections.pageindex.home.plugins.module_utils.vllm_deployment import nearest_model


def facts(directory: Path = CATALOGUE_DIRECTORY) -> Facts:
    """The catalogue's cards, models and architectures."""
    return Facts(
        gpus=catalogue("gpus", directory),
        models=catalogue("models", directory),
        architectures=catalogue("architectures", directory),
    )


def catalogue_shape(name: str, known: Facts) -> ModelShape:
    """The model of a catalogue name or repository id. Raises PlanError, naming the nearest one that exists."""
    lowered = name.lower()
    for key, entry in known.models.items():
        if lowered in (key, str(entry["repository"]).lower()):
            return shape_of_entry(key, entry, known)
    close = nearest_model(name, known.models)
    raise PlanError(
        f"the model {name!r} does not exist in the catalogue"
        + (f"; nearest: {close}" if close else "")
        + ". A model of your own: --config config.json --weight-bytes N"
    )


def shape_of_entry(name: str, entry: Mapping[str, Any], known: Facts) -> ModelShape:
    """The shape of an entry; `architecture` names one of catalogue/architectures.yml."""
    reference = entry.get("architecture")
    if isinstance(reference, str):
        if reference not in known.architectures:
            raise PlanError(
                f"model {name}: architecture {reference!r} is not in catalogue/architectures.yml; "
                f"expected one of {', '.join(sorted(known.architectures))}"
            )
        entry = {**entry, "architecture": known.architectures[reference]}
    return shape_from_catalogue(name, entry)


def config_shape(path: Path, weight_bytes: int | None, name: str = "") -> ModelShape:
    """The model of a config.json on disk; its weights as given, else those beside it. Raises PlanError."""
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise PlanError(f"cannot read {path}: {error.strerror}. Expected the model's config.json") from error
    except ValueError as error:
        raise PlanError(f"{path} is not JSON ({error}). Expected the model's config.json") from error
    if not isinstance(config, dict):
        raise PlanError(f"{path} holds no JSON object. Expected the model's config.json")
    label = name or str(config.get("_name_or_path") or path.resolve().parent.name)
    return shape_from_config(config, label, weight_bytes or weight_bytes_of_directory(path.parent))
