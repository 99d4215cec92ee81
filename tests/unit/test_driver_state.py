"""What is made of the state of a host: options, reboots, Secure Boot, drift."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.pageindex.home.plugins.module_utils import driver_state
from ansible_collections.pageindex.home.plugins.module_utils.catalogue_files import catalogue

WORKAROUNDS = catalogue("workarounds")
RELEASES = catalogue("releases")
OWN = "/etc/modprobe.d/pageindex-home-nvidia.conf"
VERSION = "595.91.07"
PACKAGES = ["nvidia-open", "nvidia-persistenced"]


def module(version: str | None = VERSION, license_: str | None = "Dual MIT/GPL") -> dict[str, Any]:
    return {"path": "/lib/modules/6.2/updates/dkms/nvidia.ko", "version": version, "license": license_}


def kernel(**changes: Any) -> dict[str, Any]:
    facts = {
        "running": "6.1", "next": "6.2", "headers": {"6.1": True, "6.2": True},
        "modules": {"6.1": [module()], "6.2": [module()]}, "flavour": "open", "parameters": {},
        "configured_options": [], "secure_boot": False, "signing_key_enrolled": False,
        "packages": dict.fromkeys(PACKAGES, f"{VERSION}-1"), "held": PACKAGES, "dkms": True,
    }  # fmt: skip
    return {**facts, **changes}


def host(loaded: str | None = VERSION, bound: str = "nvidia", **changes: Any) -> dict[str, Any]:
    return {
        "driver_loaded": loaded,
        "pci_gpus": [{"address": "0000:01:00.0", "kernel_driver": bound}],
        "nvml": {"driver_version": VERSION},
        "kernel": kernel(**changes),
    }


def option(file: str, value: str) -> dict[str, str]:
    return {"file": file, "module": "nvidia_uvm", "parameter": "uvm_disable_hmm", "value": value}


def test_options_of_workarounds_and_of_the_owner() -> None:
    wanted = driver_state.wanted_options(
        {"nvidia-uvm": {"uvm_disable_hmm": False}, "nvidia": {"NVreg_A": 2}}, ["uvm_disable_hmm"], WORKAROUNDS
    )
    assert wanted == {"nvidia_uvm": {"uvm_disable_hmm": "0"}, "nvidia": {"NVreg_A": "2"}}
    assert driver_state.wanted_options({}, ["unknown"], WORKAROUNDS) == {}
    assert driver_state.wanted_options({}, ["uvm_disable_hmm"], WORKAROUNDS) == {"nvidia_uvm": {"uvm_disable_hmm": "1"}}


@pytest.mark.parametrize(
    ("found", "wanted", "different"),
    [
        ("Y", "1", False),
        ("N", "0", False),
        ("Y", "0", True),
        ("2", "0x2", False),
        ("1", "yes", False),
        ("3", "0", True),
    ],
)
def test_values_are_compared_as_the_kernel_means_them(found: str, wanted: str, different: bool) -> None:
    facts = kernel(parameters={"nvidia_drm": {"modeset": found}})
    seen = driver_state.options_not_in_effect(facts, {"nvidia_drm": {"modeset": wanted}}, {}, OWN)
    assert bool(seen) is different


def test_an_option_in_effect_needs_nothing_and_one_that_is_not_says_so() -> None:
    wanted = {"nvidia_uvm": {"uvm_disable_hmm": "1"}}
    on, off = ({"nvidia_uvm": {"uvm_disable_hmm": value}} for value in "YN")
    assert driver_state.options_not_in_effect(kernel(parameters=on), wanted, WORKAROUNDS, OWN) == []
    assert driver_state.options_not_in_effect(kernel(parameters=off), wanted, WORKAROUNDS, OWN) == [
        "nvidia_uvm runs with uvm_disable_hmm=N, wanted is 1"
    ]
    # Not loaded yet: it takes the option when it is.
    assert driver_state.options_not_in_effect(kernel(), wanted, WORKAROUNDS, OWN) == []


def test_a_workaround_that_is_no_longer_asked_for_is_expected_to_be_off() -> None:
    facts = kernel(parameters={"nvidia_uvm": {"uvm_disable_hmm": "Y"}}, configured_options=[option(OWN, "1")])
    assert driver_state.options_not_in_effect(facts, {}, WORKAROUNDS, OWN) == [
        "nvidia_uvm runs with uvm_disable_hmm=Y, wanted is 0"
    ]


def test_an_option_of_another_file_is_the_owners_own_affair() -> None:
    # Otherwise every run would reboot the host.
    facts = kernel(
        parameters={"nvidia_uvm": {"uvm_disable_hmm": "Y"}},
        configured_options=[option("/etc/modprobe.d/mine.conf", "1")],
    )
    assert driver_state.options_not_in_effect(facts, {}, WORKAROUNDS, OWN) == []


def test_an_option_that_two_files_set_differently_is_refused() -> None:
    wanted = {"nvidia_uvm": {"uvm_disable_hmm": "1"}}
    clash = kernel(configured_options=[option(OWN, "0"), option("/etc/modprobe.d/mine.conf", "0")])
    [problem] = driver_state.option_conflicts(clash, wanted, OWN)
    assert "mine.conf" in problem and "wanted is 1" in problem
    agreeing = kernel(configured_options=[option("/etc/modprobe.d/mine.conf", "Y")])
    assert driver_state.option_conflicts(agreeing, wanted, OWN) == []


@pytest.mark.parametrize(
    ("facts", "reasons"),
    [
        (host(), []),
        (host(loaded=None), ["no NVIDIA driver is loaded"]),
        (host(loaded="580.1"), [f"driver 580.1 is loaded, {VERSION} is installed"]),
        (host(loaded=None, bound="nouveau"), ["nouveau holds a card", "no NVIDIA driver is loaded"]),
        (host(flavour="proprietary"), ["the proprietary module is loaded"]),
    ],
)
def test_reasons_for_a_reboot(facts: dict[str, Any], reasons: list[str]) -> None:
    assert driver_state.reboot_reasons(facts, VERSION, []) == reasons


def test_options_are_a_reason_for_a_reboot() -> None:
    assert driver_state.reboot_reasons(host(), VERSION, ["an option"]) == ["an option"]


@pytest.mark.parametrize(
    ("files", "missing"),
    [
        ([], True),
        ([module()], False),
        ([module("580.1")], True),
        ([module(license_="NVIDIA")], True),
        ([module(None, None)], False),
        # modprobe takes the first: a fitting one behind it does not help.
        ([module("580.1"), module()], True),
    ],
)
def test_module_for_the_next_boot(files: list[dict[str, Any]], missing: bool) -> None:
    assert driver_state.next_module_missing(kernel(modules={"6.2": files}), VERSION) is missing


def test_a_host_without_kernels_of_its_own_misses_no_module() -> None:
    assert not driver_state.next_module_missing(kernel(next=None), VERSION)
    assert not driver_state.next_module_missing({}, VERSION)


def test_what_stands_against_a_reboot() -> None:
    assert driver_state.boot_problem(kernel(), VERSION) == driver_state.boot_problem(kernel(next=None), VERSION) == ""
    problem = driver_state.boot_problem(kernel(modules={}, headers={"6.2": False}), VERSION)
    assert "apt-get install linux-headers-6.2" in problem and "dkms autoinstall -k 6.2" in problem


def test_secure_boot_stops_with_the_steps_at_the_console() -> None:
    problem = driver_state.secure_boot_problem(kernel(secure_boot=True), "nvidia", RELEASES["trixie"])
    steps = ["Secure Boot is on", "mokutil --import /var/lib/dkms/mok.pub", "Enroll MOK", "run the same command again"]
    assert [step for step in steps if step not in problem] == []
    assert "nvidia_driver_source" not in problem
    ubuntu = driver_state.secure_boot_problem(kernel(secure_boot=True), "nvidia", RELEASES["noble"])
    assert "/var/lib/shim-signed/mok/MOK.der" in ubuntu and "Set nvidia_driver_source to auto" in ubuntu


@pytest.mark.parametrize(
    ("facts", "source"),
    [
        ({"secure_boot": False}, "nvidia"),
        ({"secure_boot": None}, "nvidia"),
        ({"secure_boot": True}, "distribution"),
        ({"secure_boot": True, "signing_key_enrolled": True}, "nvidia"),
    ],
)
def test_secure_boot_is_no_problem(facts: dict[str, Any], source: str) -> None:
    assert driver_state.secure_boot_problem(kernel(**facts), source, RELEASES["noble"]) == ""


def drift(facts: dict[str, Any], options: tuple[str, ...] = ()) -> list[str]:
    return driver_state.driver_drift(facts, PACKAGES, True, options)


def test_a_host_on_which_all_agree_has_no_drift() -> None:
    assert drift(host()) == []
    assert drift(host(next=None, modules={})) == []


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        (host(packages={"nvidia-open": f"{VERSION}-1"}), ["Not installed: nvidia-persistenced"]),
        (host(packages=dict.fromkeys(PACKAGES, "595.99.01-1"), next=None), ["nvidia-open is 595.99.01", VERSION]),
        (host(flavour="proprietary"), ["proprietary"]),
        (host(held=["nvidia-open"]), ["Not held", "nvidia-persistenced"]),
        (host(modules={"6.1": [module()], "6.2": []}), ["next kernel 6.2", "there is none"]),
        (host(modules={"6.1": [], "6.2": [module()]}), ["running kernel 6.1", "cannot come back"]),
        (
            host(modules={"6.1": [module()], "6.2": [module("580.1")]}, headers={"6.1": True, "6.2": False}),
            ["next kernel 6.2", "580.1", "linux-headers-6.2"],
        ),
    ],
)  # fmt: skip
def test_drift_says_what_disagrees_and_what_to_run(facts: dict[str, Any], words: list[str]) -> None:
    [sentence] = drift(facts)
    assert [word for word in words if word not in sentence] == []
    assert "ansible-playbook site.yml --tags nvidia_driver" in sentence


def test_drift_of_libraries_and_options() -> None:
    facts = {**host(), "nvml": {"driver_version": "595.99.01"}}
    assert drift(facts) == [
        f"The libraries are 595.99.01, the loaded module {VERSION}. {driver_state.REPAIR}; it reboots."
    ]
    [sentence] = drift(host(), ("nvidia_uvm runs with a=N, wanted is 1",))
    assert sentence.startswith("Nvidia_uvm") is False and sentence.startswith("The option")


def test_a_kernel_that_runs_and_boots_next_is_named_once() -> None:
    facts = host(running="6.2", modules={"6.2": []})
    assert len(drift(facts)) == 1
