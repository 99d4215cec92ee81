"""Encrypted volumes below the root, and what opens them when nobody is there to type a passphrase."""

from __future__ import annotations

import os
from typing import Any

from ansible_collections.pageindex.home.plugins.module_utils.survey.reading import entries, read_text
from ansible_collections.pageindex.home.plugins.module_utils.survey.request import SurveyRequest

# What an encrypted volume is for dm-crypt; these two are checked but open to everybody.
ENCRYPTED = "CRYPT-"
NOT_SECRET = ("CRYPT-VERITY-", "CRYPT-INTEGRITY-")
# Present when the initial RAM disk can be reached by SSH, or asks a server or a TPM for the key.
PROGRAMS = {
    "etc/dropbear/initramfs/authorized_keys": "dropbear-initramfs",
    "etc/dropbear-initramfs/authorized_keys": "dropbear-initramfs",
    "usr/share/initramfs-tools/hooks/clevis": "clevis-initramfs",
}
NO_KEY_FILE = ("none", "-", "")


def survey(request: SurveyRequest, host_root: str = "/") -> dict[str, Any]:
    """root: encrypted volumes that the root file system lies on → what opens them, None for a passphrase."""
    volumes = encrypted_volumes(root_device(host_root), host_root)
    return {"root": {volume: opened_by(volume, host_root) for volume in volumes}}


def root_device(host_root: str = "/") -> str:
    """The block device of the root file system as /sys names it; "" where there is none, as in a container."""
    found = ""
    for line in (read_text(host_root, "proc/self/mountinfo") or "").splitlines():
        before, _, after = line.partition(" - ")
        left, right = before.split(), after.split()
        if len(left) < 5 or left[4] != "/" or len(right) < 2:
            continue
        # btrfs shows a number that belongs to no device, but always names one.
        link = os.path.join(host_root, "sys/dev/block", left[2])
        if not os.path.exists(link):
            link = os.path.join(host_root, right[1].lstrip("/"))
        found = os.path.basename(os.path.realpath(link)) if os.path.exists(link) else ""
    return found


def encrypted_volumes(device: str, host_root: str = "/") -> list[str]:
    """Names of the encrypted volumes among a device and those below it."""
    place = os.path.join(host_root, "sys/class/block", device)
    if not device or not os.path.isdir(place):
        return []
    uuid = read_text(place, "dm/uuid") or ""
    own = [read_text(place, "dm/name") or device] if uuid.startswith(ENCRYPTED) else []
    below = [name for slave in entries(place, "slaves") for name in encrypted_volumes(slave, host_root)]
    return list(dict.fromkeys([*([] if uuid.startswith(NOT_SECRET) else own), *below]))


def opened_by(volume: str, host_root: str = "/") -> str | None:
    """What opens a volume at boot without a person at the screen."""
    for line in (read_text(host_root, "etc/crypttab") or "").splitlines():
        fields = [*line.split(), "", "", "", ""]
        if fields[0] != volume:
            continue
        for option in fields[3].split(","):
            name, _, value = option.partition("=")
            if name == "tpm2-device" or (name == "keyscript" and any(word in value for word in ("clevis", "tpm2"))):
                return f"{option} in /etc/crypttab"
        if fields[2] not in NO_KEY_FILE:
            return f"the key file {fields[2]}"
    return next((way for path, way in PROGRAMS.items() if os.path.exists(os.path.join(host_root, path))), None)
