"""The program: ``python -m pageindex_home`` serves, ``keys`` makes keys for that; ``index``, ``watch`` and ``ask`` work
on files without it.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import tempfile
from collections.abc import Sequence

import uvicorn

from . import commands, key_commands
from .api import create_app
from .engines import check_installed
from .settings import Settings, SettingsError
from .store import incoming_directory


def main(arguments: Sequence[str] | None = None) -> int:
    """Carry out a command; without one serve until SIGTERM. Exit status 2 when the settings are wrong."""
    parser = argparse.ArgumentParser(
        prog="pageindex-home",
        description="Questions about your own documents. Without a command: the service.",
        epilog="Settings are environment variables, such as PAGEINDEX_LLM_URL; docs/pageindex.md lists them.",
    )
    subcommands = parser.add_subparsers(dest="command", metavar="COMMAND")
    subcommands.add_parser("serve", help="the service (also without a command)")
    commands.add_commands(subcommands)
    key_commands.add_commands(subcommands)
    options = parser.parse_args(arguments)
    try:
        settings = Settings.from_environment(os.environ)
        check_installed(settings)
    except SettingsError as error:
        print(f"pageindex-home: {error}", file=sys.stderr)
        return 2
    serves = options.command in (None, "serve")
    logging.basicConfig(
        level=settings.log_level.upper() if serves else logging.WARNING,
        format="%(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
    )
    logging.getLogger("httpx").setLevel(logging.WARNING)
    if serves:
        return serve(settings)
    return (key_commands if options.command == "keys" else commands).run(options, settings)


def serve(settings: Settings) -> int:
    """Serve until SIGTERM."""
    # Starlette spools uploads to the temporary directory; a container's /tmp is memory.
    tempfile.tempdir = str(incoming_directory(settings.data_directory))
    uvicorn.run(
        create_app(settings),
        host=settings.listen_address,
        port=settings.listen_port,
        log_level=settings.log_level.lower(),
        access_log=False,  # paths hold document ids; counts are in /metrics
        timeout_graceful_shutdown=8,
        server_header=False,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
