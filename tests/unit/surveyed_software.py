"""Surveys of made-up hosts for the tests of preflight's software checks."""

from __future__ import annotations

from typing import Any

from ansible_collections.pageindex.home.plugins.module_utils.catalogue_files import catalogue

RELEASES = catalogue("releases")
TRIXIE = {"id": "debian", "id_like": [], "version": "13", "codename": "trixie", "name": "Debian GNU/Linux 13 (trixie)"}
# What roles/preflight hands to the checks, as far as these read it.
WANTED: dict[str, Any] = {
    "releases": RELEASES,
    "cpu_minimum": 4,
    "memory_minimum_gib": 30,
    "disk_minimum_gib": {"images": 40, "models": 50, "data": 10},
    "docker_source": "docker",
    "docker_minimum": "26.1",
    "gpus": True,
    "controller_time_before": 999.0,
    "controller_time_after": 1001.0,
}
DRIVER_FILE = "/etc/apt/sources.list.d/pageindex-home-nvidia-driver.sources"


def place(path: str, pool: str = "device 8:1", **changes: Any) -> dict[str, Any]:
    """Where something will be stored."""
    return {
        "path": path,
        "exists": False,
        "mount_point": "/",
        "type": "ext4",
        "read_only": False,
        "pool": pool,
        "free_mib": 500 * 1024,
        "total_mib": 900 * 1024,
        "holds_files": False,
        "inodes_free": 10_000_000,
        "inodes_total": 20_000_000,
        **changes,
    }


def entry(uri: str, file: str = "/etc/apt/sources.list", line: int = 1, **changes: Any) -> dict[str, Any]:
    """A source of apt."""
    return {
        "file": file,
        "line": line,
        "uris": [uri],
        "suites": ["/"],
        "signed_by": "",
        "enabled": True,
        "problem": "",
        **changes,
    }


def source(name: str, needed_by: str, **changes: Any) -> dict[str, Any]:
    """A download source that answers."""
    return {
        "name": name,
        "url": f"https://{name}.example/",
        "needed_by": needed_by,
        "proxy": None,
        "kind": "ok",
        "message": "HTTP status 200",
        "status": 200,
        "date_offset": -0.4,
        **changes,
    }


def container(name: str, ports: list[int], ours: bool = True) -> dict[str, Any]:
    """A running container."""
    return {
        "id": name.ljust(64, "0"),
        "name": name,
        "image": f"pageindex-home/{name}:1" if ours else name,
        "project": name,
        "ours": ours,
        "ports": ports,
    }


def clean_host() -> dict[str, Any]:
    """Debian 13 with nothing of ours on it."""
    return {
        "system": {
            "release": dict(TRIXIE),
            "architecture": "x86_64",
            "systemd": {"booted": True, "state": "running", "failed_units": []},
            "python": {"version": "3.13.5", "path": "/usr/bin/python3"},
            "cpus": 16,
            "memory_mib": 63_900,
            "memory_available_mib": 60_000,
            "swap_mib": 0,
            "virtualisation": "none",
            "clock_synchronised": True,
            "time_zone": "Europe/Berlin",
            "time": 1000.0,
        },
        "packages": {
            "architecture": "amd64",
            "installed": {},
            "unfinished": [],
            "wanted": {"driver": ["nvidia-open"], "toolkit": ["nvidia-container-toolkit"], "docker": ["docker-ce"]},
            "candidates": {"nvidia-open": "595.91.07-1"},
            "interrupted": False,
            "snap_docker": False,
            "driver_from_run_file": None,
            "unattended_upgrades": {"installed": False, "enabled": False, "blacklist": []},
        },
        "apt": {
            "entries": [entry("http://deb.debian.org/debian", suites=["trixie"])],
            "conflicts": [],
            "foreign": [],
            "global_keys": [],
            "lock_holders": [],
        },
        "docker": {
            "command": None,
            "command_target": None,
            "daemon_file": {"present": False, "error": None, "keys": [], "settings": {}},
            "unit": None,
            "engine": None,
            "containers": None,
            "images": None,
            "rootless_sockets": [],
        },
        "disks": {
            "images": place("/var/lib/docker"),
            "models": place("/srv/pageindex-home/models"),
            "data": place("/srv/pageindex-home/data"),
        },
        "network": {
            "wanted_ports": [3000, 8000],
            "ports": [],
            "sources": [source("driver", "nvidia_driver"), source("hub", "vllm")],
            "name_servers": ["192.168.1.1"],
            "has_certificate_authorities": True,
        },
    }


def finished_host() -> dict[str, Any]:
    """The same host with everything of ours on it."""
    seen = clean_host()
    seen["gpus"] = {"driver_loaded": "595.91.07"}
    seen["packages"]["installed"] = {
        "nvidia-open": {"version": "595.91.07-1", "held": True},
        "nvidia-container-toolkit": {"version": "1.20.0-1", "held": True},
        "docker-ce": {"version": "5:29.1.3-1~debian.13~trixie", "held": False},
        "unattended-upgrades": {"version": "2.12", "held": False},
    }
    seen["packages"]["unattended_upgrades"] = {
        "installed": True,
        "enabled": True,
        "blacklist": ["nvidia", "libnvidia", "linux-modules-nvidia"],
    }
    seen["apt"]["entries"].append(entry("https://driver.example", DRIVER_FILE, signed_by="/etc/apt/keyrings/a.asc"))
    seen["docker"].update(
        command="/usr/bin/docker",
        daemon_file={
            "present": True,
            "error": None,
            "keys": ["features", "live-restore", "log-driver", "log-opts"],
            "settings": {"features": {"cdi": True}, "live-restore": True},
        },
        unit={
            "active": True,
            "path": "/usr/lib/systemd/system/docker.service",
            "drop_ins": [],
            "environment_files": [],
            "options": ["containerd", "hosts"],
            "hosts": ["fd://"],
        },
        engine={"version": "29.1.3", "storage_driver": "overlayfs", "default_runtime": "runc", "rootless": False},
        containers=[container("gateway", [3000, 8000]), container("vllm", []), container("pageindex", [])],
        images=[{"names": ["pageindex-home/vllm:1"], "size_mib": 30_000}],
    )
    for name in seen["disks"]:
        seen["disks"][name].update(exists=True, holds_files=True, free_mib=30 * 1024)
    proxy = {"pid": 446, "command": "/usr/bin/docker-proxy -proto tcp -host-port 8000", "container": None}
    seen["network"]["ports"] = [{"port": port, "address": "127.0.0.1", **proxy} for port in (3000, 8000)]
    return seen
