"""What a model is that only its repository names: its config.json, and the size of its weights.

From the files on this host where the download is complete, else from the hub. Runs on the managed host, which has the
way to the hub; changes nothing. The names of the answer are those of module hub_model.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible_collections.pageindex.home.plugins.module_utils.jobs import model_files
from ansible_collections.pageindex.home.plugins.module_utils.jobs.model_files import Failure, Gated, Hub, NotFound

CONFIG = "config.json"
INDEX = "model.safetensors.index.json"
# Why there is no answer, for whoever words the refusal.
GATED, NOT_FOUND, UNREACHABLE, REFUSED = "gated", "not_found", "unreachable", "refused"


def nothing(problem: str = "", reason: str = "") -> dict[str, Any]:
    """The answer without a model."""
    return {
        "known": False,
        "from_disk": False,
        "config": {},
        "weight_bytes": 0,
        "commit": "",
        "gated": reason == GATED,
        "licence": "",
        "problem": problem,
        "reason": reason,
    }


def weight_bytes(sizes: Mapping[str, int], index: Mapping[str, Any] | None) -> int:
    """Bytes of the weights in a repository (path → bytes of its files), 0 where there are none.

    The index comes first: some repositories hold the same weights a second time under another name (Mistral's
    consolidated.safetensors).
    """
    total = ((index or {}).get("metadata") or {}).get("total_size")
    if total:
        return int(total)
    # Files in folders are of other formats or other parts.
    top = {path: size for path, size in sizes.items() if "/" not in path}
    for wanted in (".safetensors", ".bin", ".pt"):
        found = {path: size for path, size in top.items() if path.endswith(wanted)}
        named = [size for path, size in found.items() if path.startswith(("model", "pytorch_model"))]
        if found:
            return sum(named or found.values())
    return 0


def licence_of(about: Mapping[str, Any]) -> str:
    """The licence as the hub's page of the model says it, "" where it does not."""
    stated = (about.get("cardData") or {}).get("license")
    tags = [str(tag) for tag in about.get("tags") or []]
    tagged = [tag.partition(":")[2] for tag in tags if tag.startswith("license:")]
    return str(stated if isinstance(stated, str) else (tagged or [""])[0])


def on_disk(arguments: dict[str, Any]) -> dict[str, Any] | None:
    """The answer from a complete download, None where there is none or its config.json is no JSON object."""
    present = model_files.check(arguments)
    if present is None:
        return None
    directory = Path(present["path"])
    config = _json_file(directory / CONFIG)
    if not config:
        return None
    sizes = {path: (directory / path).stat().st_size for path in present["files"]}
    return {
        **nothing(),
        "known": True,
        "from_disk": True,
        "config": config,
        "weight_bytes": weight_bytes(sizes, _json_file(directory / INDEX)),
        "commit": present["commit"],
    }


def _json_file(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def on_hub(arguments: dict[str, Any], token: str | None, certificate_authorities: str = "") -> dict[str, Any]:
    """The answer from the hub. Raises Failure when it refuses or cannot be reached."""
    hub = Hub(arguments["endpoint"], token, arguments["repository"], certificate_authorities)
    patience = model_files.Patience(float(arguments["patience_seconds"]), lambda *_, **__: None)

    def ask(action: Any) -> Any:
        return model_files.with_patience(patience, action)

    about = ask(lambda: hub.about(model_files.known_commit(arguments) or arguments["revision"]))
    commit = str(about["sha"])
    files = model_files.choose(ask(lambda: hub.tree(commit)), list(arguments["ignore"]))
    sizes = {entry["path"]: int(entry["size"]) for entry in files}
    if CONFIG not in sizes:
        raise Failure(
            f"{arguments['repository']} at {commit[:12]} has no {CONFIG}; expected a model in the Hugging Face layout, "
            f"found: {', '.join(sorted(sizes)[:10]) or 'nothing'}"
        )

    def document(path: str) -> dict[str, Any]:
        value = ask(lambda: hub.json(hub.file_url(commit, path)))[0]
        if not isinstance(value, dict):
            raise Failure(f"{path} of {arguments['repository']} holds no JSON object")
        return value

    return {
        **nothing(),
        "known": True,
        "config": document(CONFIG),
        "weight_bytes": weight_bytes(sizes, document(INDEX) if INDEX in sizes else None),
        "commit": commit,
        "gated": bool(about.get("gated")),
        "licence": licence_of(about),
    }


def describe(arguments: dict[str, Any], token: str | None, certificate_authorities: str = "") -> dict[str, Any]:
    """The answer, with `problem` and `reason` where there is none. Asks nobody when the model is complete here.

    Arguments as model_files.run takes them, without minimum_free_mib.
    """
    present = on_disk(arguments)
    if present:
        return present
    try:
        return on_hub(arguments, token, certificate_authorities)
    except Gated as error:
        return nothing(str(error), GATED)
    except NotFound as error:
        return nothing(str(error), NOT_FOUND)
    except Failure as error:
        outage = error.__cause__
        if not isinstance(outage, model_files.Passing):
            return nothing(str(error), REFUSED)
        return nothing(
            f"{outage}. Run the play again when the hub answers, or take another one (vllm_hub_endpoint).", UNREACHABLE
        )
