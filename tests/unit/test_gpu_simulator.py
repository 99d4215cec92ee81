"""The simulated NVML library, driven by the real nvidia-ml-py, and the program that changes its state."""

from __future__ import annotations

import glob
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pynvml
import pytest

from staging.gpu_simulator import control
from staging.gpu_simulator.build import SOURCES, build_library

MIB = 1024 * 1024


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library, compiled without a single warning."""
    return build_library(tmp_path_factory.mktemp("gpu-simulator"), flags="-O2 -g0 -Werror")


@dataclass
class Machine:
    """A simulated machine of its own: a state file, and programs that see it."""

    state: Path
    library: Path

    @property
    def environment(self) -> dict[str, str]:
        return os.environ | {
            "GPU_SIMULATOR_STATE": str(self.state),
            "LD_LIBRARY_PATH": str(self.library.parent),
        }

    def control(self, *arguments: str) -> str:
        """Run control.py; a failure is the test's."""
        result = self.try_control(*arguments)
        assert result.returncode == 0, result.stderr
        return result.stdout

    def try_control(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, str(SOURCES / "control.py"), *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )

    def nvml(self, program: str) -> object:
        """Run Python lines with `n` (pynvml), `state(…)` and `gpus` in a process; return their `result`."""
        preamble = """
            import json, subprocess, sys
            import pynvml as n
            def control(*arguments):
                subprocess.run([sys.executable, CONTROL, *arguments], check=True)
            def error(call, *arguments):
                try:
                    call(*arguments)
                except n.NVMLError as caught:
                    return type(caught).__name__
                return "no error"
            result = None
        """
        script = "\n".join(
            [
                f"CONTROL = {str(SOURCES / 'control.py')!r}",
                textwrap.dedent(preamble),
                textwrap.dedent(program),
                "print(json.dumps(result))",
            ]
        )
        done = subprocess.run(
            [sys.executable, "-c", script],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def gpus(self, program: str) -> object:
        """As nvml(), after nvmlInit and with the handles in `gpus`."""
        start = "n.nvmlInit()\ngpus = [n.nvmlDeviceGetHandleByIndex(i) for i in range(n.nvmlDeviceGetCount())]\n"
        return self.nvml(start + textwrap.dedent(program))

    def record(self, index: int = 0) -> dict:
        return json.loads(self.state.read_text())["gpus"][index]


@pytest.fixture
def bare(tmp_path: Path, library: Path) -> Machine:
    """A machine with two cards and no loaded module."""
    machine = Machine(tmp_path / "state.json", library)
    machine.control("init")
    return machine


@pytest.fixture
def machine(bare: Machine) -> Machine:
    """A machine with two cards and the module that fits the library."""
    bare.control("load-module", control.DEFAULT_DRIVER)
    return bare


def test_default_identity(machine: Machine) -> None:
    found = machine.gpus("""
        pci = n.nvmlDeviceGetPciInfo(gpus[1])
        result = {
            "driver": n.nvmlSystemGetDriverVersion(), "nvml": n.nvmlSystemGetNVMLVersion(),
            "cuda": n.nvmlSystemGetCudaDriverVersion(), "branch": n.nvmlSystemGetDriverBranch().branch,
            "names": [n.nvmlDeviceGetName(gpu) for gpu in gpus],
            "uuids": [n.nvmlDeviceGetUUID(gpu) for gpu in gpus],
            "serials": [n.nvmlDeviceGetSerial(gpu) for gpu in gpus],
            "vbios": n.nvmlDeviceGetVbiosVersion(gpus[0]),
            "capability": n.nvmlDeviceGetCudaComputeCapability(gpus[0]),
            "architecture": n.nvmlDeviceGetArchitecture(gpus[0]), "brand": n.nvmlDeviceGetBrand(gpus[0]),
            "pci": [pci.busId, pci.busIdLegacy, pci.domain, pci.bus, pci.device, pci.pciDeviceId],
            "indexes": [n.nvmlDeviceGetIndex(gpu) for gpu in gpus],
            "minors": [n.nvmlDeviceGetMinorNumber(gpu) for gpu in gpus],
        }
    """)
    assert isinstance(found, dict)
    assert found["driver"] == "595.91.07"
    assert found["nvml"] == "13.595.91.07"
    assert found["cuda"] == 13020
    assert found["branch"] == "r595"
    assert found["names"] == ["NVIDIA GeForce RTX 5090"] * 2
    assert len(set(found["uuids"])) == 2 and all(uuid.startswith("GPU-") for uuid in found["uuids"])
    assert all("SIMULATED" in text for text in [*found["serials"], found["vbios"]])
    assert found["capability"] == [12, 0]
    assert (found["architecture"], found["brand"]) == (
        pynvml.NVML_DEVICE_ARCH_BLACKWELL,
        pynvml.NVML_BRAND_GEFORCE,
    )
    assert found["pci"] == ["00000000:02:00.0", "0000:02:00.0", 0, 2, 0, 0x2B8510DE]
    assert found["indexes"] == found["minors"] == [0, 1]


def test_extended_pci_information(machine: Machine) -> None:
    found = machine.gpus("""
        import ctypes
        info = n.nvmlPciInfoExt_v1_t()
        info.version = n.nvmlPciInfoExt_v1
        n.nvmlDeviceGetPciInfoExt(gpus[0], ctypes.byref(info))
        result = [info.busId, info.bus, info.baseClass, info.pciDeviceId]
    """)
    assert found == ["00000000:01:00.0", 1, 3, 0x2B8510DE]


@pytest.mark.parametrize(
    ("lookup", "argument"),
    [
        ("nvmlDeviceGetHandleByUUID", "GPU-50900000-0000-4000-8000-000000000001"),
        ("nvmlDeviceGetHandleBySerial", "SIMULATED-0001"),
        ("nvmlDeviceGetHandleByPciBusId", "00000000:02:00.0"),
        ("nvmlDeviceGetHandleByPciBusId", "0000:02:00.0"),
        ("nvmlDeviceGetHandleByPciBusId", "02:00.0"),
    ],
)
def test_handle_lookups(machine: Machine, lookup: str, argument: str) -> None:
    assert machine.gpus(f"result = n.nvmlDeviceGetIndex(n.{lookup}({argument!r}))") == 1


def test_lookups_of_what_is_not_there(machine: Machine) -> None:
    assert (
        machine.gpus("""
        result = [error(n.nvmlDeviceGetHandleByUUID, "GPU-none"),
                  error(n.nvmlDeviceGetHandleByPciBusId, "0000:09:00.0"),
                  error(n.nvmlDeviceGetHandleByPciBusId, "nonsense"), error(n.nvmlDeviceGetHandleByIndex, 2),
                  error(n.nvmlDeviceGetName, n.c_nvmlDevice_t())]
    """)
        == ["NVMLError_NotFound"] * 3 + ["NVMLError_InvalidArgument"] * 2
    )


def test_memory_in_both_versions(machine: Machine) -> None:
    machine.control("set", "0", "memory_used_mib=1000", "memory_reserved_mib=500")
    found = machine.gpus("""
        old = n.nvmlDeviceGetMemoryInfo(gpus[0])
        new = n.nvmlDeviceGetMemoryInfo(gpus[0], version=n.nvmlMemory_v2)
        bar = n.nvmlDeviceGetBAR1MemoryInfo(gpus[0])
        result = [[old.total, old.used, old.free], [new.total, new.reserved, new.used, new.free],
                  bar.bar1Total - bar.bar1Used - bar.bar1Free]
    """)
    free = (32607 - 1500) * MIB
    assert found == [[32607 * MIB, 1500 * MIB, free], [32607 * MIB, 500 * MIB, 1000 * MIB, free], 0]


def test_defaults_of_a_5090(machine: Machine) -> None:
    found = machine.gpus("""
        gpu = gpus[0]
        result = {
            "limits": n.nvmlDeviceGetPowerManagementLimitConstraints(gpu),
            "limit": n.nvmlDeviceGetPowerManagementLimit(gpu),
            "default": n.nvmlDeviceGetPowerManagementDefaultLimit(gpu),
            "enforced": n.nvmlDeviceGetEnforcedPowerLimit(gpu),
            "usage": n.nvmlDeviceGetPowerUsage(gpu),
            "link": [n.nvmlDeviceGetCurrPcieLinkGeneration(gpu), n.nvmlDeviceGetMaxPcieLinkGeneration(gpu),
                     n.nvmlDeviceGetCurrPcieLinkWidth(gpu), n.nvmlDeviceGetMaxPcieLinkWidth(gpu)],
            "speed": n.nvmlDeviceGetPcieSpeed(gpu), "replays": n.nvmlDeviceGetPcieReplayCounter(gpu),
            "display": [n.nvmlDeviceGetDisplayMode(gpu), n.nvmlDeviceGetDisplayActive(gpu)],
            "fans": [n.nvmlDeviceGetNumFans(gpu), n.nvmlDeviceGetFanSpeed_v2(gpu, 1),
                     n.nvmlDeviceGetFanSpeedRPM(gpu)],
            "thresholds": [n.nvmlDeviceGetTemperatureThreshold(gpu, n.NVML_TEMPERATURE_THRESHOLD_SHUTDOWN),
                           n.nvmlDeviceGetTemperatureThreshold(gpu, n.NVML_TEMPERATURE_THRESHOLD_SLOWDOWN),
                           n.nvmlDeviceGetTemperatureThreshold(gpu, n.NVML_TEMPERATURE_THRESHOLD_GPU_MAX)],
            "no threshold": error(n.nvmlDeviceGetTemperatureThreshold, gpu,
                                  n.NVML_TEMPERATURE_THRESHOLD_MEM_MAX),
            "ecc": [error(n.nvmlDeviceGetEccMode, gpu), error(n.nvmlDeviceGetTotalEccErrors, gpu, 0, 0)],
            "persistence": n.nvmlDeviceGetPersistenceMode(gpu), "state": n.nvmlDeviceGetPerformanceState(gpu),
            "reasons": [n.nvmlDeviceGetCurrentClocksEventReasons(gpu),
                        n.nvmlDeviceGetCurrentClocksThrottleReasons(gpu)],
            "clocks": [n.nvmlDeviceGetClockInfo(gpu, kind) < n.nvmlDeviceGetMaxClockInfo(gpu, kind)
                       for kind in range(4)],
            "p2p": [n.nvmlDeviceGetP2PStatus(gpus[0], gpus[1], kind) for kind in range(5)],
            "topology": n.nvmlDeviceGetTopologyCommonAncestor(gpus[0], gpus[1]),
            "near": [len(n.nvmlDeviceGetTopologyNearestGpus(gpu, level)) for level in (10, 30)],
            "by cpu": len(n.nvmlSystemGetTopologyGpuSet(0)),
            "processes": n.nvmlDeviceGetComputeRunningProcesses(gpu),
            "nvlink": error(n.nvmlDeviceGetNvLinkState, gpu, 0),
        }
    """)
    assert found == {
        "limits": [400_000, 600_000],
        "limit": 575_000,
        "default": 575_000,
        "enforced": 575_000,
        "usage": 18_000,
        "link": [5, 5, 16, 16],
        "speed": 32_000,
        "replays": 0,
        "display": [0, 0],
        "fans": [2, 30, 1100],
        "thresholds": [95, 92, 90],
        "no threshold": "NVMLError_NotSupported",
        "ecc": ["NVMLError_NotSupported"] * 2,
        "persistence": 0,
        "state": 8,
        "reasons": [pynvml.nvmlClocksEventReasonGpuIdle] * 2,
        "clocks": [True] * 4,
        "p2p": [pynvml.NVML_P2P_STATUS_NOT_SUPPORTED] * 5,
        "topology": pynvml.NVML_TOPOLOGY_HOSTBRIDGE,
        "near": [0, 1],
        "by cpu": 2,
        "processes": [],
        "nvlink": "NVMLError_NotSupported",
    }


def test_changes_show_while_a_program_runs(machine: Machine) -> None:
    found = machine.gpus("""
        def look():
            rates = n.nvmlDeviceGetUtilizationRates(gpus[0])
            return [n.nvmlDeviceGetTemperature(gpus[0], 0), n.nvmlDeviceGetTemperatureV(gpus[0], 0),
                    n.nvmlDeviceGetMarginTemperature(gpus[0]), rates.gpu, n.nvmlDeviceGetPowerUsage(gpus[0]),
                    n.nvmlDeviceGetPcieReplayCounter(gpus[0]), n.nvmlDeviceGetTemperature(gpus[1], 0)]
        before = look()
        control("set", "0", "temperature=91", "utilization=100", "power_usage=431.25",
                "pcie_replay_counter=7")
        result = [before, look()]
    """)
    assert found == [[35, 35, 55, 0, 18000, 0, 35], [91, 91, -1, 100, 431250, 7, 35]]


def test_ecc_counters_when_switched_on(machine: Machine) -> None:
    machine.control("set", "0", "ecc_mode=1", "ecc_corrected=3", "ecc_uncorrected=1")
    assert machine.gpus("""
        result = [n.nvmlDeviceGetEccMode(gpus[0])]
        result += [n.nvmlDeviceGetTotalEccErrors(gpus[0], kind, 1) for kind in (0, 1)]
        result.append(n.nvmlDeviceGetMemoryErrorCounter(gpus[0], 0, 0, n.NVML_MEMORY_LOCATION_DRAM))
    """) == [[1, 1], 3, 1, 3]


def test_a_null_value_is_not_supported(machine: Machine) -> None:
    machine.control("set", "1", "fan_speed_percent=null")
    assert machine.gpus("result = [error(n.nvmlDeviceGetFanSpeed, gpu) for gpu in gpus]") == [
        "no error",
        "NVMLError_NotSupported",
    ]


def test_processes(machine: Machine) -> None:
    machine.control(
        "set",
        "0",
        'processes=[{"pid": 41, "name": "vllm", "memory_mib": 100, "type": "compute"},'
        '{"pid": 42, "name": "Xorg", "memory_mib": 30, "type": "graphics"}]',
    )
    assert machine.gpus("""
        result = [[(p.pid, p.usedGpuMemory) for p in call(gpus[0])] for call in (
            n.nvmlDeviceGetComputeRunningProcesses, n.nvmlDeviceGetComputeRunningProcesses_v2,
            n.nvmlDeviceGetGraphicsRunningProcesses)]
        result += [n.nvmlSystemGetProcessName(42), error(n.nvmlSystemGetProcessName, 43)]
    """) == [[[41, 100 * MIB]], [[41, 100 * MIB]], [[42, 30 * MIB]], "Xorg", "NVMLError_NotFound"]


def test_setting_the_power_limit_changes_the_state_file(machine: Machine) -> None:
    before = json.loads(machine.state.read_text())
    mode = machine.state.stat().st_mode
    assert machine.gpus("""
        n.nvmlDeviceSetPowerManagementLimit(gpus[1], 450500)
        result = [n.nvmlDeviceGetPowerManagementLimit(gpu) for gpu in gpus]
        n.nvmlDeviceSetPowerManagementLimit_v2(gpus[1], n.NVML_POWER_SCOPE_GPU, 460000)
        result.append(n.nvmlDeviceGetPowerManagementLimit(gpus[1]))
    """) == [575_000, 450_500, 460_000]
    # Nothing else changed, and no temporary file is left.
    before["gpus"][1]["power_limit_w"] = 460
    assert json.loads(machine.state.read_text()) == before
    assert machine.state.stat().st_mode == mode
    assert {path.name for path in machine.state.parent.iterdir()} == {"state.json", "state.json.lock", "root"}


@pytest.mark.parametrize("milliwatts", [0, 399_999, 600_001])
def test_a_power_limit_out_of_range_is_refused(machine: Machine, milliwatts: int) -> None:
    assert machine.gpus(f"result = error(n.nvmlDeviceSetPowerManagementLimit, gpus[0], {milliwatts})") == (
        "NVMLError_InvalidArgument"
    )
    assert machine.record()["power_limit_w"] == 575


def test_persistence_mode(machine: Machine) -> None:
    assert machine.gpus("""
        n.nvmlDeviceSetPersistenceMode(gpus[0], 1)
        result = [n.nvmlDeviceGetPersistenceMode(gpu) for gpu in gpus]
    """) == [1, 0]
    assert machine.record()["persistence_mode"] == 1


def test_settings_are_lost_with_the_module(machine: Machine) -> None:
    machine.gpus("n.nvmlDeviceSetPowerManagementLimit(gpus[0], 450000); n.nvmlDeviceSetPersistenceMode(gpus[0], 1)")
    machine.control("xid", "0", "31")
    machine.control("unload-module")
    machine.control("load-module", control.DEFAULT_DRIVER)
    record = machine.record()
    assert (record["power_limit_w"], record["persistence_mode"], record["xid_events"]) == (575, 0, [])


def test_writers_do_not_lose_each_others_changes(machine: Machine) -> None:
    programs = [
        subprocess.Popen([sys.executable, "-c", program], env=machine.environment)
        for program in (
            "import pynvml as n; n.nvmlInit(); gpu = n.nvmlDeviceGetHandleByIndex(0)\n"
            "for i in range(200): n.nvmlDeviceSetPowerManagementLimit(gpu, 400000 + i * 1000)",
            "import pynvml as n; n.nvmlInit(); gpu = n.nvmlDeviceGetHandleByIndex(1)\n"
            "for i in range(201): n.nvmlDeviceSetPersistenceMode(gpu, 1 - i % 2)",
        )
    ]
    for value in range(10):
        machine.control("set", "0", f"temperature={40 + value}")
    assert [program.wait(timeout=60) for program in programs] == [0, 0]
    assert [machine.record(0)[key] for key in ("power_limit_w", "temperature_c")] == [599, 49]
    assert machine.record(1)["persistence_mode"] == 1


def test_setting_without_permission(library: Path) -> None:
    # Not below pytest's folder, which nobody but its owner may enter.
    with tempfile.TemporaryDirectory() as name:
        other = Machine(Path(name) / "state.json", library)
        other.control("init")
        other.control("load-module", control.DEFAULT_DRIVER)
        other.state.parent.chmod(0o555)
        Path(f"{other.state}.lock").chmod(0o444)
        assert (
            other.gpus("""
                import os
                if os.geteuid() == 0:
                    os.seteuid(65534)
                result = error(n.nvmlDeviceSetPowerManagementLimit, gpus[0], 500000)
            """)
            == "NVMLError_NoPermission"
        )
        assert other.record()["power_limit_w"] == 575
        other.state.parent.chmod(0o755)


def test_a_dropped_card_is_lost_for_who_holds_it_and_gone_for_who_comes_later(machine: Machine) -> None:
    assert machine.gpus("""
        control("drop", "1")
        result = [n.nvmlDeviceGetCount(), error(n.nvmlDeviceGetName, gpus[1]),
                  error(n.nvmlDeviceGetTemperature, gpus[1], 0), error(n.nvmlDeviceGetHandleByIndex, 1),
                  error(n.nvmlDeviceGetHandleByUUID, "GPU-50900000-0000-4000-8000-000000000001"),
                  error(n.nvmlDeviceSetPowerManagementLimit, gpus[1], 500000),
                  error(n.nvmlDeviceGetName, gpus[0])]
        n.nvmlShutdown()
        n.nvmlInit()
        result.append(n.nvmlDeviceGetCount())
    """) == [2, *["NVMLError_GpuIsLost"] * 5, "no error", 1]
    assert machine.gpus("result = n.nvmlDeviceGetCount()") == 1
    machine.control("restore", "1")
    assert machine.gpus("result = n.nvmlDeviceGetCount()") == 2


def test_the_cards_that_remain_keep_their_identity(machine: Machine) -> None:
    machine.control("drop", "0")
    assert machine.gpus("""
        result = [n.nvmlDeviceGetIndex(gpus[0]), n.nvmlDeviceGetMinorNumber(gpus[0]),
                  n.nvmlDeviceGetSerial(gpus[0])]
    """) == [0, 1, "SIMULATED-0001"]


def test_xid_events_are_delivered_once_to_each_set(machine: Machine) -> None:
    machine.control("xid", "0", "13")
    found = machine.gpus("""
        sets = [n.nvmlEventSetCreate() for _ in range(2)]
        for events in sets:
            for gpu in gpus:
                n.nvmlDeviceRegisterEvents(gpu, n.nvmlEventTypeXidCriticalError, events)
        def wait(events, timeout=0):
            try:
                data = n.nvmlEventSetWait(events, timeout)
            except n.NVMLError as caught:
                return type(caught).__name__
            return [n.nvmlDeviceGetIndex(data.device), data.eventType, data.eventData]
        result = [wait(sets[0])]                       # what happened before does not count
        control("xid", "1", "48")
        control("xid", "0", "79")
        result += [wait(sets[0], 1000), wait(sets[0], 1000), wait(sets[0])]
        result += [wait(sets[1]) for _ in range(3)]
        n.nvmlEventSetFree(sets[0])
        result.append(wait(sets[0]))
    """)
    assert found == [
        "NVMLError_Timeout",
        [1, 8, 48],
        [0, 8, 79],
        "NVMLError_Timeout",
        [1, 8, 48],
        [0, 8, 79],
        "NVMLError_Timeout",
        "NVMLError_InvalidArgument",
    ]


def test_waiting_for_an_event_that_comes_later(machine: Machine) -> None:
    found = machine.gpus("""
        import threading, time
        events = n.nvmlEventSetCreate()
        result = [n.nvmlDeviceGetSupportedEventTypes(gpus[0]),
                  error(n.nvmlDeviceRegisterEvents, gpus[0], n.nvmlEventTypePState, events)]
        n.nvmlDeviceRegisterEvents(gpus[0], n.nvmlEventTypeXidCriticalError, events)
        begun = time.monotonic()
        timed_out = error(n.nvmlEventSetWait, events, 200)
        result += [timed_out, 0.15 < time.monotonic() - begun < 5]
        threading.Timer(0.3, control, ("drop", "0")).start()
        result.append(n.nvmlEventSetWait(events, 20000).eventData)
    """)
    assert found == [8, "NVMLError_NotSupported", "NVMLError_Timeout", True, control.XID_FALLEN_OFF_THE_BUS]


def test_without_the_module_there_is_no_driver(bare: Machine) -> None:
    assert bare.nvml("result = error(n.nvmlInit)") == "NVMLError_DriverNotLoaded"
    bare.control("load-module", control.DEFAULT_DRIVER)
    assert bare.nvml("result = error(n.nvmlInit)") == "no error"
    bare.control("unload-module")
    assert bare.nvml("result = error(n.nvmlInit)") == "NVMLError_DriverNotLoaded"


def test_a_library_that_does_not_fit_the_loaded_module(machine: Machine) -> None:
    machine.control("install-driver", "610.57.04")
    assert machine.nvml("result = error(n.nvmlInit)") == "NVMLError_LibRmVersionMismatch"
    machine.control("load-module", "610.57.04")
    assert machine.nvml("n.nvmlInit(); result = n.nvmlSystemGetDriverVersion()") == "610.57.04"


def test_calls_without_init(machine: Machine) -> None:
    assert machine.nvml("""
        n.nvmlInit()
        gpu = n.nvmlDeviceGetHandleByIndex(0)
        n.nvmlInit()
        n.nvmlShutdown()
        result = [error(n.nvmlDeviceGetName, gpu)]
        n.nvmlShutdown()
        result += [error(n.nvmlDeviceGetName, gpu), error(n.nvmlDeviceGetCount), error(n.nvmlShutdown),
                   error(n.nvmlSystemGetDriverVersion), error(n.nvmlEventSetCreate)]
    """) == ["no error", *["NVMLError_Uninitialized"] * 5]


@pytest.mark.parametrize(
    "content", ["", "{", "[1, 2", '{"gpus": [' * 100, '{"gpus": 7}', "null", '{"driver": "\\ud800"}']
)
def test_a_broken_state_is_an_error_and_no_crash(machine: Machine, content: str) -> None:
    machine.state.write_text(content)
    assert machine.nvml("result = error(n.nvmlInit)") in (
        "NVMLError_Unknown",
        "NVMLError_LibRmVersionMismatch",
    )


def test_a_state_that_breaks_while_a_program_runs(machine: Machine) -> None:
    assert (
        machine.gpus("""
        import os
        open(os.environ["GPU_SIMULATOR_STATE"], "w").write('{"gpus": [{"name": ')
        result = [error(n.nvmlDeviceGetName, gpus[0]), error(n.nvmlDeviceSetPersistenceMode, gpus[0], 1)]
    """)
        == ["NVMLError_Unknown"] * 2
    )


def test_text_of_any_kind_survives_a_rewrite(machine: Machine) -> None:
    name = 'quote " backslash \\ tab \t umlaut ü emoji 😀 \x01'
    machine.control("set", "0", f"board_part_number={name}")
    assert "\\ud83d" in machine.state.read_text()
    machine.gpus("n.nvmlDeviceSetPersistenceMode(gpus[0], 1)")
    assert machine.record()["board_part_number"] == name


def nvml_symbols_of_pynvml() -> set[str]:
    """Every NVML function that nvidia-ml-py looks up."""
    source = Path(pynvml.__file__).read_text(encoding="utf-8")
    return set(re.findall(r"""_nvmlGetFunctionPointer\(\s*["'](nvml\w+)["']""", source))


def test_the_symbol_list_is_complete() -> None:
    listed = (SOURCES / "nvml_symbols.txt").read_text().split()
    assert listed == sorted(set(listed))
    assert set(listed) == nvml_symbols_of_pynvml()


def test_every_symbol_is_there_and_unimplemented_ones_refuse(machine: Machine) -> None:
    assert (
        machine.gpus(
            """
        import ctypes
        result = [symbol for symbol in open(SYMBOLS).read().split() if not hasattr(n.nvmlLib, symbol)]
    """.replace("SYMBOLS", repr(str(SOURCES / "nvml_symbols.txt")))
        )
        == []
    )
    assert (
        machine.gpus("""
        result = [error(n.nvmlDeviceGetMigMode, gpus[0]), error(n.nvmlDeviceGetRemappedRows, gpus[0]),
                  error(n.nvmlDeviceGetFieldValues, gpus[0], [1]),
                  error(n.nvmlDeviceGetVgpuUtilization, gpus[0], 0),
                  error(n.nvmlUnitGetCount), error(n.nvmlSystemGetHicVersion)]
    """)
        == ["NVMLError_NotSupported"] * 6
    )


def test_null_pointers_are_refused_and_no_crash(machine: Machine) -> None:
    """Call all that takes a handle with nothing else: an answer is expected, not a signal."""
    found = machine.gpus(
        """
        import ctypes
        result = []
        for symbol in open(SYMBOLS).read().split():
            if not symbol.startswith("nvmlDevice"):
                continue
            if symbol.startswith(("nvmlDeviceGetHandle", "nvmlDeviceGetCount")):
                continue
            function = getattr(n.nvmlLib, symbol)
            function.restype = ctypes.c_int
            status = function(gpus[0], None, None, None, None)
            if status not in (0, 2, 3, 6, 7, 25):
                result.append([symbol, status])
    """.replace("SYMBOLS", repr(str(SOURCES / "nvml_symbols.txt")))
    )
    assert found == []


def test_the_library_needs_only_an_old_libc(library: Path) -> None:
    for file in (library, library.parent / "nvidia-smi", library.parent / "nvidia-persistenced"):
        table = subprocess.run(["objdump", "-p", str(file)], capture_output=True, text=True, check=True).stdout
        needed = set(re.findall(r"NEEDED\s+(\S+)", table))
        assert needed <= {"libc.so.6", "libnvidia-ml.so.1"}
        versions = {tuple(map(int, found.split("."))) for found in re.findall(r"GLIBC_([\d.]+)", table)}
        # Ubuntu 22.04, the oldest system that vLLM's images are built on, has 2.35.
        assert max(versions) <= (2, 35)


# ---- visibility by device nodes ------------------------------------------------------------------


def test_only_gpus_with_a_device_node_are_visible(machine: Machine, tmp_path: Path) -> None:
    devices = tmp_path / "dev"
    devices.mkdir()
    state = json.loads(machine.state.read_text())
    state["system"]["device_directory"] = str(devices)
    machine.state.write_text(json.dumps(state))
    assert machine.gpus("result = len(gpus)") == 0
    (devices / "nvidia1").touch()
    assert machine.gpus("result = [n.nvmlDeviceGetSerial(gpu) for gpu in gpus]") == ["SIMULATED-0001"]


# ---- control.py ----------------------------------------------------------------------------------


def test_init_keeps_an_existing_state(machine: Machine) -> None:
    machine.control("set", "0", "temperature=50")
    refused = machine.try_control("init")
    assert refused.returncode == 1 and "init --force" in refused.stderr
    machine.control("init", "--if-absent")
    assert machine.record()["temperature_c"] == 50
    machine.control("init", "--force", "--gpus", "3")
    assert machine.record(2)["temperature_c"] == 35


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("set", "7", "temperature=1"), "known are 0 (GPU-"),
        (("set", "0", "temprature=1"), "settable are "),
        (("set", "0", "temperature"), "not KEY=VALUE"),
        (("set", "0", "temperature=hot"), "expected a number or null"),
        (("set", "0", "processes=1"), "expected a list in JSON"),
        (("set", "0", "power_limit=601"), "outside of 400–600 W"),
        (("set", "0", "memory_used=32600"), "does not fit"),
        (("set", "0", "dropped=1"), "changed with the commands"),
    ],
)
def test_mistakes_are_explained_and_change_nothing(machine: Machine, arguments: tuple[str, ...], expected: str) -> None:
    before = machine.state.read_text()
    result = machine.try_control(*arguments)
    assert result.returncode == 1 and expected in result.stderr
    assert machine.state.read_text() == before


