"""The command bin/llm-plan: what fits which cards, without Ansible and without a GPU.

Exit status: 0 fits, 3 tight, 2 does not fit, 1 bad input.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from ansible_collections.pageindex.home.plugins.module_utils.catalogue_files import catalogue
from ansible_collections.pageindex.home.plugins.module_utils.memory_plan.cards import Card, find_card
from ansible_collections.pageindex.home.plugins.module_utils.memory_plan.cases import (
    Facts,
    Result,
    predict,
    table,
    verdict_counts,
    wrong_promises,
)
from ansible_collections.pageindex.home.plugins.module_utils.memory_plan.model import ModelShape, describe_weights
from ansible_collections.pageindex.home.plugins.module_utils.memory_plan.plan import Plan, decide
from ansible_collections.pageindex.home.plugins.module_utils.memory_plan.ranking import Ranked, rank
from ansible_collections.pageindex.home.plugins.module_utils.memory_plan.remedies import Remedy, remedies
from ansible_collections.pageindex.home.plugins.module_utils.memory_plan.side_by_side import layout, side_by_side
from ansible_collections.pageindex.home.plugins.module_utils.memory_plan.sources import (
    catalogue_shape,
    config_shape,
    facts,
    shape_of_entry,
)
from ansible_collections.pageindex.home.plugins.module_utils.memory_plan.units import GIB, PlanError, gib
from ansible_collections.pageindex.home.plugins.module_utils.memory_plan.verdict import DOES_NOT_FIT, FITS, TIGHT
from ansible_collections.pageindex.home.plugins.module_utils.memory_plan.wish import Wish
from ansible_collections.pageindex.home.plugins.module_utils.vllm_arguments import ArgumentsError, build_arguments
from ansible_collections.pageindex.home.plugins.module_utils.vllm_vocabulary import UnknownVersion, vocabulary

STATUS = {FITS: 0, TIGHT: 3, DOES_NOT_FIT: 2}
BAD_INPUT = 1
WORDS = {FITS: "fits", TIGHT: "tight", DOES_NOT_FIT: "does not fit"}


class _Parser(argparse.ArgumentParser):
    """Bad input is status 1 here; argparse's own 2 means "does not fit"."""

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(BAD_INPUT, f"llm-plan: {message}\n")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    words = _Parser(
        prog="llm-plan",
        description="What a model needs on which cards, before it is downloaded.",
        epilog="Exit status: 0 fits, 3 tight, 2 does not fit, 1 bad input. See docs/memory_plan.md.",
    )
    what = words.add_argument_group("what to plan (one of these)")
    what.add_argument("--model", metavar="NAME", help="a catalogue name or its repository id")
    what.add_argument("--config", metavar="FILE", type=Path, help="a model's config.json")
    what.add_argument("--all", action="store_true", help="rank the whole catalogue for the cards")
    what.add_argument("--cases", metavar="FILE", type=Path, help="published engine starts; prints the errors")
    words.add_argument("--weight-bytes", metavar="N", type=int, help="size of the weights, with --config")
    cards = words.add_argument_group("cards")
    cards.add_argument("--gpu", metavar="NAME", default="rtx_5090", help="catalogue name, or NVML's (default rtx_5090)")
    cards.add_argument("--gpus", metavar="N", type=int, default=1, help="how many (default 1)")
    cards.add_argument("--gpu-total-mib", metavar="N", type=int, help="total memory as nvidia-smi shows it")
    cards.add_argument(
        "--side-by-side",
        metavar="CARDS",
        nargs="+",
        help="with --all: a Markdown table of several layouts, such as rtx_4090 2xrtx_5090",
    )
    wish = words.add_argument_group("the server; what is left out is vLLM's default")
    wish.add_argument("--vllm-version", metavar="V", help="default: the catalogue's")
    wish.add_argument("--utilization", metavar="0.92", type=float)
    wish.add_argument("--max-model-len", metavar="TOKENS", type=int)
    wish.add_argument("--requests", metavar="N", type=int, default=1, help="at the full context at once (default 1)")
    wish.add_argument("--max-num-seqs", metavar="N", type=int)
    wish.add_argument("--max-num-batched-tokens", metavar="N", type=int)
    wish.add_argument("--kv-cache-dtype", metavar="TYPE", default="auto")
    wish.add_argument("--tensor-parallel", metavar="N", type=int, help="default: decided")
    wish.add_argument("--profile", metavar="NAME", help="of catalogue/vllm/profiles.yml; given options win")
    wish.add_argument("--enforce-eager", action="store_true")
    wish.add_argument("--language-model-only", action="store_true")
    words.add_argument("--json", action="store_true", help="for programs; sizes in MiB per GPU")
    return words


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    options = parser().parse_args(arguments)
    try:
        return _run(options)
    except PlanError as error:
        print(f"llm-plan: {error}", file=sys.stderr)
        return BAD_INPUT


