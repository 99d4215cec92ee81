"""The program on the host: carries out the switch that the state asks for, or undoes one that did not end.

    python3 -B -m ansible_collections.pageindex.home.plugins.module_utils.llm_switch.program DIRECTORY [boot]

DIRECTORY is the store. With `boot` it only puts the files of the deployment before back, for the unit that systemd
starts next. Run by pageindex-home-llm-switch.service and pageindex-home-llm-recover.service.
"""

from __future__ import annotations

import sys
from pathlib import Path

from ansible_collections.pageindex.home.plugins.module_utils.llm_switch.store import Store, StoreError
from ansible_collections.pageindex.home.plugins.module_utils.llm_switch.switch import REQUESTED, RETIRING, Switch

NOT_ENDED = "the switch was interrupted while {phase}: its program was killed"
BOOTED = "the host restarted during the switch (while {phase})"


def boot_id() -> str:
    """The id of this boot of the host's service manager: a container keeps the kernel's over its own restart."""
    kernel = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    first = Path("/proc/1/stat").read_text(encoding="ascii").rpartition(")")[2].split()[19]
    return f"{kernel}-{first}"


def run(directory: str, boot: bool = False) -> int:
    """Do what is to be done; returns the exit status."""
    store = Store(directory)
    with store.locked("program", wait=False) as free:
        if not free:
            print("another switch program works on this store", file=sys.stderr)
            return 1
        state = store.read()
        if state.switch is None:
            return 0
        switch, phase = Switch(store), state.switch["phase"]
        another_boot = state.switch["boot"] != boot_id()
        if boot:
            switch.put_back_files(BOOTED.format(phase=phase))
        elif phase == REQUESTED and not another_boot:
            switch.perform()
        elif phase == RETIRING:
            switch.retire()
        else:
            reason = BOOTED if another_boot else NOT_ENDED
            switch.undo(state.switch.get("reason") or reason.format(phase=phase))
    return 0


def main() -> int:
    """The command line. Status 2: the state cannot be read, and starting again will not help."""
    try:
        return run(sys.argv[1], boot="boot" in sys.argv[2:])
    except StoreError as error:
        print(error, file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
