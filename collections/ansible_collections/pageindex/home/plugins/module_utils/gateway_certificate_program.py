"""The program that keeps the gateway's certificate valid: run by Ansible, and once a day by the host itself.

    python3 -m …gateway_certificate_program SETTINGS

SETTINGS is a JSON file: the fields of :class:`CertificateSettings`, to whose names the host's own are added, and under
"gateway" container and admin_port of the HAProxy that shows it, and the path under which it does. Exit status 1 when
the certificate is about to end all the same, so that the failed unit is seen.
"""

from __future__ import annotations

import json
import socket
import sys
from dataclasses import dataclass
from typing import Any

from ansible_collections.pageindex.home.plugins.module_utils.commands import Runner, run_command
from ansible_collections.pageindex.home.plugins.module_utils.gateway_certificate import (
    WARN_DAYS,
    Certificate,
    CertificateError,
    Certificates,
    CertificateSettings,
    can_be_stated,
)
from ansible_collections.pageindex.home.plugins.module_utils.haproxy_runtime import HaproxyError, HaproxyRuntime


@dataclass(frozen=True)
class Settings:
    """The certificate, and the gateway that shows it."""

    certificate: CertificateSettings
    gateway: dict[str, Any]


def settings_from(path: str) -> Settings:
    """Read the file. Raises OSError."""
    with open(path, encoding="utf-8") as file:
        told = json.load(file)
    gateway = told.pop("gateway")
    return Settings(CertificateSettings(**{**told, "names": (*told["names"], *host_names())}), gateway)


def host_names() -> list[str]:
    """Under what a client may find this host: its name, also in the local network's way, and its address.

    A name that no certificate can state is left out; so is IPv6, whose addresses change daily on many hosts.
    """
    name = socket.gethostname().rstrip(".")
    names = [name] + ([] if "." in name else [f"{name}.local"])
    names = ["localhost", "127.0.0.1", *(one for one in names if can_be_stated(one))]
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            # An address for documentation: nothing is sent, the kernel only says from where it would be.
            probe.connect(("192.0.2.1", 9))
            names.append(probe.getsockname()[0])
    except OSError:
        pass  # without a network there is none
    return names


def ensured(settings: Settings, check: bool = False, runner: Runner = run_command) -> tuple[Certificate, bool]:
    """The certificate, made anew where it has to be, and whether a running gateway had to be told.

    Raises CertificateError and HaproxyError.
    """
    found = Certificates(settings.certificate, runner).ensure(check)
    if found.files.changed and check:
        return found, False
    gateway = settings.gateway
    runtime = HaproxyRuntime(gateway["container"], gateway["admin_port"], runner)
    with open(settings.certificate.served, encoding="ascii") as file:
        told = runtime.replace_certificate(
            gateway["certificate"], file.read(), found.serial, anew=found.files.changed, check=check
        )
    return found, told


def main(arguments: list[str]) -> int:
    """Run the program."""
    try:
        settings = settings_from(arguments[0])
        found, told = ensured(settings)
    except (CertificateError, HaproxyError, OSError) as error:
        print(f"the gateway's certificate: {error}", file=sys.stderr)
        return 1
    made = f"made anew, because {found.why}; " if found.files.changed else ""
    print(f"the gateway's certificate: {made}{'taken over; ' if told else ''}it ends on {found.ends}")
    if found.days_left < WARN_DAYS:
        # One that is signed here was renewed long before; this is the owner's.
        print(f"it ends in {found.days_left} days: {settings.certificate.renewal}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
