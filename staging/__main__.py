"""`python -m staging`: start, use and remove the embedded staging host."""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import subprocess
import sys

import requests
from docker.errors import DockerException

from staging import demo, engine, host, network, provision, settings
from staging.depot import run as depot
from staging.steps import StepFailed, fail

_GPU_CONTROL = "/usr/bin/python3 /usr/lib/gpu-simulator/control.py"


def up(options: argparse.Namespace) -> None:
    """Start depot and host; build what is missing."""
    engine.install_packages()
    engine.ensure()
    depot.ensure()
    host.up(fresh=options.fresh)


def down(_options: argparse.Namespace) -> None:
    """Remove every trace but the cache."""
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
    for name in (settings.DEPOT_NAME, settings.REGISTRY_NAME, settings.HOST_NAME):
        container = network.find(name) if running else None
        print(f"{name}: {container.status if container else 'absent'}")


def gpu(options: argparse.Namespace) -> None:
    """Read or change the simulated GPUs."""
    result = host.execute(f"{_GPU_CONTROL} {shlex.join(options.arguments)}")
    sys.stdout.write(result.stdout)
    if result.returncode != 0:
        raise StepFailed(result.stderr.strip() or "the simulator refused the command")


def ssh(options: argparse.Namespace) -> None:
    """Open a shell on the host, or run a command there."""
    sys.exit(subprocess.run([*provision.ssh_command(), *options.arguments], check=False).returncode)


def main() -> int:
    """Parse the command line and run one command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m staging", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    up_parser = commands.add_parser("up", help=up.__doc__)
    up_parser.add_argument("--fresh", action="store_true", help="throw the host away first")
    up_parser.set_defaults(function=up)
    commands.add_parser("down", help=down.__doc__).set_defaults(function=down)
    commands.add_parser("status", help=status.__doc__).set_defaults(function=status)
    commands.add_parser("demo", help=demo.run.__doc__).set_defaults(function=demo.run)
    for name, function in (("gpu", gpu), ("ssh", ssh)):
        sub = commands.add_parser(name, help=function.__doc__)
        sub.add_argument("arguments", nargs=argparse.REMAINDER)
        sub.set_defaults(function=function)
    options = parser.parse_args()

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
