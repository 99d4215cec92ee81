"""Filter: certificate authorities of registries as files for the file_set module."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def registry_certificate_files(certificates: dict[str, str]) -> list[dict[str, str]]:
    """Files below /etc/docker/certs.d from {"host:port": PEM text}."""
    return [
        {"path": f"/etc/docker/certs.d/{host}/ca.crt", "content": pem.rstrip("\n") + "\n"}
        for host, pem in sorted(certificates.items())
    ]


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Names and functions."""
        return {"registry_certificate_files": registry_certificate_files}
