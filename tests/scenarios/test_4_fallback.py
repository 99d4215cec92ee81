"""The fallback answers while no model server is ready, the model server as soon as one is; unwanted, it is gone.

Ollama itself cannot be had here: the image is staging's stand-in, which answers that its answers are simulated.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from staging import host
from staging.depot import run as depot
from tests.scenarios.ansible_run import Run, converge, run_playbook
from tests.scenarios.conftest import StagingHost
from tests.scenarios.services import everything_serves, services
from tests.scenarios.waiting import wait_for

MODEL = "qwen3:4b"
WANTED = ("--tags", "ollama,gateway", "-e", f"ollama_model={MODEL}")
UNWANTED = ("--tags", "ollama,gateway")
MODELS = "/srv/pageindex-home/data/ollama"
SECONDS = 120
NO_FALLBACK = "X-Fallback: no"


@dataclass(frozen=True)
class Asked:
    """What a client got through the gateway."""

    status: int
    served_by: str
    text: str


def ask(*headers: str) -> Asked:
    """Ask as a client on the host does."""
    body = {"model": "pageindex-llm", "messages": [{"role": "user", "content": "Hello!"}], "max_tokens": 32}
    more = " ".join(f"--header {shlex.quote(header)}" for header in headers)
    found = host.execute(
        f"curl --silent --show-error --max-time {SECONDS} --include {more} --json {shlex.quote(json.dumps(body))} "
        "http://127.0.0.1:8000/v1/chat/completions",
        timeout=SECONDS + 10,
    )
    head, _, content = found.stdout.replace("\r", "").partition("\n\n")
    first, *lines = head.splitlines() or [""]
    said = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    words = first.split()
    return Asked(int(words[1]) if len(words) > 1 else 0, said.get("x-served-by", ""), content + found.stderr)


def answer_of(server: str, seconds: float) -> Asked:
    """The first answer that this server gives; others before it are looked at and forgotten."""

    def look() -> list[Asked]:
        found = ask()
        return [found] if found.served_by == server else []

    return wait_for(f"{server} to answer", look, seconds)[0]


def model_unit() -> str:
    """The unit of the model server that is deployed."""
    return f"pageindex-home@{services()['vllm']}.service"


@pytest.fixture(scope="module")
def fallback(finished_host: StagingHost) -> Iterator[Run]:
    """The host with the fallback switched on; without it, and with everything serving, it is left."""
    depot.ensure_ollama()
    try:
        yield converge(*WANTED)
    finally:
        host.execute(f"systemctl start {model_unit()}")
        run = run_playbook("site.yml", *UNWANTED)
        assert run.returncode == 0, run.explain()
        wait_for("everything to serve", everything_serves, 300, pause=2)


def test_it_runs_locked_down_and_out_of_reach(fallback: Run) -> None:
    assert any(title.startswith("ollama : Have the model") for title in fallback.changed), fallback.changed
    [container] = json.loads(host.execute("docker container inspect ollama", check=True).stdout)
    assert container["State"]["Health"]["Status"] == "healthy"
    assert container["HostConfig"]["ReadonlyRootfs"] and container["HostConfig"]["CapDrop"] == ["ALL"]
    assert list(container["NetworkSettings"]["Networks"]) == ["pageindex-home-internal"]
    assert not container["HostConfig"]["PortBindings"]
    # The one that fetched the model is gone, with its way out.
    assert "ollama-download" not in host.execute("docker ps --all --format '{{.Names}}'", check=True).stdout
    owner = host.execute(f"stat --format %u {MODELS} {MODELS}/manifests", check=True).stdout.split()
    assert owner == ["10003", "10003"] and container["Config"]["User"] == "10003:10003"
    names = host.execute("docker exec ollama ollama list", check=True).stdout
    assert MODEL in names and "pageindex-llm" in names


def test_a_second_run_changes_nothing(fallback: Run) -> None:
    assert converge(*WANTED).changed == []


def test_verification_proves_it(fallback: Run) -> None:
    run = run_playbook("playbooks/verify.yml", "--tags", "ollama", "-e", f"ollama_model={MODEL}")
    assert run.returncode == 0, run.explain()
    assert any(result.title == "ollama : Prove that Ollama answers under every name" for result in run.results)


@dataclass(frozen=True)
class Outage:
    """What clients got before the model server was stopped, meanwhile and after, with a fallback and without."""

    before: Asked
    meanwhile: Asked
    meanwhile_without: Asked
    after: Asked
    after_without: Asked


@pytest.fixture(scope="module")
def outage(fallback: Run) -> Outage:
    """The model server stopped and started once, for all that is to be said about it."""
    unit = model_unit()
    before = ask()
    host.execute(f"systemctl stop {unit}", check=True)
    try:
        meanwhile = answer_of("ollama", SECONDS)
        meanwhile_without = ask(NO_FALLBACK)
    finally:
        host.execute(f"systemctl start {unit}", check=True)
    # By itself, as soon as the model server is ready again.
    after = answer_of(services()["vllm"], 300)
    return Outage(before, meanwhile, meanwhile_without, after, ask(NO_FALLBACK))


def test_it_answers_only_while_no_model_server_is_ready(outage: Outage) -> None:
    assert (outage.before.status, outage.before.served_by) == (200, services()["vllm"]), outage
    assert outage.meanwhile.status == 200 and "simulated" in outage.meanwhile.text, outage
    assert outage.after.status == 200 and "simulated" not in outage.after.text, outage


def test_a_request_that_wants_no_fallback_gets_none(outage: Outage) -> None:
    assert outage.meanwhile_without.status == 503, outage
    assert (outage.after_without.status, outage.after_without.served_by) == (200, services()["vllm"]), outage


def test_a_model_that_the_library_does_not_have_is_named(fallback: Run) -> None:
    run = run_playbook("site.yml", "--tags", "ollama", "-e", "ollama_model=no-such-model")
    assert run.returncode != 0, run.explain()
    [failed] = run.failed
    assert "does not have the model" in failed.message and "ollama_model" in failed.message
    # The one that served serves.
    assert host.execute("systemctl is-active pageindex-home@ollama.service").stdout.strip() == "active"
    assert converge(*WANTED).changed == []


def test_switched_off_it_is_gone_and_its_models_stay(fallback: Run) -> None:
    run = converge(*UNWANTED)
    assert "ollama : Remove Ollama" in run.changed, run.changed
    left = host.execute(
        "docker ps --all --format '{{.Names}}' | grep -x ollama; docker image ls --quiet pageindex-home/ollama; "
        "ls -d /opt/pageindex-home/ollama 2> /dev/null; systemctl is-active pageindex-home@ollama.service"
    ).stdout.split()
    assert left == ["inactive"]
    assert host.execute(f"find {MODELS}/blobs -type f", check=True).stdout.strip()
    assert converge(*UNWANTED).changed == []
    assert ask().served_by == services()["vllm"]
    host.execute(f"rm -r {MODELS}")