def _run(options: argparse.Namespace) -> int:
    chosen = [name for name in ("model", "config", "all", "cases") if getattr(options, name)]
    if len(chosen) != 1:
        given = ", ".join(f"--{name}" for name in chosen) or "none of them"
        raise PlanError(f"found {given}; expected exactly one of --model, --config, --all, --cases")
    if options.side_by_side and not options.all:
        raise PlanError("--side-by-side compares the whole catalogue; expected --all beside it")
    known = facts()
    if options.cases:
        return _cases(options, known)
    card = find_card(options.gpu, known.gpus, options.gpu_total_mib)
    wish = _wish(options)
    others = {name: shape_of_entry(name, entry, known) for name, entry in known.models.items()}
    if options.side_by_side:
        print(side_by_side(known.models, others, [layout(text, known.gpus) for text in options.side_by_side], wish))
        return 0
    if options.all:
        return _all(options, known, others, card, wish)
    shape = (
        config_shape(options.config, options.weight_bytes) if options.config else catalogue_shape(options.model, known)
    )
    one = decide(shape, card, options.gpus, wish)
    better = remedies(one, shape, card, wish, others)
    if options.json:
        _print_json({**one.as_dict(), "words": _words(one), "remedies": [entry.as_dict() for entry in better]})
    else:
        print(describe(one, shape, better))
    return STATUS[one.verdict]


def _wish(options: argparse.Namespace) -> Wish:
    flags: dict[str, Any] = {}
    if options.profile:
        profiles = catalogue("vllm/profiles")["profiles"]
        if options.profile not in profiles:
            known = ", ".join(sorted(profiles))
            raise PlanError(f"the profile {options.profile!r} is not known; expected one of {known}")
        flags = profiles[options.profile]["flags"]
    return Wish(
        version=options.vllm_version or str(catalogue("versions")["vllm"]["version"]),
        context=options.max_model_len,
        requests=options.requests,
        utilization=_first(options.utilization, flags.get("gpu-memory-utilization")),
        sequences=_first(options.max_num_seqs, flags.get("max-num-seqs")),
        batched_tokens=_first(options.max_num_batched_tokens, flags.get("max-num-batched-tokens")),
        kv_dtype=options.kv_cache_dtype,
        tensor_parallel=options.tensor_parallel,
        enforce_eager=options.enforce_eager or bool(flags.get("enforce-eager")),
        text_only=options.language_model_only,
    )


def _first(own: Any, otherwise: Any) -> Any:
    return otherwise if own is None else own


def _words(one: Plan) -> list[str] | None:
    """The words of the command line, where the catalogue knows the version's arguments."""
    try:
        return build_arguments(one.arguments, {}, vocabulary(one.version))
    except (UnknownVersion, ArgumentsError):
        return None


def describe(one: Plan, shape: ModelShape, better: Sequence[Remedy] = ()) -> str:
    """The plan as a page for people."""
    part = one.terms
    layout = f"{one.tensor_parallel} card{'s' if one.tensor_parallel > 1 else ''}"
    layout += f", {one.replicas} replicas" if one.replicas > 1 else ""
    rows = [
        ("total, as CUDA sees it", one.total),
        (f"budget at {one.utilization:.2f}", one.budget),
        ("weights", part.weights),
        ("activation peak", part.activation_peak),
        ("  layers", part.layers),
        ("  sampler", part.sampler),
        ("  vision", part.vision),
        ("  experts", part.experts),
        ("hybrid state", part.hybrid),
        ("runtime context", part.runtime),
        (f"CUDA graphs{'' if part.graphs_counted else ' (outside the budget)'}", part.graphs),
        ("KV pool", one.pool),
    ]
    lines = [
        f"{one.model} on {one.gpus} x {one.card}, vLLM {one.version}: {WORDS[one.verdict]}",
        f"layout: {layout}; weights {describe_weights(shape.weight_bytes or shape.estimated_weight_bytes)}",
        *(f"because {reason}" for reason in one.reasons),
        *(f"note: {note}" for note in one.notes),
        "",
        "per GPU                              GiB",
        *(f"{name:34}{size / GIB:8.2f}" for name, size in rows if size or not name.startswith("  ")),
        f"{'the pool may have less by':34}{one.less / GIB:8.2f}",
        f"{'or more by':34}{one.more / GIB:8.2f}",
        "",
        f"pool: {one.pool_tokens:,} tokens; needed for {one.requests} x {one.context:,}: {gib(one.needed)} GiB per GPU",
        f"greatest context: {one.greatest_context:,} tokens for one request"
        + (f", {one.greatest_context_wanted:,} for {one.requests}" if one.requests > 1 else ""),
    ]
    words = _words(one)
    if words:
        lines.append("arguments: " + " ".join(shlex.quote(word) for word in words))
    if better:
        lines += ["", "what would help:"]
        lines += [
            f"  {entry.change}: {WORDS[entry.plan.verdict]}, pool {gib(entry.plan.pool)} GiB, "
            f"context up to {entry.plan.greatest_context:,}"
            for entry in better
        ]
    return "\n".join(lines)