def test_set_takes_all_gpus_uuids_hexadecimal_numbers_and_the_system(machine: Machine) -> None:
    machine.control("set", "all", "temperature=60")
    machine.control("set", "GPU-50900000-0000-4000-8000-000000000001", "clocks_event_reasons=0x40", "name=7")
    machine.control("set", "system", "topology_level=50")
    assert [machine.record(i)["temperature_c"] for i in (0, 1)] == [60, 60]
    assert machine.gpus("""
        result = [n.nvmlDeviceGetCurrentClocksEventReasons(gpus[1]), n.nvmlDeviceGetName(gpus[1]),
                  n.nvmlDeviceGetTopologyCommonAncestor(gpus[0], gpus[1])]
    """) == [0x40, "7", 50]


def test_show(machine: Machine) -> None:
    machine.control("drop", "1")
    shown = machine.control("show")
    assert "simulated" in shown and "FALLEN OFF THE BUS" in shown and "595.91.07" in shown
    assert json.loads(machine.control("show", "--json"))["loaded_module"] == "595.91.07"


def test_hardware_is_there_before_any_driver(tmp_path: Path, library: Path) -> None:
    machine = Machine(tmp_path / "state.json", library)
    machine.control("init-hardware")
    card = tmp_path / "root/sys/bus/pci/devices/0000:02:00.0"
    assert [(card / name).read_text().strip() for name in ("vendor", "device", "class")] == [
        "0x10de",
        "0x2b85",
        "0x030000",
    ]
    assert not (card / "driver").exists()
    assert machine.nvml("result = error(n.nvmlInit)") == "NVMLError_DriverNotLoaded"

    machine.control("install-driver", "595.91.07")
    machine.control("load-module", "595.91.07")
    assert os.path.basename(os.path.realpath(card / "driver")) == "nvidia"
    version = (tmp_path / "root/proc/driver/nvidia/version").read_text()
    assert "595.91.07" in version and "simulated" in version and version.startswith("NVRM version:")
    assert machine.gpus("result = len(gpus)") == 2

    machine.control("unload-module")
    assert not os.path.lexists(card / "driver")


