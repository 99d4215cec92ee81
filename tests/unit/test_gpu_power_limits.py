"""Power limits: what is refused, what is set, and the program that sets them at boot."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from ansible_collections.pageindex.home.plugins.module_utils.gpu_power_limits import (
    Card,
    PowerLimitError,
    PowerManagement,
    apply,
    card_of,
    differences,
    normal_bus_id,
    parse_wanted,
    problems,
    targets,
)

REPOSITORY = Path(__file__).resolve().parents[2]
CARDS = [
    Card(0, "RTX 5090", "GPU-aa", "00000000:01:00.0", limit=575, default=575, minimum=400, maximum=600),
    Card(1, "RTX 5090", "GPU-bb", "00000000:41:00.0", limit=500, default=600, minimum=450, maximum=600),
]
LOST = Card(2, error="GPU is lost")


class NvmlError(Exception):
    """What pynvml raises."""


class FakeNvml:
    """pynvml with one card whose limit can be set between 400 and 600 W, and one that refuses."""

    NVMLError = NvmlError

    def __init__(self, silent_for: int = 0) -> None:
        self.limits = {0: 575000, 1: 575000}
        self.refuses = {1}
        self.silent_for = silent_for

    def nvmlInit(self) -> None:
        if self.silent_for > 0:
            self.silent_for -= 1
            raise NvmlError("Driver Not Loaded")

    def nvmlShutdown(self) -> None: ...

    def nvmlDeviceGetCount(self) -> int:
        return 2

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        return index

    def nvmlDeviceGetName(self, handle: int) -> bytes:
        return b"RTX 5090"

    def nvmlDeviceGetUUID(self, handle: int) -> str:
        return f"GPU-{handle}"

    def nvmlDeviceGetPciInfo(self, handle: int) -> SimpleNamespace:
        return SimpleNamespace(busId=f"00000000:0{handle + 1}:00.0".encode())

    def nvmlDeviceGetPowerManagementLimit(self, handle: int) -> int:
        return self.limits[handle]

    def nvmlDeviceGetPowerManagementDefaultLimit(self, handle: int) -> int:
        return 575000

    def nvmlDeviceGetPowerManagementLimitConstraints(self, handle: int) -> list[int]:
        return [400000, 600000]

    def nvmlDeviceSetPowerManagementLimit(self, handle: int, milliwatts: int) -> None:
        if handle in self.refuses:
            raise NvmlError("Insufficient Permissions")
        self.limits[handle] = milliwatts


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        (None, None),
        ("", None),
        ({}, None),
        (450, 450),
        ("450", 450),
        (450.0, 450),
        ({0: 450, "GPU-bb": "500", "2": None}, {"0": 450, "GPU-bb": 500, "2": None}),
    ],
)
def test_values_that_are_accepted(value: Any, wanted: Any) -> None:
    assert parse_wanted(value) == wanted


@pytest.mark.parametrize("value", [True, 450.5, "450 W", -1, 0, [450], {0: "much"}, {0: True}])
def test_values_that_are_no_watts(value: Any) -> None:
    with pytest.raises(PowerLimitError, match=r"gpu_power_limit_watts is .*expected watts"):
        parse_wanted(value)


def test_a_bus_id_that_yaml_read_as_a_number_is_explained() -> None:
    with pytest.raises(PowerLimitError, match="put PCI bus ids into quotes") as failure:
        parse_wanted({60.0: 450, "0": "x"})
    assert "for card 0" in str(failure.value), "all mistakes are named at once"


@pytest.mark.parametrize("key", ["1", "GPU-bb", "gpu-BB", "00000000:41:00.0", "0000:41:00.0", "41:00.0"])
def test_a_card_is_found_by_index_uuid_and_bus_id(key: str) -> None:
    found = card_of(key, CARDS)
    assert found is not None and found.index == 1


def test_bus_ids_are_compared_in_one_form() -> None:
    assert normal_bus_id("00000000:AB:00.0") == normal_bus_id("ab:00.0") == "0000:ab:00.0"
    assert normal_bus_id("GPU-AA") == "gpu-aa"


def test_cards_that_are_not_named_get_their_own_default() -> None:
    assert targets({"GPU-aa": 450}, CARDS) == {0: 450, 1: 600}
    assert targets({"0": None}, CARDS) == {0: 575, 1: 600}
    assert targets(500, CARDS) == {0: 500, 1: 500}
    assert targets(None, CARDS) == {}


def test_a_value_outside_the_range_is_refused_with_the_range_of_each_card() -> None:
    first, second = problems(700, CARDS)
    assert "700 W on GPU 0" in first and "400 W to 600 W, its default is 575 W" in first
    assert "GPU 1" in second and "450 W to 600 W" in second
    assert [entry for entry in problems(420, CARDS) if "GPU 1" in entry] == problems(420, CARDS) != []
    assert problems(450, CARDS) == problems({"0": 400}, CARDS) == []


def test_unknown_cards_are_refused_with_the_known_ones() -> None:
    [problem] = problems({"GPU-cc": 450}, CARDS)
    assert "GPU-cc" in problem and "GPU-aa" in problem and "00000000:41:00.0" in problem


def test_one_card_named_twice_is_refused() -> None:
    [problem] = problems({"1": 500, "41:00.0": 550}, CARDS)
    assert "names GPU 1 2 times (1, 41:00.0)" in problem


def test_without_cards_nothing_is_refused() -> None:
    assert problems({"GPU-cc": 9000}, []) == []
    assert problems(450, [*CARDS, LOST]) == [], "a lost card is no mistake in the variable"


def test_a_card_without_settable_limit_is_refused_when_it_is_named() -> None:
    laptop = Card(0, "RTX 5090 Laptop GPU", "GPU-dd", "00000000:01:00.0")
    assert "has no power limit that can be set" in problems(100, [laptop])[0]
    assert problems({"0": None}, [laptop]) == []


def test_differences_name_found_and_expected() -> None:
    [difference] = differences({"1": 550}, CARDS)
    assert "GPU 1" in difference and "500 W, expected 550 W" in difference
    assert differences(None, CARDS) == []
    assert differences(500, [LOST]) == ["GPU 2 does not answer: GPU is lost"]


def test_one_card_that_refuses_does_not_keep_the_others_from_their_limit() -> None:
    nvml = FakeNvml()
    with PowerManagement(nvml) as management:
        done, failed = apply(management, 450)
    assert nvml.limits == {0: 450000, 1: 575000}
    assert "450 W, was 575 W" in done[0]
    assert "GPU 1" in failed[0] and "Insufficient Permissions" in failed[0] and "400 W to 600 W" in failed[0]


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """templates/gpu_power/apply_power_limits.py, which waits without sleeping."""
    path = REPOSITORY / "templates" / "gpu_power" / "apply_power_limits.py"
    specification = importlib.util.spec_from_file_location("apply_power_limits", path)
    assert specification and specification.loader
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    monkeypatch.setattr(module, "PAUSE_SECONDS", 0)
    return module


def settings(folder: Path, limit: Any, seconds: float = 5) -> list[str]:
    path = folder / "limits.json"
    path.write_text(json.dumps({"limit_watts": limit, "wait_seconds": seconds}))
    return [str(path)]


def test_the_program_waits_for_the_driver(
    program: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nvml = FakeNvml(silent_for=3)
    nvml.refuses = set()
    assert program.main(settings(tmp_path, {"0": 450}), nvml) == 0
    assert nvml.limits == {0: 450000, 1: 575000}
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 2 and "450 W, was 575 W" in said[0] and "as it was" in said[1]


def test_the_program_does_not_wait_for_ever(
    program: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert program.main(settings(tmp_path, 450, seconds=0), FakeNvml(silent_for=10**9)) == 1
    said = capsys.readouterr().err
    assert "Driver Not Loaded" in said and "no power limit was set" in said and "site.yml --tags" in said


def test_the_program_fails_when_a_card_refuses(
    program: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert program.main(settings(tmp_path, 450), FakeNvml()) == 1
    assert "Insufficient Permissions" in capsys.readouterr().err
