"""Puts command lines through the argument parser of the vLLM beside this Python, as `vllm serve` does.

Runs with a Python that has vLLM's `.py` files (its kernels are not needed):

    echo '{"name": ["org/model", "--max-model-len", "32768"]}' | python3 parse_vllm_arguments.py

Prints vLLM's version, all flags it knows and, for each line that is refused, why.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import logging
import sys
from typing import Any


def find_validation() -> Any:
    """The check that `vllm serve` makes after parsing; its module has moved between versions."""
    for name in ("vllm.entrypoints.launchers.cli_args", "vllm.entrypoints.common.cli_args",
                 "vllm.entrypoints.openai.cli_args"):  # fmt: skip
        with contextlib.suppress(ImportError, AttributeError):
            return importlib.import_module(name).validate_parsed_serve_args
    raise SystemExit("validate_parsed_serve_args was not found in this vLLM: look where it has moved")


def serve_parser() -> tuple[Any, Any]:
    """The parser of the `vllm` command, and the part of it that is `vllm serve`."""
    from vllm.entrypoints.cli.serve import ServeSubcommand
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    parser = FlexibleArgumentParser()
    return parser, ServeSubcommand().subparser_init(parser.add_subparsers(dest="subparser"))


def refusal(arguments: list[str]) -> str | None:
    """Why vLLM refuses these words after `vllm serve`, or None."""
    parser, _ = serve_parser()
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
            parsed = parser.parse_args(["serve", *arguments])
            find_validation()(parsed)
    except SystemExit:
        lines = said.getvalue().strip().splitlines()
        return lines[-1] if lines else "the parser gave up without a word"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None


def main() -> None:
    """Parse every command line of the JSON on standard input (an argument may hold no more than 128 KiB)."""
    logging.disable(logging.WARNING)
    lines: dict[str, list[str]] = json.load(sys.stdin)
    refused = {name: why for name, arguments in lines.items() if (why := refusal(arguments)) is not None}
    import vllm.version

    flags = sorted({name for action in serve_parser()[1]._actions for name in action.option_strings})
    print(json.dumps({"version": vllm.version.__version__, "flags": flags, "refused": refused}))


if __name__ == "__main__":
    main()