def test_a_driver_makes_no_hardware(tmp_path: Path, library: Path) -> None:
    machine = Machine(tmp_path / "state.json", library)
    machine.control("install-driver", "595.91.07")
    machine.control("load-module", "595.91.07")
    assert not (tmp_path / "root/sys").exists()
    assert machine.nvml("n.nvmlInit(); result = n.nvmlDeviceGetCount()") == 0


def test_what_the_module_provides_is_gone_after_a_reboot(tmp_path: Path, library: Path) -> None:
    machine = Machine(tmp_path / "state.json", library)
    cleanup = tmp_path / "cleanup.conf"
    machine.control("init-hardware", "--boot-cleanup", str(cleanup))
    machine.control("install-driver", "595.91.07")
    version = tmp_path / "version"
    version.write_text("595.91.07\n")
    machine.control("load-module", str(version))
    assert machine.nvml("result = error(n.nvmlInit)") == "no error"
    # What systemd-tmpfiles does with these lines at boot.
    for kind, pattern in (line.split() for line in cleanup.read_text().splitlines() if line[0] != "#"):
        for path in glob.glob(pattern):
            shutil.rmtree(path) if kind == "R!" else os.unlink(path)
    assert not (tmp_path / "root/proc").exists()
    assert {path.name for path in (tmp_path / "root/sys/bus/pci/devices/0000:01:00.0").iterdir()} == (
        {"vendor", "device", "class", "current_link_speed", "max_link_speed", "current_link_width", "max_link_width"}
        | {"aer_dev_correctable", "aer_dev_nonfatal", "aer_dev_fatal"}
    )
    assert machine.nvml("result = error(n.nvmlInit)") == "NVMLError_DriverNotLoaded"
    machine.control("load-module", str(version))
    assert machine.nvml("result = error(n.nvmlInit)") == "no error"


