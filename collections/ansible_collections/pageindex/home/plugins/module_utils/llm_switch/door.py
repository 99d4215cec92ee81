"""A server's door in the gateway, for its unit: shut before the server is stopped, open again when it is up.

    python3 -B -m ansible_collections.pageindex.home.plugins.module_utils.llm_switch.door SETTINGS shut|open SERVICE

So `systemctl restart pageindex-home@vllm` costs no request: those that run may finish, and others wait or go to
another replica. SETTINGS is a JSON file: {"front": as for the switch, "drain_seconds"}. A door that a switch has shut
is left to it: it opens when the server has passed its checks. The exit status is 0 in any case: a server stops whether
or not the gateway can be told.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from ansible_collections.pageindex.home.plugins.module_utils.llm_switch.front import Front

# Less than the unit's TimeoutStopSec (role docker_engine), after which systemd would leave the container running.
LONGEST_SECONDS = 120.0


def shut(front: Front, seconds: float) -> str:
    """Let nobody in any more, wait until nobody is in, at most `seconds`; returns a line for the journal."""
    rows = front.look()
    if not rows or not rows[0]["status"].startswith("UP"):
        return ""
    front.close()
    # Before the waiting: whatever happens to this program, the server's next start opens again.
    front.opens_by_itself(True)
    left = front.wait_idle(seconds)
    return f"{left} running requests are cut after {seconds:.0f} s of draining" if left else "no request runs any more"


def open_again(front: Front) -> str:
    """Let requests in, where it was this program that had shut them out; returns a line for the journal."""
    if not front.opens_by_itself():
        return ""
    front.open()
    return "requests are let in again"


def host_stops() -> bool:
    """Whether the host is shutting down: then nothing is worth waiting for."""
    done = subprocess.run(["systemctl", "is-system-running"], capture_output=True, text=True, check=False)
    return done.stdout.strip() == "stopping"


def main() -> int:
    """The command line."""
    path, verb, service = sys.argv[1:4]
    settings = json.loads(Path(path).read_text(encoding="utf-8"))
    front = Front(settings["front"], service)
    if verb == "open":
        line = open_again(front)
    else:
        seconds = min(float(settings["drain_seconds"]), LONGEST_SECONDS)
        line = "" if host_stops() else shut(front, seconds)
    if line:
        print(line, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
