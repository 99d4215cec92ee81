"""`python -m staging`: start, use and remove the embedded staging host."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys

import requests
from docker.errors import DockerException

from staging import demo, engine, host, network, provision, proxy, settings
from staging.depot import run as depot
from staging.steps import StepFailed, fail


def up(options: argparse.Namespace) -> None:
    """Start depot and host; build what is missing."""
    engine.install_packages()
    engine.ensure()
    depot.ensure()
    host.HOSTS[options.host].up(fresh=options.fresh)
    if options.ollama:
        depot.ensure_ollama()
    if options.proxy:
        proxy.ensure()


def down(options: argparse.Namespace) -> None:
    """Remove every trace but the cache; with --host only that host."""
    if options.host:
        host.HOSTS[options.host].down()
        return
    if engine.answers():
        network.remove_all()
    engine.stop_own()
    shutil.rmtree(settings.STATE, ignore_errors=True)
    print(
        f"The staging host is gone. Build products stay for the next time: {settings.CACHE} (delete it) and the "
        f"Docker images {settings.IMAGE_PREFIX}/… (`docker image rm`)."
    )


def status(_options: argparse.Namespace) -> None:
    """Show which parts are running."""
    running = engine.answers()
    print(f"Docker Engine: {'answers' if running else 'does not answer'}")
    hosts = [each.container for each in host.HOSTS.values()]
    for name in (settings.DEPOT_NAME, settings.REGISTRY_NAME, settings.PROXY_NAME, *hosts):
        container = network.find(name) if running else None
        print(f"{name}: {container.status if container else 'absent'}")


def gpu(options: argparse.Namespace) -> None:
    """Read or change the simulated GPUs."""
    sys.stdout.write(host.HOSTS[options.host].gpu(*options.arguments))


def ssh(options: argparse.Namespace) -> None:
    """Open a shell on the host, or run a command there."""
    command = provision.ssh_command(host.HOSTS[options.host])
    sys.exit(subprocess.run([*command, *options.arguments], check=False).returncode)


def add_host(parser: argparse.ArgumentParser, default: str | None = "trixie") -> None:
    """Let a command take the host that it is about."""
    parser.add_argument("--host", choices=host.HOSTS, default=default, help=f"which host (default: {default or 'all'})")


def split_arguments(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Return our own arguments, and those that `ssh` and `gpu` pass on as they are, options included."""
    if arguments[:1] not in (["ssh"], ["gpu"]):
        return arguments, []
    own = 3 if arguments[1:2] == ["--host"] else 1
    return arguments[:own], arguments[own:]


def main() -> int:
    """Parse the command line and run one command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m staging", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    up_parser = commands.add_parser("up", help=up.__doc__)
    up_parser.add_argument("--fresh", action="store_true", help="throw the host away first")
    up_parser.add_argument("--ollama", action="store_true", help="serve the image of the fallback as well")
    up_parser.add_argument("--proxy", action="store_true", help="start the HTTP proxy as well")
    up_parser.set_defaults(function=up)
    down_parser = commands.add_parser("down", help=down.__doc__)
    down_parser.set_defaults(function=down)
    commands.add_parser("status", help=status.__doc__).set_defaults(function=status)
    commands.add_parser("demo", help=demo.run.__doc__).set_defaults(function=demo.run)
    for name, function in (("gpu", gpu), ("ssh", ssh)):
        sub = commands.add_parser(name, help=function.__doc__)
        add_host(sub)
        sub.set_defaults(function=function)
    add_host(up_parser)
    add_host(down_parser, default=None)
    own, passed_on = split_arguments(sys.argv[1:])
    options = parser.parse_args(own)
    options.arguments = passed_on

    if os.geteuid() != 0:
        # Docker, debootstrap and the staging network need root; the cache stays the caller's.
        variables = [f"PAGEINDEX_HOME_STAGING_CACHE={settings.CACHE}"]
        os.execvp("sudo", ["sudo", "-E", *variables, sys.executable, "-m", "staging", *sys.argv[1:]])
    try:
        options.function(options)
    except (StepFailed, subprocess.TimeoutExpired, DockerException, requests.RequestException, OSError) as error:
        again = "make demo" if options.command == "demo" else f"python -m staging {options.command}"
        return fail(error, f"mend the cause above, then `{again}`; finished steps are kept")
    except KeyboardInterrupt:
        return fail(KeyboardInterrupt("interrupted"), "the same command again; finished steps are kept")
    return 0


if __name__ == "__main__":
    sys.exit(main())
