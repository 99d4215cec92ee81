"""Secure Boot and the packages that are going to be installed."""

from __future__ import annotations

from typing import Any

from ansible_collections.pageindex.home.plugins.module_utils.catalogue_files import catalogue
from ansible_collections.pageindex.home.plugins.module_utils.preflight import firmware  # noqa: F401  (registers)
from tests.unit.surveyed_hosts import clean_host, finished_host, judge, statuses


def with_secure_boot(seen: dict[str, Any], **firmware_says: Any) -> dict[str, Any]:
    seen["firmware"].update(secure_boot=True, **firmware_says)
    return seen


def test_off() -> None:
    assert judge("secure_boot", clean_host())[0].found == "off"
    seen = clean_host()
    seen["firmware"]["efi"] = False
    assert judge("secure_boot", seen)[0].found == "off (no UEFI)"


def test_on_with_modules_that_are_built_here() -> None:
    [finding] = judge("secure_boot", with_secure_boot(clean_host()))
    assert finding.status == "red"
    for step in ("openssl req", "mokutil --import /var/lib/dkms/mok.pub", "Enroll MOK", "Switch Secure Boot off"):
        assert step in finding.fix
    with_key = judge("secure_boot", with_secure_boot(clean_host(), signing_keys=["/var/lib/dkms/mok.pub"]))
    assert with_key[0].status == "red" and "/var/lib/dkms/mok.pub is not enrolled" in with_key[0].found


def test_on_where_the_distribution_signs() -> None:
    seen = with_secure_boot(clean_host())
    assert statuses("secure_boot", seen, driver_packages_signed=True) == ["green"]
    seen["system"] = {"release": {"codename": "noble"}}
    [finding] = judge("secure_boot", seen, releases=catalogue("releases"))
    assert finding.status == "red" and "nvidia_driver_source" in finding.fix and "MOK.der" in finding.fix


def test_on_with_a_key_or_a_driver_that_is_accepted() -> None:
    assert statuses("secure_boot", with_secure_boot(clean_host(), signing_key_enrolled=True)) == ["green"]
    assert statuses("secure_boot", with_secure_boot(finished_host())) == ["green"]


def test_not_known_or_not_needed() -> None:
    seen = clean_host()
    seen["firmware"]["secure_boot"] = None
    assert statuses("secure_boot", seen) == []
    assert statuses("secure_boot", with_secure_boot(clean_host()), gpus=False) == []
