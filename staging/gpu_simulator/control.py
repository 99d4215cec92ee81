#!/usr/bin/env python3
"""Changes the state of the simulated GPUs: what the simulated NVML library and /proc, /sys show.

Standard library only: it is copied into simulated hosts with machine.py and module_file.py, and run there.

    control.py init-hardware              put two simulated RTX 5090s into this machine's slots
    control.py boot --devices /dev        what firmware, kernel and module loader do at a boot
    control.py set 0 temperature=91       change what NVML says about GPU 0, at once
    control.py drop 1                     let GPU 1 fall off the bus
    control.py xid 0 79                   raise an Xid error
    control.py secure-boot on             the firmware refuses unsigned modules from now on
    control.py kernel-add VERSION         install a kernel, which the next boot takes if it is the newest
    control.py nouveau bind               let nouveau hold the cards

Nothing here is a real GPU; names that a reader may take for real are labelled "simulated".
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

if __package__:
    from staging.gpu_simulator import machine, module_file
else:  # copied into a host, beside this file, where a package could not remove compiled files
    sys.dont_write_bytecode = True
    import machine  # type: ignore[import-not-found, no-redef]
    import module_file  # type: ignore[import-not-found, no-redef]

DEFAULT_STATE = Path("/var/lib/gpu-simulator/state.json")
# On a machine that boots: systemd removes at each boot what only a loaded module provides. It is
# not kept in /run, because containers get it by a mount, and many have a /run of their own.
BOOT_CLEANUP = Path("/etc/tmpfiles.d/gpu-simulator.conf")

DEFAULT_DRIVER = "595.91.07"
# The CUDA version that each driver branch reports.
CUDA_VERSIONS = {"580": "13.0", "590": "13.1", "595": "13.2", "610": "13.3", "615": "13.3"}
FALLBACK_CUDA = "13.0"

NULL_DEVICE = os.makedev(1, 3)
XID_EVENTS_KEPT = 100
XID_FALLEN_OFF_THE_BUS = 79
UNITS = ("c", "w", "mib", "mhz", "percent", "kib_per_second", "rpm", "mj")


class ControlError(Exception):
    """What was found, what was expected and what to do, for the person at the terminal."""


def default_gpu(index: int) -> dict[str, Any]:
    """Return the state of an idle, simulated RTX 5090. A value of null is reported as NOT_SUPPORTED."""
    return {
        "dropped": False,
        "name": "NVIDIA GeForce RTX 5090",
        "uuid": f"GPU-50900000-0000-4000-8000-{index:012d}",
        "serial": f"SIMULATED-{index:04d}",
        "vbios_version": "98.02.SIMULATED",
        "board_part_number": "SIMULATED",
        "minor_number": index,
        "pci_bus_id": f"0000:{index + 1:02x}:00.0",
        "pci_device_id": "0x2B8510DE",
        "pci_subsystem_id": "0x000010DE",
        "compute_capability": "12.0",
        "cores": 21760,
        "memory_bus_width_bits": 512,
        "memory_total_mib": 32607,
        "memory_reserved_mib": 480,
        "memory_used_mib": 2,
        "bar1_total_mib": 32768,
        "bar1_used_mib": 1,
        "temperature_c": 35,
        "temperature_shutdown_c": 95,
        "temperature_slowdown_c": 92,
        "temperature_max_c": 90,
        "fan_count": 2,
        "fan_speed_percent": 30,
        "fan_speed_rpm": 1100,
        "utilization_percent": 0,
        "memory_utilization_percent": 0,
        "encoder_utilization_percent": 0,
        "decoder_utilization_percent": 0,
        "clock_graphics_mhz": 180,
        "clock_sm_mhz": 180,
        "clock_memory_mhz": 405,
        "clock_video_mhz": 600,
        "clock_graphics_max_mhz": 3090,
        "clock_sm_max_mhz": 3090,
        "clock_memory_max_mhz": 14001,
        "clock_video_max_mhz": 3090,
        "clocks_event_reasons": 1,
        "performance_state": 8,
        "persistence_mode": 0,
        "power_usage_w": 18,
        "power_limit_w": 575,
        "power_limit_default_w": 575,
        "power_limit_min_w": 400,
        "power_limit_max_w": 600,
        "energy_mj": 0,
        "pcie_generation": 5,
        "pcie_generation_max": 5,
        "pcie_width": 16,
        "pcie_width_max": 16,
        "pcie_replay_counter": 0,
        "pcie_tx_kib_per_second": 0,
        "pcie_rx_kib_per_second": 0,
        # Advanced error reporting of PCIe, in sysfs only.
        "aer_correctable": 0,
        "aer_nonfatal": 0,
        "aer_fatal": 0,
        # GeForce cards report no ECC: null. 0 or 1 switches the counters on.
        "ecc_mode": None,
        "ecc_corrected": 0,
        "ecc_uncorrected": 0,
        "display_mode": 0,
        "display_active": 0,
        "compute_mode": 0,
        # [{"pid": 1, "name": "…", "memory_mib": 1, "type": "compute" or "graphics"}]
        "processes": [],
        "xid_events": [],
    }


def default_system() -> dict[str, Any]:
    """Return what belongs to no single GPU. Numbers are those of NVML's enumerations."""
    return {
        # NVML_P2P_STATUS_NOT_SUPPORTED: the GeForce driver denies it.
        "p2p_status": 5,
        # NVML_TOPOLOGY_HOSTBRIDGE: both cards hang on the processor's PCIe host bridge.
        "topology_level": 30,
        # Where device nodes are; a GPU without its node here is invisible. null: do not look.
        "device_directory": None,
        "xid_sequence": 0,
    }


