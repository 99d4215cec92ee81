"""What the topics of a survey are asked to look at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

KERNEL_LOG_COMMAND = ("journalctl", "--dmesg", "--boot", "--output=short-unix", "--no-pager")


@dataclass(frozen=True)
class SurveyRequest:
    """Where to look. Everything has a default that fits a bare host."""

    # Prefix of what the kernel and the hardware show: /proc/driver, /sys, /boot, /lib/modules,
    # /usr/src/linux-headers-*, /proc/sys/kernel/osrelease. Not of /etc, /var, apt or Docker.
    root: str = "/"
    # Source of nvidia-ml-py's module, packed; "" leaves NVML out.
    pynvml_source: str = ""
    # Path of libnvidia-ml.so.1 when it is not the system's.
    library: str = ""
    kernel_log_command: Sequence[str] = KERNEL_LOG_COMMAND
    # What will be stored → where; a missing path counts as its nearest parent.
    paths: Mapping[str, str] = field(default_factory=dict)
    ports: Sequence[int] = ()
    # {name, url, needed_by} of each address that something is downloaded from; with certificate_authorities (PEM)
    # where the system's own are not enough.
    sources: Sequence[Mapping[str, Any]] = ()
    # http, https and no_proxy; empty texts for a direct connection.
    proxies: Mapping[str, str] = field(default_factory=dict)
    # driver, toolkit, docker → package names that the roles want; driver_signed: those that are wanted in place of
    # driver where the survey finds Secure Boot on.
    package_names: Mapping[str, Sequence[str]] = field(default_factory=dict)
    # {name, uris, file} of the apt sources that the roles define themselves.
    apt_uris: Sequence[Mapping[str, Any]] = ()
