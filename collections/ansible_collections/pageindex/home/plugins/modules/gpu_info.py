#!/usr/bin/python
"""Ansible module: facts about GPUs, driver and host. Its action plugin sends nvidia-ml-py along."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: gpu_info
short_description: Read GPUs from NVML and the PCI bus, and the loaded driver
description:
  - Reads everything about GPUs in one execution. Nothing has to be installed on the host for it, the Python
    module of nvidia-ml-py comes from the controller.
  - A host without a driver is no error; RV(nvml) is null then and RV(nvml_error) says why.
options:
  root:
    description: Prefix of the files below /proc/driver and /sys/bus/pci.
    type: path
    default: /
  library:
    description: Path of libnvidia-ml.so.1, when it is not where the system finds it.
    type: str
    default: ""
  paths:
    description: Paths whose free disk space is reported. A missing path counts as its nearest parent.
    type: list
    elements: path
    default: []
  wait_for_driver:
    description: Driver version to wait for before looking; after a boot it may not be loaded yet.
    type: str
    default: ""
  wait_seconds:
    description: How long to wait for it. When the time is over, what is found is returned.
    type: int
    default: 60
  pynvml_source:
    description: Set by the action plugin.
    type: str
    default: ""
attributes:
  check_mode:
    support: full
    description: Changes nothing in any mode.
author:
  - PageIndex Home contributors (@pageindex-home)
"""

EXAMPLES = r"""
- name: Look at the GPUs
  pageindex.home.gpu_info:
    paths: [/srv/pageindex-home/models]
  register: gpu_facts
"""

RETURN = r"""
driver_loaded:
  description: Version of the loaded NVIDIA kernel module, null without one.
  type: str
  returned: always
nvml:
  description: driver_version, cuda_version and nvml_version; null when NVML does not answer.
  type: dict
  returned: always
nvml_error:
  description: Why NVML does not answer.
  type: str
  returned: always
gpus:
  description:
    - One entry for each GPU that NVML counts, with index, error, name, uuid, serial, vbios_version,
      pci_bus_id, memory_total_mib, memory_free_mib, memory_used_mib, compute_capability, temperature_c,
      power_limit_w,
      power_limit_default_w, power_limit_min_w, power_limit_max_w, power_usage_w, persistence_mode,
      pcie_generation, pcie_generation_max, pcie_width, pcie_width_max, pcie_replay_counter, display_attached,
      display_active, performance_state, utilization_percent and processes. What is not known is null.
    - Each of the processes has pid, name, type (compute, graphics, or both), memory_mib and container, the id of
      the container that it runs in, null outside of one.
    - A GPU that NVML counts but cannot open has only index and error.
  type: list
  elements: dict
  returned: always
peer_to_peer:
  description:
    - One entry for each pair of GPUs, with first and second (their indices), read and write.
    - The last two are ok where one card may use the other's memory over the bus, otherwise why not
      (chipset_not_supported, gpu_not_supported, topology_not_supported, disabled_by_registry, not_supported,
      unknown).
  type: list
  elements: dict
  returned: always
pci_gpus:
  description: NVIDIA display devices on the PCI bus with address, vendor, device, class and kernel_driver.
  type: list
  elements: dict
  returned: always
kernel:
  description:
    - running and next (the newest in /boot) kernel, all installed ones; headers (by kernel, whether they are there),
      modules (by kernel, the files of NVIDIA's module with path, version and license), flavour of the loaded module
      (open or proprietary), parameters (by module) and configured_options of the modules, secure_boot and
      signing_key_enrolled, packages (versions of those that matter for the driver), held and dkms.
    - What cannot be known is null.
  type: dict
  returned: always
memory_total_mib:
  description: Main memory in MiB.
  type: int
  returned: always
memory_node_mib:
  description: Main memory of the smallest NUMA node in MiB, null where the kernel tells of no nodes.
  type: int
  returned: always
cpu_count:
  description: Number of processors.
  type: int
  returned: always
disk_free_mib:
  description: Free MiB for each of O(paths).
  type: dict
  returned: always
"""

from ansible_collections.pageindex.home.plugins.module_utils import kernel_modules
from ansible_collections.pageindex.home.plugins.module_utils.gpu_information import gather, wait_for_driver
from ansible_collections.pageindex.home.plugins.module_utils.quiet_module import QuietModule


def main() -> None:
    """Run the module."""
    module = QuietModule(
        argument_spec={
            "root": {"type": "path", "default": "/"},
            "library": {"type": "str", "default": ""},
            "paths": {"type": "list", "elements": "path", "default": []},
            "wait_for_driver": {"type": "str", "default": ""},
            "wait_seconds": {"type": "int", "default": 60},
            "pynvml_source": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    if module.params["wait_for_driver"]:
        wait_for_driver(module.params["wait_for_driver"], module.params["wait_seconds"], module.params["root"])
    facts = gather(
        module.params["pynvml_source"],
        root=module.params["root"],
        library=module.params["library"],
        paths=module.params["paths"],
    )
    module.exit_json(changed=False, kernel=kernel_modules.gather(module.params["root"]), **facts)


if __name__ == "__main__":
    main()
