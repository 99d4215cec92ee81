"""Does the served model do the product's work: ``python -m pageindex_home.selftest``.

A sample document is indexed and asked a question, with the engine and the answerer of the service, in this process:
neither its store nor its web API is touched. Prints one line and ends with 0 when the answer holds the planted fact and
a checked quote of it, with 1 otherwise, with 2 when the settings are wrong.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

from .answering import Answer, Answerer, Source
from .engine import HomeEngine
from .extraction import extract_text
from .llm import LanguageModel, LanguageModelError
from .settings import Settings, SettingsError

FACT = "48213"
QUESTION = "What is the inspection number of the Larkspur pumping station?"
DOCUMENT = f"""# Larkspur pumping station

The station stands on the north bank of the river and lifts water to the upper reservoir. It was built in two stages,
and the older hall is still in use. Two keepers look after it in turns; they live in the house behind the hall.

# Machines

Two pumps share the work. The larger one runs through the night, when power is cheap, and the smaller one helps out on
dry days. Both have bearings of bronze, which are greased every second week. A spare impeller hangs on the wall of the
older hall, and the crane above it lifts four tonnes.

# Inspection

The station is looked at once a year, in the first week of May. The inspection number of the Larkspur pumping station is
{FACT}. The report lies in the office, in the green cabinet, and a copy goes to the council.

# Access

Visitors come by the lower road and ring at the gate. On Sundays the gate stays shut. Boots and a torch are lent at the
office, and children go in with a grown-up.
"""
_TIMEOUT_SECONDS = 120.0


async def ask(settings: Settings, patience: float) -> Answer:
    """The answer of the served model to :data:`QUESTION`; *patience* in seconds for a model server that is away.

    Raises:
        LanguageModelError: it stayed away, or refused.
    """
    llm = LanguageModel.from_settings(settings)
    try:
        # First and alone: an index is made without a model as well, and would hide that it is away.
        problem = await llm.check()
        if problem:
            raise LanguageModelError(problem)
        engine = HomeEngine(llm, summaries=settings.summaries, patience=patience)
        extract = extract_text(DOCUMENT, markdown=True)
        index = await engine.build(extract, lambda *_: None)
        answerer = Answerer.from_settings(llm, settings, patience)
        return await answerer.answer(QUESTION, [Source("selftest", 0.0, "selftest.md", extract, index.nodes)])
    finally:
        await llm.close()


def judge(answer: Answer) -> str:
    """Empty when the answer is right and proved, else what is wrong with it."""
    if not answer.found:
        return f"the answer to {QUESTION!r} is {answer.answer!r}; the sample document holds it: {FACT}"
    if FACT not in answer.answer:
        return f"the answer to {QUESTION!r} is {answer.answer[:200]!r}; expected {FACT} in it"
    if not any(citation["verified"] and FACT in citation["quote"] for citation in answer.citations):
        return f"the answer is right, but no verified quote holds {FACT}"
    return ""


def source(answer: Answer) -> str:
    """Whose words the answer is in: of a small model's refused answers the product quotes the text instead."""
    quoted = any(step["step"] == "quote" for step in answer.trace.get("steps", []))
    return "in the words of the document, the model's own were refused" if quoted else "in the model's own words"


def main(arguments: Sequence[str] | None = None, environment: Mapping[str, str] = os.environ) -> int:
    """Ask, judge and print one line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--llm-url", help="model server to ask, in place of the one that the service asks")
    parser.add_argument("--timeout", type=float, default=_TIMEOUT_SECONDS, help="seconds for all of it (120)")
    options = parser.parse_args(arguments)
    try:
        settings = Settings.from_environment(environment)
        if options.llm_url:
            settings = replace(settings, llm_url=options.llm_url)
    except SettingsError as error:
        print(f"failed: {error}")
        return 2
    begun = time.monotonic()
    how = ""
    try:
        answer = asyncio.run(asyncio.wait_for(ask(settings, options.timeout / 2), options.timeout))
        problem, how = judge(answer), source(answer)
    except TimeoutError:
        problem = f"no answer from {settings.llm_url} within {options.timeout:.0f} s"
    except LanguageModelError as error:
        problem = str(error)
    seconds = time.monotonic() - begun
    line = f"failed: {problem}" if problem else f"ok: answered with a checked quote, {how}"
    print(f"{' '.join(line.split())} ({seconds:.1f} s)")
    return 1 if problem else 0


if __name__ == "__main__":
    sys.exit(main())
