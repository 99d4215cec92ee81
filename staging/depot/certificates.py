"""Certificate authorities of the staging network and what they certify, made once per cache."""

from __future__ import annotations

from pathlib import Path

from staging import cache, settings
from staging.steps import run


def _certified(product: str, authority: str, names: list[str]) -> Path:
    """Return the folder with ca.crt, server.crt and server.key for these alternative names."""
    alternatives = ",".join(names)

    def build(folder: Path) -> None:
        key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        # Python 3.13 and newer refuses an authority that does not say what its key is for.
        run(["openssl", "req", "-x509", *key, "-days", "3650", "-subj", f"/CN={authority}",
             "-addext", "keyUsage=critical,keyCertSign,cRLSign",
             "-keyout", str(folder / "ca.key"), "-out", str(folder / "ca.crt")])
        common_name = names[0].partition(":")[2]
        run(["openssl", "req", "-x509", *key, "-days", "3650", "-subj", f"/CN={common_name}",
             "-CA", str(folder / "ca.crt"), "-CAkey", str(folder / "ca.key"),
             "-addext", f"subjectAltName={alternatives}", "-addext", "basicConstraints=critical,CA:FALSE",
             "-keyout", str(folder / "server.key"), "-out", str(folder / "server.crt")])

    return cache.cached(product, cache.content_hash(alternatives, Path(__file__)), build)


def registry() -> Path:
    """Return the folder of the registry's certificate."""
    names = [f"DNS:{settings.REGISTRY_DOMAIN}", f"IP:{settings.REGISTRY_ADDRESS}", "IP:127.0.0.1"]
    return _certified("certificates", "staging registry authority", names)


def depot() -> Path:
    """Return the folder of the depot's certificate, from an authority of its own."""
    names = [*(f"DNS:{name}" for name in settings.DEPOT_NAMES), f"IP:{settings.DEPOT_ADDRESS}"]
    return _certified("depot-certificates", "staging depot authority", names)
