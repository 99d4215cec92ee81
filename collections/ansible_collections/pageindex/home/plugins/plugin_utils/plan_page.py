"""The page of a check run: what a run would change on each host, before anything changes.

`Page.take` is fed the results of the tasks of a check run; `Page.text` is the page. Plain data, no Ansible: the
callback of the same name feeds it. What a role knows beyond its tasks' results it hands over as a fact named
`__ROLE_plan_page` (roles nvidia_driver and vllm).
"""

from __future__ import annotations

import os
import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.pageindex.home.plugins.module_utils.memory_plan import words
from ansible_collections.pageindex.home.plugins.module_utils.memory_plan.host import UNKNOWN
from ansible_collections.pageindex.home.plugins.module_utils.memory_plan.verdict import DOES_NOT_FIT, FITS

WIDTH = 110
HEADING = 14
_FACT = re.compile(r"__(\w+)_plan_page")
_OURS = "pageindex.home."
# Modules that start a service whose files or image changed.
_SERVICES = ("service_up", "llm_deployment")
# A run with one of these is a deployment's and worth a page; a removal or a verification is not.
_DEPLOYING = ("packages", "file_set", "model_files", "container_image", *_SERVICES)
_REBOOTS = {
    "allow": "yes, as soon as the driver is installed",
    "local": "yes, by you: the run stops and asks for it, and goes on when it is run again",
    "stop": "yes, by you: the run stops and asks for it (nvidia_driver_reboot: stop)",
    "never": "needed, but switched off (nvidia_driver_reboot: never): the cards do not work as wanted until then",
}


@dataclass
class _Host:
    """What was collected about one host."""

    installs: list[str] = field(default_factory=list)
    removals: list[str] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    models: list[dict[str, Any]] = field(default_factory=list)
    images: list[dict[str, Any]] = field(default_factory=list)
    services: list[str] = field(default_factory=list)
    beside: bool = False
    others: list[str] = field(default_factory=list)
    facts: dict[str, dict[str, Any]] = field(default_factory=dict)
    failure: str = ""


class Page:
    """Collects results, and writes the page."""

    def __init__(self) -> None:
        self._hosts: dict[str, _Host] = {}
        self._worth_a_page = False

    def take(self, host: str, action: str, task: str, arguments: Mapping[str, Any], result: Mapping[str, Any]) -> None:
        """One task's result that did not fail, of a host; results of a loop come one by one."""
        for name, content in (result.get("ansible_facts") or {}).items():
            fact = _FACT.fullmatch(str(name))
            if fact:
                self._of(host).facts[fact.group(1)] = dict(content)
                self._worth_a_page = True
        module = action.removeprefix(_OURS)
        if action.startswith(_OURS) and module in _DEPLOYING:
            self._worth_a_page = True
        if result.get("changed"):
            self._changed(self._of(host), module, task, arguments, result)

    def fail(self, host: str, task: str) -> None:
        """A host stopped at this task; its page is not whole."""
        self._of(host).failure = _plain(task)

    def _of(self, host: str) -> _Host:
        return self._hosts.setdefault(host, _Host())

    @staticmethod
    def _changed(seen: _Host, module: str, task: str, arguments: Mapping[str, Any], result: Mapping[str, Any]) -> None:
        if module == "packages":
            versions = result.get("versions") or {}
            seen.installs += [f"{name} {versions.get(name) or ''}".rstrip() for name in result.get("installed") or []]
            seen.removals += result.get("removed") or []
            if not (result.get("installed") or result.get("removed")):
                seen.others.append(_plain(task))
        elif module == "file_set":
            seen.files += result.get("changed_files") or []
        elif module == "model_files":
            seen.models.append({"repository": str(arguments.get("repository")), "bytes": result.get("bytes_total")})
        elif module == "container_image":
            seen.images.append(dict(result))
        elif module in _SERVICES:
            seen.services.append(str(arguments.get("name") or "vllm"))
            seen.beside = seen.beside or bool(result.get("beside"))
        elif not module.endswith("reboot"):  # the driver's role tells it as a fact, with the reason
            seen.others.append(_plain(task))

    def text(self, hosts: Iterable[str] = (), selection: str = "") -> str:
        """The page; "" for a run that is none of a deployment's. `hosts` had nothing to tell, but were looked at.

        `selection` says what the run was limited to.
        """
        if not self._worth_a_page:
            return ""
        names = sorted({*self._hosts, *hosts})
        title = "What a run would change" + (f" ({selection})" if selection else "") + ". Nothing was changed."
        parts = [title]
        for name in names:
            parts.append("\n".join([name, *_lines(self._hosts.get(name, _Host()))]))
        return "\n\n".join(parts) + "\n"


def _plain(task: str) -> str:
    """A task's name without its role's."""
    return task.rpartition(" : ")[2]


def _lines(seen: _Host) -> list[str]:
    memory = seen.facts.get("vllm", {}).get("memory")
    rows = [
        ("Packages", _packages(seen)),
        ("Files", ", ".join(dict.fromkeys(seen.files)) or "none"),
        ("Downloads", _downloads(seen, memory or {})),
        ("Images", _images(seen)),
        ("Reboot", _reboot(seen)),
        ("Services", _services(seen)),
        ("Downtime", _downtime(seen, memory or {})),
    ]
    replicas = seen.facts.get("vllm", {}).get("replicas")
    if replicas:
        rows.insert(-1, ("Servers", _servers(replicas)))
    if seen.others:
        rows.append(("Also", "; ".join(dict.fromkeys(seen.others))))
    if seen.failure:
        rows.insert(0, ("Stopped", f'at "{seen.failure}", see above: what follows is not all'))
    lines = [line for heading, text in rows for line in _row(heading, text)]
    return lines + (_memory(memory) if memory else [])


