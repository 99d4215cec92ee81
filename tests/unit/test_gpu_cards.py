"""Which cards count: those of virtual machines and those that the open modules do not drive do not."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.pageindex.home.plugins.module_utils.gpu_cards import left_out, own_cards


@pytest.mark.parametrize(
    ("device", "driver", "counts"),
    [
        ("0x2b85", "nvidia", True),
        ("0x2b85", "nouveau", True),
        ("0x2b85", None, True),
        ("0x2b85", "vfio-pci", False),
        ("0x128b", "nouveau", False),
        ("0x1db1", None, False),
        ("0x1e04", None, True),
        (None, None, True),
    ],
)
def test_which_cards_count(device: str | None, driver: str | None, counts: bool) -> None:
    card: dict[str, Any] = {"address": "0000:01:00.0", "device": device, "kernel_driver": driver}
    assert own_cards([card]) == ([card] if counts else [])
    assert (left_out([card]) == "") is counts


def test_the_others_are_named() -> None:
    card = {"address": "0000:02:00.0", "device": "0x128b", "kernel_driver": None}
    assert left_out([card]) == "; left out: 0000:02:00.0 (older than Turing, not driven by the open modules)"
