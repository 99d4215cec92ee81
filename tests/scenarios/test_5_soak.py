"""An hour of load: a busy engine is never taken for a hung one."""

from __future__ import annotations

import json
import os
import shlex

import pytest

from staging import host
from tests.scenarios.conftest import StagingHost
from tests.scenarios.test_4_disturbances import container_states, everything_serves
from tests.scenarios.waiting import wait_for

SECONDS = int(os.environ.get("SOAK_SECONDS", "3600"))
CLIENTS = 12

# Long answers from many clients, with a pause now and then, so that busy, full and idle all happen.
LOAD = r"""
import concurrent.futures, json, random, sys, time, urllib.request
seconds, clients = int(sys.argv[1]), int(sys.argv[2])
end = time.monotonic() + seconds
def client(number):
    done, failed = 0, 0
    chance = random.Random(number)
    while time.monotonic() < end:
        body = {"model": "pageindex-llm", "prompt": "Once upon a time %d" % chance.randrange(10**9),
                "max_tokens": chance.choice((8, 64, 512)), "ignore_eos": True}
        request = urllib.request.Request("http://127.0.0.1:8000/v1/completions", json.dumps(body).encode(),
                                         {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=600) as response:
                response.read()
            done += 1
        except OSError:
            failed += 1
        if chance.random() < 0.02:
            time.sleep(chance.uniform(5, 60))
    return done, failed
with concurrent.futures.ThreadPoolExecutor(clients) as pool:
    counts = list(pool.map(client, range(clients)))
print(json.dumps({"done": sum(done for done, _ in counts), "failed": sum(failed for _, failed in counts)}))
"""


@pytest.mark.long
def test_load_causes_no_false_restart(finished_host: StagingHost) -> None:
    wait_for("a healthy start", everything_serves, 120)
    before = container_states()
    since = host.execute("date '+%Y-%m-%d %H:%M:%S'", check=True).stdout.strip()
    command = f"python3 -c {shlex.quote(LOAD)} {SECONDS} {CLIENTS}"
    counts = json.loads(host.execute(command, timeout=SECONDS + 900, check=True).stdout)
    assert counts["done"] > SECONDS / 10 and counts["failed"] == 0, counts
    assert {name: state[:2] for name, state in container_states().items()} == {
        name: state[:2] for name, state in before.items()
    }
    journal = host.execute(f"journalctl --unit pageindex-home@vllm.service --since '{since}' --no-pager --output cat")
    suspicions = [line for line in journal.stdout.splitlines() if "engine probe" in line]
    assert suspicions == []
