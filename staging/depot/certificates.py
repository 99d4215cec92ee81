"""The registry's certificate authority and server certificate, made once per cache."""

from __future__ import annotations

from pathlib import Path

from staging import cache, settings
from staging.steps import run


def registry() -> Path:
    """Return the folder with ca.crt, server.crt and server.key for the registry's names."""
    names = f"DNS:{settings.REGISTRY_DOMAIN},IP:{settings.REGISTRY_ADDRESS},IP:127.0.0.1"

    def build(folder: Path) -> None:
        key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        run(["openssl", "req", "-x509", *key, "-days", "3650", "-subj", "/CN=staging registry authority",
             "-keyout", str(folder / "ca.key"), "-out", str(folder / "ca.crt")])
        run(["openssl", "req", "-x509", *key, "-days", "3650", "-subj", f"/CN={settings.REGISTRY_DOMAIN}",
             "-CA", str(folder / "ca.crt"), "-CAkey", str(folder / "ca.key"), "-addext", f"subjectAltName={names}",
             "-addext", "basicConstraints=critical,CA:FALSE",
             "-keyout", str(folder / "server.key"), "-out", str(folder / "server.crt")])

    return cache.cached("certificates", cache.content_hash(names), build)