def _row(heading: str, text: str) -> list[str]:
    indent = " " * (HEADING + 2)
    return textwrap.wrap(
        text, WIDTH, initial_indent=f"  {heading:<{HEADING}}", subsequent_indent=indent,
        break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip


def _packages(seen: _Host) -> str:
    parts = [f"install or upgrade {', '.join(dict.fromkeys(seen.installs))}"] if seen.installs else []
    parts += [f"remove {', '.join(dict.fromkeys(seen.removals))}"] if seen.removals else []
    return "; ".join(parts) or "none"


def _downloads(seen: _Host, memory: Mapping[str, Any]) -> str:
    """Models and base images, with their gigabytes where they are known. Packages come on top."""
    parts = []
    for model in seen.models:
        size = model["bytes"]
        if not size and model["repository"] == memory.get("model"):
            size = memory.get("weight_bytes")
        parts.append(f"model {model['repository']} ({_gigabytes(size)})")
    for image in seen.images:
        if image.get("base_missing") and image.get("base_image"):
            parts.append(f"image {image['base_image']} ({_gigabytes(image.get('base_bytes'))})")
    return ", ".join(dict.fromkeys(parts)) or "none"


def _gigabytes(size: Any) -> str:
    return f"{int(size) / 1e9:.1f} GB" if size else "size not known"


def _images(seen: _Host) -> str:
    return ", ".join(f"build {image.get('image')}" for image in seen.images) or "none"


def _reboot(seen: _Host) -> str:
    told = seen.facts.get("nvidia_driver", {})
    if not told.get("reasons"):
        return "no"
    how = _REBOOTS.get(str(told.get("reboot")), "yes")
    return f"{how}; {', '.join(told['reasons'])}"


def _services(seen: _Host) -> str:
    return f"start or restart {', '.join(dict.fromkeys(seen.services))}" if seen.services else "none is touched"


def _servers(replicas: Sequence[Sequence[int]]) -> str:
    """ "2 replicas of the LLM, on GPU 0; on GPU 1"."""
    places = [f"on GPU {', '.join(str(gpu) for gpu in gpus)}" if gpus else "on the processor" for gpus in replicas]
    return f"{len(places)} replicas of the LLM, {'; '.join(places)}" if len(places) > 1 else f"one LLM, {places[0]}"


def _downtime(seen: _Host, memory: Mapping[str, Any]) -> str:
    llm = seen.facts.get("vllm", {})
    reboots = bool(seen.facts.get("nvidia_driver", {}).get("reasons"))
    if "vllm" not in seen.services:
        if reboots:
            return "the reboot, then the start of every service"
        return "seconds, while they start" if seen.services else "none"
    seconds = memory.get("last_start_seconds")
    start = f"{round(seconds)} s at the last start of this server here" if seconds else "not measured on this host yet"
    if not llm.get("running"):
        return f"none: no model serves yet; the first answer comes after download and engine start ({start})"
    if seen.beside and not reboots:
        return f"none of the LLM: {llm['running']} serves until a new server does ({start})"
    drain = f" ({llm['drain_seconds']} s at most)" if llm.get("drain_seconds") else ""
    return (
        f"of the LLM the engine's start ({start}), after the requests that run have ended{drain}"
        + (f"; {llm['running']} serves until then" if llm["running"] != llm.get("model") else "")
        + ("; and the reboot" if reboots else "")
    )


def _memory(plan: Mapping[str, Any]) -> list[str]:
    """The memory plan as a small table."""
    lines = _row("Memory plan", words.headline(plan))
    if plan["verdict"] == UNKNOWN:
        return lines
    indent = " " * (HEADING + 2)
    lines += [line for reason in plan["reasons"] for line in textwrap.wrap(reason, WIDTH, initial_indent=indent,
              subsequent_indent=indent)]  # fmt: skip
    sizes = plan["per_gpu_mib"]
    table = [(text, f"{sizes[name] / 1024:.2f} GiB") for name, text in words.ROWS if sizes[name]]
    table.append(("error of the pool", f"-{sizes['kv_pool_less'] / 1024:.2f} +{sizes['kv_pool_more'] / 1024:.2f} GiB"))
    table.append(("tokens in the KV cache", f"{plan['kv_pool_tokens']}"))
    table.append(("longest context of one request", f"{plan['max_context_tokens']}"))
    wide = max(len(name) for name, _ in table)
    source = "per GPU, as the last start here told" if plan["learned"] else "per GPU, computed"
    lines.append(f"{indent}{source}")
    lines += [f"{indent}  {name:<{wide}}  {value:>20}" for name, value in table]
    if plan["verdict"] != FITS:
        helps = words.remedy_lines(plan)
        lines.append(f"{indent}{'what would help, the least loss first' if helps else 'nothing known would help'}")
        lines += [f"{indent}  {line}" for line in helps]
    if plan["verdict"] == DOES_NOT_FIT:
        lines.append(f"{indent}to start it in spite of this: {words.OVERRIDE}: true")
    return lines


def selection(tags: Sequence[str], skipped: Sequence[str], limit: str | None) -> str:
    """ "only tags vllm, only hosts gpu1": what a run was limited to; "" for a whole one."""
    parts = [f"only tags {', '.join(tags)}"] if tags and set(tags) != {"all"} else []
    parts += [f"without tags {', '.join(skipped)}"] if skipped else []
    parts += [f"only hosts {os.fspath(limit)}"] if limit else []
    return ", ".join(parts)
