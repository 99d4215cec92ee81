"""The PCI bus around the cards, from a made-up sysfs."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from ansible_collections.pageindex.home.plugins.module_utils.survey.pci import access_control, generation, survey
from ansible_collections.pageindex.home.plugins.module_utils.survey.request import SurveyRequest

CARD, BRIDGE = "0000:01:00.0", "0000:00:01.1"


def configuration(control: int | None, capability_before: bool = False) -> bytes:
    """The configuration space of a bridge, with an access control register where one is given."""
    space = bytearray(4096)
    offset = 0x100
    if capability_before:
        struct.pack_into("<I", space, offset, 0x0001 | 0x140 << 20)
        offset = 0x140
    if control is not None:
        struct.pack_into("<IHH", space, offset, 0x000D, 0x5F, control)
    return bytes(space)


def bus(root: Path, card: dict[str, str], slot: dict[str, str], config: bytes | None = None) -> SurveyRequest:
    """A card below a bridge, linked from /sys/bus as the kernel does it."""
    bridge = root / "sys/devices/pci0000:00" / BRIDGE
    directory = bridge / CARD
    directory.mkdir(parents=True)
    files = {"vendor": "0x10de", "device": "0x2b85", "class": "0x030000", **card}
    for place, content in ((directory, files), (bridge, {"vendor": "0x1022", "class": "0x060400", **slot})):
        for name, text in content.items():
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            (place / name).write_text(text + "\n")
    if config is not None:
        (bridge / "config").write_bytes(config)
    devices = root / "sys/bus/pci/devices"
    devices.mkdir(parents=True)
    (devices / CARD).symlink_to("../../../devices/pci0000:00/" + f"{BRIDGE}/{CARD}")
    (devices / BRIDGE).symlink_to(f"../../../devices/pci0000:00/{BRIDGE}")
    return SurveyRequest(root=str(root))


def test_a_card_in_a_slow_slot(tmp_path: Path) -> None:
    card = {
        "current_link_speed": "2.5 GT/s PCIe",
        "max_link_speed": "32.0 GT/s PCIe",
        "current_link_width": "8",
        "max_link_width": "16",
        "boot_vga": "1",
        "iommu_group/type": "DMA-FQ",
        "aer_dev_correctable": "RxErr 3\nBadTLP 4\nTOTAL_ERR_COR 7",
        "aer_dev_nonfatal": "Undefined 0\nTOTAL_ERR_NONFATAL 0",
    }
    slot = {"max_link_speed": "16.0 GT/s PCIe", "max_link_width": "8"}
    (tmp_path / "sys/class/iommu/ivhd0").mkdir(parents=True)
    seen = survey(bus(tmp_path, card, slot, configuration(0x1D)))
    assert seen == {
        "gpus": [
            {
                "address": CARD,
                "generation": 1,
                "generation_max": 5,
                "width": 8,
                "width_max": 16,
                "slot_generation_max": 4,
                "slot_width_max": 8,
                "errors": {"correctable": 7, "nonfatal": 0},
                "boot_display": True,
                "iommu_type": "DMA-FQ",
                "bridges": [BRIDGE],
            }
        ],
        "iommu": ["ivhd0"],
        "access_control": [{"address": BRIDGE, "redirects": True}],
    }


def test_what_cannot_be_read_is_not_known(tmp_path: Path) -> None:
    [card] = survey(bus(tmp_path, {"current_link_speed": "Unknown", "current_link_width": "63"}, {}))["gpus"]
    unknown = {name: value for name, value in card.items() if name not in ("address", "bridges")}
    assert set(unknown.values()) == {None}


def test_no_card_no_bus(tmp_path: Path) -> None:
    assert survey(SurveyRequest(root=str(tmp_path))) == {"gpus": [], "iommu": [], "access_control": []}


def test_bridges_are_found_where_the_tree_is_flat(tmp_path: Path) -> None:
    for address, device_class in ((CARD, "0x030000"), (BRIDGE, "0x060400"), ("0000:00:02.0", "0x020000")):
        directory = tmp_path / "sys/bus/pci/devices" / address
        directory.mkdir(parents=True)
        (directory / "vendor").write_text("0x10de\n")
        (directory / "class").write_text(device_class + "\n")
    (tmp_path / "sys/bus/pci/devices" / BRIDGE / "config").write_bytes(configuration(0))
    assert survey(SurveyRequest(root=str(tmp_path)))["access_control"] == [{"address": BRIDGE, "redirects": False}]


@pytest.mark.parametrize(
    ("speed", "number"),
    [("2.5 GT/s PCIe", 1), ("8 GT/s", 3), ("16.0 GT/s PCIe", 4), ("32.0 GT/s PCIe", 5), ("Unknown", None)],
)
def test_generations(speed: str, number: int | None) -> None:
    assert generation(speed) == number


def test_access_control_registers() -> None:
    assert access_control(configuration(0x1D)) == 0x1D
    assert access_control(configuration(0x1D, capability_before=True)) == 0x1D
    assert access_control(configuration(0)) == 0
    assert access_control(configuration(None)) is None
    assert access_control(configuration(0x1D)[:64]) is None, "what the kernel shows to others than root"
    assert access_control(None) is None
    circle = bytearray(4096)
    struct.pack_into("<I", circle, 0x100, 0x0001 | 0x100 << 20)
    assert access_control(bytes(circle)) is None
