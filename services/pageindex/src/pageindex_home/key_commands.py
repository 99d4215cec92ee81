"""``pageindex-home keys``: make, list and revoke API keys. Takes effect at once, without a restart."""

from __future__ import annotations

import argparse
import sys

from .access import keys_path
from .keys import READ, SCOPES, KeyFile, KeyFileError
from .settings import Settings

OK, USAGE = 0, 2


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``keys`` to the program's parser."""
    keys = commands.add_parser("keys", help="API keys of the service").add_subparsers(dest="keys", required=True)
    create = keys.add_parser("create", help="make a key; it is shown once and stored nowhere")
    create.add_argument("name", metavar="NAME", help="who or what uses it, such as laptop")
    create.add_argument("--scope", choices=SCOPES, default=READ, help="each holds those before it (read)")
    create.add_argument("--days", type=int, metavar="N", help="good for N days after today (without end)")
    keys.add_parser("list", help="names, scopes and days; the keys themselves are not stored")
    revoke = keys.add_parser("revoke", help="take a key away, and the sessions that began with it")
    revoke.add_argument("name", metavar="NAME")


def run(options: argparse.Namespace, settings: Settings) -> int:
    """Carry one of them out; returns the exit status."""
    file = KeyFile(keys_path(settings))
    try:
        if options.keys == "create":
            print(file.create(options.name, options.scope, options.days))
            print(f"key {options.name!r}, scope {options.scope}: shown this once", file=sys.stderr)
        elif options.keys == "revoke":
            file.revoke(options.name)
            print(f"key {options.name!r} is revoked", file=sys.stderr)
        else:
            for key in file.all():
                until = f"until {key.expires}" if key.expires else "without end"
                print(f"{key.name}\t{key.scope}\tsince {key.created}\t{until}{' (over)' if key.expired() else ''}")
    except KeyFileError as error:
        print(error, file=sys.stderr)
        return USAGE
    except OSError as error:
        print(f"{error.filename}: {error.strerror}; run it as the service's user", file=sys.stderr)
        return USAGE
    return OK