def default_state(gpus: int, driver: str | None) -> dict[str, Any]:
    """Return the state of a machine with `gpus` cards and, unless None, user space of that driver."""
    state = {
        "label": "simulated GPUs, no real hardware",
        "driver": {"library_version": None, "cuda_version": None},
        "system": default_system(),
        "gpus": [default_gpu(index) for index in range(gpus)],
    }
    if driver is not None:
        set_driver(state, driver)
    return state


def set_driver(state: dict[str, Any], version: str) -> None:
    """Make the library report `version` and the CUDA version of its branch."""
    cuda = CUDA_VERSIONS.get(version.split(".")[0], FALLBACK_CUDA)
    state["driver"] = {"library_version": version, "cuda_version": cuda}


class Simulator:
    """A state file with the root folder of the simulated /proc and /sys beside it."""

    def __init__(self, state: Path, root: Path | None = None) -> None:
        self.path = state
        self.root = root if root is not None else state.parent / "root"
        # Elsewhere than on a simulated host, this machine's own modprobe configuration must not count.
        self.machine = machine.Machine(self.root, Path("/") if state == DEFAULT_STATE else self.root)

    @property
    def version_file(self) -> Path:
        """The file whose presence says that the module is loaded."""
        return self.root / "proc" / "driver" / "nvidia" / "version"

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other writers (this program, and the library when it sets something) out."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with open(f"{self.path}.lock", "a", encoding="utf-8") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def read(self) -> dict[str, Any]:
        """Return the state. Raises ControlError when it is missing or not JSON."""
        try:
            return json.loads(self.path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise ControlError(
                f"there is no state at {self.path}; make one with `control.py --state {self.path} init`"
            ) from None
        except ValueError as error:
            raise ControlError(
                f"{self.path} is not valid JSON ({error}); "
                f"start anew with `control.py --state {self.path} init --force`"
            ) from error

    def write(self, state: dict[str, Any]) -> None:
        """Replace the state in one step: a reader sees the old one or the new one."""
        write_atomically(self.path, json.dumps(state, indent=2) + "\n")

    @contextlib.contextmanager
    def changed(self) -> Iterator[dict[str, Any]]:
        """Hand out the state for changes and write it back when none of them failed."""
        with self.locked():
            state = self.read()
            yield state
            self.write(state)
            for gpu in state["gpus"]:
                if self.pci_directory(gpu).is_dir():
                    self.machine.show_link(self.pci_directory(gpu), gpu)

    def loaded_version(self) -> str | None:
        """Return the version of the loaded module, None when there is none."""
        try:
            text = self.version_file.read_text(encoding="utf-8")
        except OSError:
            return None
        words = [word for word in text.split() if word[:1].isdigit() and "." in word]
        return words[0] if words else None

    def pci_directory(self, gpu: dict[str, Any]) -> Path:
        """Return the folder that sysfs has for the card."""
        return self.root / "sys" / "bus" / "pci" / "devices" / gpu["pci_bus_id"]


def write_atomically(path: Path, text: str) -> None:
    """Write a world-readable file through a temporary one in the same folder."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            os.fchmod(file.fileno(), 0o644)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


def find_gpus(state: dict[str, Any], which: str) -> list[dict[str, Any]]:
    """Return the GPUs meant by an index, a UUID or `all`. Raises ControlError for another text."""
    gpus = state["gpus"]
    if which == "all":
        return gpus
    for index, gpu in enumerate(gpus):
        if which in (str(index), gpu["uuid"]):
            return [gpu]
    known = ", ".join(f"{index} ({gpu['uuid']})" for index, gpu in enumerate(gpus)) or "none"
    raise ControlError(f"there is no GPU {which!r}; known are {known}, or `all`")


def find_key(record: dict[str, Any], key: str) -> str:
    """Return the key meant; a unit at its end may be left out (`temperature` for `temperature_c`)."""
    matches = [key] if key in record else [name for unit in UNITS if (name := f"{key}_{unit}") in record]
    if len(matches) != 1:
        settable = ", ".join(sorted(set(record) - {"xid_events", "dropped", "xid_sequence"}))
        raise ControlError(f"there is no value {key!r}; settable are {settable}")
    return matches[0]


def parse_value(key: str, text: str, template: Any) -> Any:
    """Return `text` as JSON, or as text where the value is one. Raises ControlError for another type."""
    try:
        value = json.loads(text, parse_constant=lambda name: name)
    except ValueError:
        try:
            value = int(text, 0)
        except ValueError:
            value = text
    if value is None:
        return None
    if isinstance(template, str):
        return value if isinstance(value, str) else text
    if isinstance(value, bool):
        value = int(value)
    expected = list if isinstance(template, list) else (int, float)
    if not isinstance(value, expected):
        kind = "a list in JSON" if isinstance(template, list) else "a number or null"
        raise ControlError(f"{key}={text} is not possible: expected {kind}")
    return value


def check_gpu(gpu: dict[str, Any]) -> None:
    """Raise ControlError for a state that no driver could report."""
    limits = [gpu[key] for key in ("power_limit_min_w", "power_limit_w", "power_limit_max_w")]
    if None not in limits and limits != sorted(limits):
        raise ControlError(
            f"power_limit_w={limits[1]} is outside of {limits[0]}–{limits[2]} W (power_limit_min_w, power_limit_max_w)"
        )
    memory = [gpu[key] for key in ("memory_used_mib", "memory_reserved_mib", "memory_total_mib")]
    if None not in memory and memory[0] + memory[1] > memory[2]:
        raise ControlError(
            f"memory_used_mib={memory[0]} does not fit: {memory[2]} MiB in all, {memory[1]} MiB of them reserved"
        )


def add_xid(simulator: Simulator, state: dict[str, Any], gpu: dict[str, Any], code: int) -> None:
    """Append an Xid error, with its line in the kernel log; event sets registered by now deliver it once."""
    address = gpu["pci_bus_id"].rpartition(".")[0]
    text = "GPU has fallen off the bus." if code == XID_FALLEN_OFF_THE_BUS else "simulated"
    simulator.machine.log(f"NVRM: Xid (PCI:{address}): {code}, pid='<unknown>', name=<unknown>, {text}")
    state["system"]["xid_sequence"] += 1
    event = {"sequence": state["system"]["xid_sequence"], "code": code, "time": int(time.time())}
    gpu["xid_events"] = [*gpu["xid_events"], event][-XID_EVENTS_KEPT:]


def command_init(simulator: Simulator, options: argparse.Namespace) -> None:
    """Write a new state."""
    with simulator.locked():
        if simulator.path.exists() and not options.force:
            if options.if_absent:
                return
            raise ControlError(f"{simulator.path} exists; `init --force` replaces it, `init --if-absent` keeps it")
        simulator.write(default_state(options.gpus, options.driver))


def prepare_machine(computer: machine.Machine, gpus: int, kernel: str) -> None:
    """Give a machine what it lacks of a kernel, firmware, PCIe root ports, an IOMMU that is off, and a disk."""
    if not computer.kernels():
        computer.add_kernel(kernel)
    if computer.running_kernel is None:
        computer.show_running(computer.kernels()[-1])
    if not (computer.root / "sys/firmware").exists():
        computer.set_secure_boot("off")
    computer.show_bridges(gpus)
    if not (computer.root / "sys/class/iommu").exists():
        computer.set_iommu([], on=False)
    if not (computer.root / "sys/fs/ext4").exists():
        computer.set_file_system_errors(0)
    if not computer.kernel_log.exists():
        computer.log(f"Linux version {computer.running_kernel} (simulated)")


def command_init_hardware(simulator: Simulator, options: argparse.Namespace) -> None:
    """Put cards into the slots: a state where there is none, the PCI devices without a driver, the machine around."""
    if options.boot_cleanup is None and simulator.path == DEFAULT_STATE:
        options.boot_cleanup = BOOT_CLEANUP
    with simulator.locked():
        if not simulator.path.exists():
            simulator.write(default_state(options.gpus, None))
        for gpu in simulator.read()["gpus"]:
            directory = simulator.pci_directory(gpu)
            directory.mkdir(parents=True, exist_ok=True)
            device, vendor = gpu["pci_device_id"][2:6].lower(), gpu["pci_device_id"][6:].lower()
            for name, text in (("vendor", f"0x{vendor}"), ("device", f"0x{device}"), ("class", "0x030000")):
                (directory / name).write_text(text + "\n", encoding="utf-8")
            simulator.machine.show_link(directory, gpu)
        prepare_machine(simulator.machine, len(simulator.read()["gpus"]), options.kernel)
        if options.boot_cleanup:
            options.boot_cleanup.parent.mkdir(parents=True, exist_ok=True)
            options.boot_cleanup.write_text(
                "# After a boot the simulated kernel module is not loaded and no card is bound to it.\n"
                f"R! {simulator.root}/proc\n"
                f"r! {simulator.root}/sys/bus/pci/devices/*/driver\n",
                encoding="utf-8",
            )


def command_show(simulator: Simulator, options: argparse.Namespace) -> None:
    """Print the state."""
    state = simulator.read()
    if options.json:
        print(json.dumps(state | {"loaded_module": simulator.loaded_version()}, indent=2))
        return
    print(f"simulated GPUs, state in {simulator.path}")
    print(f"driver: library {state['driver']['library_version']}, loaded module {simulator.loaded_version()}")
    for index, gpu in enumerate(state["gpus"]):
        lost = "  FALLEN OFF THE BUS" if gpu["dropped"] else ""
        xids = ", ".join(str(event["code"]) for event in gpu["xid_events"]) or "none"
        print(f"GPU {index}: {gpu['name']} (simulated)  {gpu['uuid']}  {gpu['pci_bus_id']}{lost}")
        print(
            f"  {gpu['temperature_c']} °C  {gpu['power_usage_w']} of {gpu['power_limit_w']} W  "
            f"{gpu['memory_used_mib']} of {gpu['memory_total_mib']} MiB used  "
            f"utilisation {gpu['utilization_percent']} %  Xid: {xids}"
        )


def command_set(simulator: Simulator, options: argparse.Namespace) -> None:
    """Change values of a GPU, of all of them, or of the system."""
    with simulator.changed() as state:
        system = options.gpu == "system"
        template = default_system() if system else default_gpu(0)
        for record in [state["system"]] if system else find_gpus(state, options.gpu):
            for assignment in options.assignments:
                name, separator, text = assignment.partition("=")
                if not separator:
                    raise ControlError(f"{assignment!r} is not KEY=VALUE, for example temperature=91")
                key = find_key(template, name)
                if key in ("xid_events", "dropped", "xid_sequence"):
                    raise ControlError(f"{key} is changed with the commands `xid`, `drop` and `restore`")
                record[key] = parse_value(key, text, template[key])
            if not system:
                check_gpu(record)


def command_drop(simulator: Simulator, options: argparse.Namespace) -> None:
    """Let a card fall off the bus, with the Xid that the driver raises then."""
    with simulator.changed() as state:
        for gpu in find_gpus(state, options.gpu):
            if not gpu["dropped"]:
                gpu["dropped"] = True
                add_xid(simulator, state, gpu, XID_FALLEN_OFF_THE_BUS)


def command_restore(simulator: Simulator, options: argparse.Namespace) -> None:
    """Bring a fallen card back."""
    with simulator.changed() as state:
        for gpu in find_gpus(state, options.gpu):
            gpu["dropped"] = False


def command_xid(simulator: Simulator, options: argparse.Namespace) -> None:
    """Raise an Xid error."""
    with simulator.changed() as state:
        for gpu in find_gpus(state, options.gpu):
            add_xid(simulator, state, gpu, options.code)


def command_install_driver(simulator: Simulator, options: argparse.Namespace) -> None:
    """Note the version of the installed library, as a driver package does; makes no hardware."""
    with simulator.locked():
        state = simulator.read() if simulator.path.exists() else default_state(0, None)
        set_driver(state, options.version)
        simulator.write(state)


def command_load_module(simulator: Simulator, options: argparse.Namespace) -> None:
    """Load the module: /proc, driver binding, device nodes; settings start from their defaults."""
    version = options.version
    if os.sep in version:
        version = Path(version).read_text(encoding="utf-8").strip()
    load_module(simulator, version, options.devices)


def bind_cards(simulator: Simulator, gpus: list[dict[str, Any]], driver: str | None) -> None:
    """Bind the cards that are in slots to a driver, or to none."""
    for gpu in gpus:
        link = simulator.pci_directory(gpu) / "driver"
        if link.parent.is_dir():
            link.unlink(missing_ok=True)
            if driver is not None:
                target = simulator.root / "sys" / "bus" / "pci" / "drivers" / driver
                target.mkdir(parents=True, exist_ok=True)
                link.symlink_to(os.path.relpath(target, link.parent))


def load_module(simulator: Simulator, version: str, devices: Path | None, *, is_open: bool = True) -> None:
    """Load a module of this version. A proprietary one is there and drives no card of this generation."""
    with simulator.changed() as state:
        state["system"]["device_directory"] = str(devices) if devices else None
        for gpu in state["gpus"]:
            gpu.update(power_limit_w=gpu["power_limit_default_w"], persistence_mode=0, processes=[], xid_events=[])
        if is_open:
            bind_cards(simulator, state["gpus"], "nvidia")
            if devices:
                create_device_nodes(devices, state["gpus"])
        gpus = state["gpus"]
    # A machine without sysfs here was never given hardware.
    if (simulator.root / "sys").is_dir():
        for name in ("nvidia", "nvidia_uvm", "nvidia_modeset", "nvidia_drm"):
            simulator.machine.show_parameters(name)
    folder = simulator.version_file.parent
    folder.mkdir(parents=True, exist_ok=True)
    registry = {
        name.removeprefix("NVreg_"): value
        for name, value in simulator.machine.parameters("nvidia").items()
        if name.startswith("NVreg_")
    }
    write_atomically(folder / "params", "".join(f"{name}: {value}\n" for name, value in registry.items()))
    if is_open:
        text = f"NVIDIA UNIX Open Kernel Module for x86_64  {version}  Release Build  (simulated)"
    else:
        text = f"NVIDIA UNIX x86_64 Kernel Module  {version}  (simulated)"
        for gpu in gpus:
            device, vendor = gpu["pci_device_id"][2:6].lower(), gpu["pci_device_id"][6:].lower()
            simulator.machine.log(
                f"NVRM: The NVIDIA GPU {gpu['pci_bus_id']} (PCI ID: {vendor}:{device}) installed in this system "
                "requires use of the NVIDIA open kernel modules."
            )
    # Last: this file says that the module is there.
    write_atomically(simulator.version_file, f"NVRM version: {text}\nGCC version:  none (simulated)\n")


def command_boot(simulator: Simulator, options: argparse.Namespace) -> None:
    """Start the newest kernel and load what it, the firmware and modprobe's configuration allow."""
    computer = simulator.machine
    kernel = computer.start_kernel()
    if kernel is None:
        raise ControlError("there is no kernel to boot; `control.py init-hardware` gives this machine one")
    gpus = simulator.read()["gpus"]
    bind_cards(simulator, gpus, None)
    if computer.find_module(kernel, "nouveau") and not computer.is_blacklisted("nouveau"):
        bind_nouveau(simulator, gpus)
    module = computer.find_module(kernel)
    if module is None:
        return
    if computer.secure_boot() and not module_file.is_signed(module):
        computer.log("nvidia: Loading of unsigned module is rejected")
        return
    if any((simulator.pci_directory(gpu) / "driver").exists() for gpu in gpus):
        computer.log(f"NVRM: GPU {gpus[0]['pci_bus_id']} is already bound to nouveau.")
        computer.log(f"NVRM: The NVIDIA probe routine was not called for {len(gpus)} device(s).")
        return
    information = module_file.read_information(module)
    computer.log(f"NVRM: loading {module.name} {information['version']} (simulated)")
    is_open = information["license"] == machine.LICENSES["open"]
    load_module(simulator, information["version"], options.devices, is_open=is_open)


def bind_nouveau(simulator: Simulator, gpus: list[dict[str, Any]]) -> None:
    """Let nouveau hold the cards."""
    simulator.machine.show_parameters("nouveau")
    bind_cards(simulator, gpus, "nouveau")
    for gpu in gpus:
        simulator.machine.log(f"nouveau {gpu['pci_bus_id']}: NVIDIA GB202 (simulated)")


def create_device_nodes(directory: Path, gpus: list[dict[str, Any]]) -> None:
    """Create /dev/nvidia* as aliases of /dev/null; a file that is no device is left alone."""
    for name in [*(f"nvidia{gpu['minor_number']}" for gpu in gpus), "nvidiactl", "nvidia-uvm"]:
        path = directory / name
        if not path.exists():
            os.mknod(path, stat.S_IFCHR | 0o666, NULL_DEVICE)
            path.chmod(0o666)


def command_unload_module(simulator: Simulator, options: argparse.Namespace) -> None:
    """Unload the module: NVML answers as on a host without a driver."""
    shutil.rmtree(simulator.version_file.parent, ignore_errors=True)
    for folder in simulator.root.glob("sys/module/nvidia*"):
        shutil.rmtree(folder)
    with simulator.changed() as state:
        bind_cards(simulator, state["gpus"], None)


def command_install_module(simulator: Simulator, options: argparse.Namespace) -> None:
    """Build the module for every kernel that has headers, as a DKMS package does; the next boot loads it."""
    simulator.machine.install_module(options.version, options.kind)


def command_remove_module(simulator: Simulator, options: argparse.Namespace) -> None:
    """Remove what install-module built; a loaded module stays loaded."""
    simulator.machine.remove_module()


def command_install_signed_module(simulator: Simulator, options: argparse.Namespace) -> None:
    """Install a distribution's signed module for the kernels given, by default for all."""
    for kernel in options.kernel or simulator.machine.kernels():
        simulator.machine.install_signed_module(options.version, kernel, options.folder, options.signer)


def command_remove_signed_module(simulator: Simulator, options: argparse.Namespace) -> None:
    """Remove a distribution's module from every kernel."""
    simulator.machine.remove_signed_module(options.folder)


def command_kernel_add(simulator: Simulator, options: argparse.Namespace) -> None:
    """Install a kernel. Without headers no module is built for it."""
    simulator.machine.add_kernel(options.version, headers=options.headers)


def command_kernel_remove(simulator: Simulator, options: argparse.Namespace) -> None:
    """Remove a kernel that does not run."""
    if options.version == simulator.machine.running_kernel:
        raise ControlError(f"{options.version} runs; boot another kernel first")
    simulator.machine.remove_kernel(options.version)


def command_headers(simulator: Simulator, options: argparse.Namespace) -> None:
    """Install or remove the headers of a kernel; modules are built for it as soon as they are there."""
    change = simulator.machine.add_headers if options.command == "headers-add" else simulator.machine.remove_headers
    change(options.version)


def command_secure_boot(simulator: Simulator, options: argparse.Namespace) -> None:
    """Switch Secure Boot on or off, or take its variable away, as on a machine with a legacy BIOS."""
    simulator.machine.set_secure_boot(options.to)


def command_nouveau(simulator: Simulator, options: argparse.Namespace) -> None:
    """bind: the kernels have nouveau and it holds the cards; install: from the next boot; remove: never again."""
    if options.to == "remove":
        simulator.machine.remove_nouveau()
        return
    simulator.machine.install_nouveau()
    if options.to == "bind":
        if simulator.loaded_version() is not None:
            raise ControlError("the nvidia module is loaded; `nouveau install` and a reboot, or `unload-module` first")
        bind_nouveau(simulator, simulator.read()["gpus"])


def command_kernel_log(simulator: Simulator, options: argparse.Namespace) -> None:
    """Append a line to the kernel log."""
    simulator.machine.log(options.text)


def command_kernel_command_line(simulator: Simulator, options: argparse.Namespace) -> None:
    """Set what the boot loader adds to the kernel's command line from the next boot on."""
    simulator.machine.set_command_line(options.text)


def command_iommu(simulator: Simulator, options: argparse.Namespace) -> None:
    """Switch the IOMMU on or off."""
    addresses = [gpu["pci_bus_id"] for gpu in simulator.read()["gpus"]]
    simulator.machine.set_iommu(addresses, on=options.to == "on")


def command_access_control(simulator: Simulator, options: argparse.Namespace) -> None:
    """Switch PCIe access control (ACS) of the root ports on or off."""
    simulator.machine.set_access_control(on=options.to == "on")


def command_file_system_errors(simulator: Simulator, options: argparse.Namespace) -> None:
    """Let the root file system report errors."""
    simulator.machine.set_file_system_errors(options.count)


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    main = argparse.ArgumentParser(prog="control.py", description="Controls simulated GPUs.")
    main.add_argument(
        "--state",
        type=Path,
        default=Path(os.environ.get("GPU_SIMULATOR_STATE", DEFAULT_STATE)),
        help="state file (default: $GPU_SIMULATOR_STATE or %(default)s)",
    )
    root = os.environ.get("GPU_SIMULATOR_ROOT")
    main.add_argument(
        "--root",
        type=Path,
        default=Path(root) if root else None,
        help="root of the simulated /proc and /sys (default: $GPU_SIMULATOR_ROOT or `root` beside the state)",
    )
    commands = main.add_subparsers(dest="command", required=True)

    def add(name: str, function: Any) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=function.__doc__, description=function.__doc__)
        command.set_defaults(function=function)
        return command

    init = add("init", command_init)
    init.add_argument("--gpus", type=int, default=2)
    init.add_argument("--driver", default=DEFAULT_DRIVER, help="version of the library (default: %(default)s)")
    init.add_argument("--force", action="store_true", help="replace an existing state")
    init.add_argument("--if-absent", action="store_true", help="keep an existing state")
    hardware = add("init-hardware", command_init_hardware)
    hardware.add_argument("--gpus", type=int, default=2)
    hardware.add_argument("--kernel", default=machine.DEFAULT_KERNEL, help="the first kernel (default: %(default)s)")
    hardware.add_argument(
        "--boot-cleanup",
        type=Path,
        help=f"tmpfiles.d file that unloads at each boot (default: {BOOT_CLEANUP} for the default state)",
    )
    add("show", command_show).add_argument("--json", action="store_true")
    change = add("set", command_set)
    change.add_argument("gpu", help="index, UUID, `all`, or `system`")
    change.add_argument("assignments", nargs="+", metavar="KEY=VALUE")
    add("drop", command_drop).add_argument("gpu")
    add("restore", command_restore).add_argument("gpu")
    xid = add("xid", command_xid)
    xid.add_argument("gpu")
    xid.add_argument("code", type=int)
    add("install-driver", command_install_driver).add_argument("version")
    install = add("install-module", command_install_module)
    install.add_argument("version")
    install.add_argument("--kind", choices=sorted(machine.LICENSES), default="open")
    add("remove-module", command_remove_module)
    signed = add("install-signed-module", command_install_signed_module)
    signed.add_argument("version")
    signed.add_argument("--folder", required=True, help="below /lib/modules/KERNEL/kernel")
    signed.add_argument("--signer", default="Canonical Ltd. Kernel Module Signing (simulated)")
    signed.add_argument("--kernel", action="append", help="may be given several times")
    add("remove-signed-module", command_remove_signed_module).add_argument("folder")
    boot = add("boot", command_boot)
    boot.add_argument("--devices", type=Path, help="create device nodes here, and see only GPUs that have one")
    kernel = add("kernel-add", command_kernel_add)
    kernel.add_argument("version")
    kernel.add_argument("--no-headers", dest="headers", action="store_false")
    add("kernel-remove", command_kernel_remove).add_argument("version")
    add("headers-add", command_headers).add_argument("version")
    add("headers-remove", command_headers).add_argument("version")
    add("secure-boot", command_secure_boot).add_argument("to", choices=("on", "off", "absent"))
    add("nouveau", command_nouveau).add_argument("to", choices=("bind", "install", "remove"))
    add("kernel-log", command_kernel_log).add_argument("text")
    add("kernel-command-line", command_kernel_command_line).add_argument("text")
    add("iommu", command_iommu).add_argument("to", choices=("on", "off"))
    add("access-control", command_access_control).add_argument("to", choices=("on", "off"))
    add("file-system-errors", command_file_system_errors).add_argument("count", type=int)
    load = add("load-module", command_load_module)
    load.add_argument("version", help="the version, or the path of a file that holds it")
    load.add_argument("--devices", type=Path, help="create device nodes here, and see only GPUs that have one")
    add("unload-module", command_unload_module)
    return main


def main(arguments: list[str] | None = None) -> int:
    """Run one command. Returns the exit status; errors go to standard error."""
    options = parser().parse_args(arguments)
    try:
        options.function(Simulator(options.state, options.root), options)
    except (ControlError, OSError, ValueError) as error:
        print(f"gpu simulator: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