# ---- nvidia-smi and nvidia-persistenced ----------------------------------------------------------


@pytest.fixture
def smi(machine: Machine) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run nvidia-smi on the machine."""

    def call(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(machine.library.parent / "nvidia-smi"), *arguments],
            env=machine.environment,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )

    return call


def test_nvidia_smi(smi: Callable[..., subprocess.CompletedProcess[str]], machine: Machine) -> None:
    assert "simulated" in smi().stdout
    assert smi("-L").stdout.splitlines()[1] == (
        "GPU 1: NVIDIA GeForce RTX 5090 (UUID: GPU-50900000-0000-4000-8000-000000000001) (simulated)"
    )
    fields = "index,name,driver_version,memory.total,power.limit,compute_cap,pci.bus_id,pstate"
    query = smi(f"--query-gpu={fields}", "--format=csv")
    assert query.stdout.splitlines() == [
        "index, name, driver_version, memory.total [MiB], power.limit [W], compute_cap, pci.bus_id, pstate",
        "0, NVIDIA GeForce RTX 5090, 595.91.07, 32607 MiB, 575.00 W, 12.0, 00000000:01:00.0, P8",
        "1, NVIDIA GeForce RTX 5090, 595.91.07, 32607 MiB, 575.00 W, 12.0, 00000000:02:00.0, P8",
    ]
    assert smi("-i", "1", "--query-gpu=index,power.max_limit", "--format=csv,noheader,nounits").stdout == "1, 600.00\n"
    assert smi("-i", "0", "-pl", "450").returncode == 0
    assert machine.record()["power_limit_w"] == 450
    refused = smi("-i", "0", "-pl", "700")
    assert refused.returncode != 0 and "between 400.00 W and 600.00 W" in refused.stdout
    assert smi("--query-gpu=nonsense", "--format=csv").returncode == 2
    assert smi("--unknown").returncode == 2
    machine.control("unload-module")
    failed = smi()
    assert failed.returncode == 9 and "couldn't communicate with the NVIDIA driver" in failed.stdout


def test_persistence_mode_is_on_while_the_daemon_runs(machine: Machine) -> None:
    program = str(machine.library.parent / "nvidia-persistenced")
    daemon = subprocess.Popen([program], env=machine.environment, stdout=subprocess.PIPE, text=True)
    assert daemon.stdout is not None
    assert "enabled" in daemon.stdout.readline() and "enabled" in daemon.stdout.readline()
    assert [machine.record(i)["persistence_mode"] for i in (0, 1)] == [1, 1]
    daemon.terminate()
    assert daemon.wait(timeout=10) == 0
    assert [machine.record(i)["persistence_mode"] for i in (0, 1)] == [0, 0]
    machine.control("unload-module")
    assert subprocess.run([program], env=machine.environment, capture_output=True, check=False).returncode == 1