def _all(options: argparse.Namespace, known: Facts, shapes: dict[str, ModelShape], card: Card, wish: Wish) -> int:
    ranked = rank(known.models, shapes, card, options.gpus, wish)
    if options.json:
        _print_json([entry.as_dict() for entry in ranked])
    else:
        print(f"{options.gpus} x {card.name}, vLLM {wish.version}")
        print(f"{'model':32}{'verdict':14}{'TP':>3}{'replicas':>9}{'pool GiB':>10}{'context':>10}")
        for entry in ranked:
            print(_ranked_line(entry))
    verdicts = {entry.plan.verdict for entry in ranked}
    return min((STATUS[verdict] for verdict in verdicts), key=(0, 3, 2).index, default=STATUS[DOES_NOT_FIT])


def _ranked_line(entry: Ranked) -> str:
    one = entry.plan
    line = f"{entry.name:32}{WORDS[one.verdict]:14}{one.tensor_parallel:3}{one.replicas:9}"
    line += f"{max(0.0, gib(one.pool)):10.2f}{one.greatest_context:10,}"
    return line + (f"  {one.reasons[0]}" if one.reasons and one.verdict == DOES_NOT_FIT else "")


def _cases(options: argparse.Namespace, known: Facts) -> int:
    try:
        cases = json.loads(options.cases.read_text(encoding="utf-8"))
    except OSError as error:
        raise PlanError(f"cannot read {options.cases}: {error.strerror}") from error
    except ValueError as error:
        raise PlanError(f"{options.cases} is not JSON: {error}") from error
    if not isinstance(cases, list) or not all(isinstance(case, dict) for case in cases):
        raise PlanError(f"{options.cases} holds no list of cases; expected the format of tests/data/kv_cases.json")
    results = [predict(case, known) for case in cases]
    if options.json:
        _print_json([result.as_dict() for result in results])
    else:
        print(describe_cases(results))
    return 0


def describe_cases(results: Sequence[Result]) -> str:
    """Each case, then the error table."""
    lines = [f"{'case':50}{'verdict':14}{'predicted':>10}{'observed':>10}{'error':>9}   (GiB per GPU, or tokens)"]
    for result in results:
        if result.plan is None:
            lines.append(f"{result.id[:48]:50}no plan: {result.problem}")
            continue
        if result.observed_gib is not None or not result.observed_tokens:
            predicted, seen = f"{gib(result.plan.pool):.2f}", str(result.observed_gib or "-")
        else:
            predicted, seen = str(result.plan.pool_tokens), str(result.observed_tokens)
        error = f"{result.error * 100:+.1f} %" if result.error is not None else ("failed" if result.failed else "-")
        lines.append(f"{result.id[:48]:50}{WORDS[result.plan.verdict]:14}{predicted:>10}{seen:>10}{error:>9}")
    lines += ["", f"{'class':34}{'cases':>6}{'median':>9}{'p95':>9}{'worst':>9}   (error of the pool, %)"]
    lines += [
        f"{row.name:34}{row.cases:6}{row.median:9.2f}{row.percentile_95:9.2f}{row.worst:9.2f}" for row in table(results)
    ]
    lines.append("")
    for outcome, counts in verdict_counts(results).items():
        lines.append(f"{outcome}: " + ", ".join(f"{count} {WORDS.get(word, word)}" for word, count in counts.items()))
    lines.append(f"failed though said to fit: {', '.join(wrong_promises(results)) or 'none'}")
    return "\n".join(lines)


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=2))
