"""The migration from an Ollama that is on the host: compare, canary, finish and rollback, each run as the docs say.

Ollama itself cannot be had here. What stands on the host is staging's stand-in (simulated), set up as the installer of
Ollama leaves the real one: a user, a unit, a directory of models. The image of the fallback is the same stand-in.
"""

from __future__ import annotations

import contextlib
import json
import re
import shlex
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from staging import host, provision, settings
from staging.depot import run as depot
from tests.scenarios.ansible_run import Run, converge, run_playbook
from tests.scenarios.conftest import StagingHost
from tests.scenarios.services import container_states, everything_serves, services
from tests.scenarios.waiting import wait_for

# vLLM is started anew twice, and the playbook runs ten times.
pytestmark = pytest.mark.long

PLAYBOOK = "playbooks/migrate_from_ollama.yml"
KEPT = "group_vars/gateway_hosts/migrate_from_ollama.yml"
TAGS = ("--tags", "vllm,ollama,gateway")
MODEL = "llama3.2"
# As Ollama names a model that was fetched without a tag.
NEWEST = f"{MODEL}:" + "latest"
NAMES = [NEWEST, MODEL]
OWN_PORT, OLD_PORT = 8000, 11434
ANSWER_SECONDS = 120
QUESTIONS = 100
# A share of 10 or 50 % of 100 questions is within this many of its mean but for once in a hundred thousand runs.
SPREAD = {10: 16, 50: 22}

# Longest time without an answer at the old port while it changes hands: a container of the gateway is made anew.
GAP_SECONDS = 30

PROGRAM = "/usr/local/bin/ollama"
UNIT = "/etc/systemd/system/ollama.service"
MODELS = "/usr/share/ollama/.ollama/models"
# As Ollama's installer writes it, but for the description.
UNIT_TEXT = f"""[Unit]
Description=Ollama Service (a stand-in of the staging host, simulated)
After=network-online.target

[Service]
ExecStart={PROGRAM} serve
User=ollama
Group=ollama
Restart=always
RestartSec=3
Environment="PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

[Install]
WantedBy=default.target
"""
ADD_USER = "id ollama > /dev/null 2>&1 || useradd -r -s /bin/false -U -m -d /usr/share/ollama ollama"
WATCHED = "/run/old-port-is-watched"


@dataclass(frozen=True)
class Asked:
    """What a client got."""

    status: int
    served_by: str
    text: str


def ask(port: int, path: str, body: dict[str, Any] | None = None) -> Asked:
    """Ask as a client on the host does; with a body that is work."""
    work = f"--json {shlex.quote(json.dumps(body))}" if body is not None else ""
    found = host.execute(
        f"curl --silent --show-error --max-time {ANSWER_SECONDS} {work} "
        f"--write-out '\\n%{{http_code}} %header{{x-served-by}}' http://127.0.0.1:{port}{path}",
        timeout=ANSWER_SECONDS + 10,
    )
    text, _, told = found.stdout.rpartition("\n")
    status, _, served_by = told.partition(" ")
    return Asked(int(status or 0), served_by, text + found.stderr)


def question(model: str, tokens: int = 8) -> dict[str, Any]:
    """What old clients ask, in OpenAI's form and, as far as it is needed, in Ollama's."""
    message = {"role": "user", "content": "Hello!"}
    return {"model": model, "messages": [message], "max_tokens": tokens, "stream": False}


def ask_openai(port: int, model: str) -> Asked:
    return ask(port, "/v1/chat/completions", question(model))


def ask_native(port: int, model: str) -> Asked:
    return ask(port, "/api/chat", question(model))


def is_simulated(asked: Asked) -> bool:
    """Whether the stand-in for Ollama has answered, on the host or in the container."""
    return asked.status == 200 and "simulated" in asked.text


def who_answers() -> Counter[str]:
    """Who answered how many of a hundred questions under the old name. Raises where one was not answered."""
    asked = host.execute(
        f"for _ in $(seq {QUESTIONS}); do curl --silent --max-time {ANSWER_SECONDS} --output /dev/null "
        "--write-out '%{http_code} %header{x-served-by}\\n' "
        f"--json {shlex.quote(json.dumps(question(MODEL, 1)))} http://127.0.0.1:{OWN_PORT}/v1/chat/completions; done",
        timeout=600,
        check=True,
    )
    answers = Counter(asked.stdout.splitlines())
    assert all(answer.startswith("200 ") for answer in answers), answers
    return Counter({answer.removeprefix("200 "): number for answer, number in answers.items()})


def check_share(served: Counter[str], share: int) -> None:
    """Both kinds answer, in about the share."""
    print(f"share {share}: {dict(served)}")
    model_server = services()["vllm"]
    assert set(served) == {model_server, "ollama"}
    assert abs(served[model_server] - share) <= SPREAD[share], served


def ollama_unit() -> dict[str, str]:
    """The owner's Ollama as systemd has it, and whether the old port is its own."""
    shown = host.execute("systemctl show ollama.service --property=ActiveState,UnitFileState,MainPID", check=True)
    unit = dict(line.split("=", 1) for line in shown.stdout.splitlines())
    listening = host.execute(f"ss -Hltnp 'sport = :{OLD_PORT}'", check=True).stdout
    return {
        "active": unit["ActiveState"],
        "starts": unit["UnitFileState"],
        "has its port": "yes" if f"pid={unit['MainPID']}," in listening else "no",
    }


RUNS = {"active": "active", "starts": "enabled", "has its port": "yes"}
AWAY = {"active": "inactive", "starts": "disabled", "has its port": "no"}


@dataclass
class Watched:
    """The old port over a time: how often it was asked, and the longest time without an answer (s)."""

    asked: int = 0
    longest_gap: float = 0.0


@contextlib.contextmanager
def old_port_watched() -> Iterator[Watched]:
    """Ask the old port about ten times a second; what it did is known at the end."""
    url = f"http://127.0.0.1:{OLD_PORT}/api/version"
    look = f"curl --silent --fail --max-time 2 --output /dev/null {url} && found=1 || found=0"
    host.execute(f"touch {WATCHED}", check=True)
    process = subprocess.Popen(
        ["docker", "exec", settings.HOST_NAME, "bash", "-c",
         f"while [ -e {WATCHED} ]; do {look}; echo $EPOCHREALTIME $found; sleep 0.1; done"],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    watched = Watched()
    try:
        yield watched
    finally:
        host.execute(f"rm -f {WATCHED}")
        looks = [line.split() for line in process.communicate(timeout=30)[0].splitlines()]
        watched.asked = len(looks)
        silent_since = 0.0
        for at, found in ((float(at), found == "1") for at, found in looks):
            if silent_since:
                watched.longest_gap = max(watched.longest_gap, at - silent_since)
            silent_since = 0.0 if found else silent_since or at


@dataclass
class Owner:
    """Who migrates: an inventory of their own, and the staging host with an Ollama."""

    inventory: Path
    before: dict[str, tuple[str, str, str]] = field(default_factory=dict)

    def step(self, *words: str, check: bool = False, timeout: float = 900) -> Run:
        """Run a step as the docs say. The exit status is the caller's to judge."""
        arguments = [part for word in words for part in ("-e", word)] + (["--check"] if check else [])
        return run_playbook(PLAYBOOK, *arguments, timeout=timeout, inventory=str(self.inventory))

    def done(self, *words: str) -> Run:
        """Run a step and insist on success."""
        run = self.step(*words)
        assert run.returncode == 0, run.explain()
        return run

    def site(self, *arguments: str) -> Run:
        """Run site.yml with what the steps have decided."""
        return converge(*arguments, inventory=str(self.inventory))

    def kept(self) -> dict[str, Any]:
        """What the steps have decided."""
        return dict(yaml.safe_load((self.inventory / KEPT).read_text()))


def remove_stand_in() -> None:
    """Take the stand-in off the host."""
    host.execute(
        f"systemctl disable --now ollama.service; rm -f {UNIT} {PROGRAM} {WATCHED}; systemctl daemon-reload; "
        "systemctl reset-failed ollama.service; userdel --remove ollama"
    )


@pytest.fixture(scope="module")
def owner(finished_host: StagingHost, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Owner]:
    """The finished host with a stand-in for Ollama of its owner's; afterwards it is as it was, without one."""
    depot.ensure_ollama()
    home = tmp_path_factory.mktemp("owner")
    # Beside it, as in the checkout: the staging host's key and the fingerprints of its repositories.
    (home / ".staging").symlink_to(settings.STATE)
    inventory = home / "inventory" / "staging"
    shutil.copytree(settings.REPOSITORY / provision.INVENTORY, inventory)
    program = (settings.REPOSITORY / "staging" / "images" / "ollama.py").read_bytes()
    try:
        host.execute(ADD_USER, check=True)
        host.TRIXIE.write({PROGRAM.lstrip("/"): (program, 0o755), UNIT.lstrip("/"): (UNIT_TEXT.encode(), 0o644)})
        host.execute("systemctl daemon-reload && systemctl enable --now ollama.service", check=True)
        wait_for("the stand-in to answer", lambda: ask(OLD_PORT, "/api/version").status == 200, 30)
        host.execute(f"ollama pull {MODEL}", check=True)
        yield Owner(inventory, container_states())
    finally:
        # With the checkout's own inventory: nothing of a migration stands in it.
        run = run_playbook("site.yml", *TAGS)
        remove_stand_in()
        assert run.returncode == 0, run.explain()
        wait_for("everything to serve", everything_serves, 300, pause=2)
        assert converge(*TAGS).changed == []


def test_nobody_goes_back_from_where_nobody_went(owner: Owner) -> None:
    run = owner.step("step=rollback")
    assert run.returncode != 0 and run.changed == []
    [failed] = run.failed
    assert "nothing to roll back" in failed.message


def row(output: str, name: str) -> list[float]:
    """The figures of a row of the table: vLLM's and Ollama's."""
    found = re.search(rf"\| {re.escape(name)} \| ([0-9.]+)[^|]* \| ([0-9.]+)[^|]* \|", output)
    assert found, f"no row {name!r} in {output}"
    return [float(figure) for figure in found.groups()]


def test_compare_shows_both_side_by_side_and_changes_nothing(owner: Owner) -> None:
    run = owner.done("step=compare")
    assert run.changed == [] and not (owner.inventory / KEPT).exists()
    assert f"| vLLM: pageindex-llm | Ollama: {NEWEST} |" in run.output, run.explain()
    for name in ("time to first token, median (s)", "tokens per second, median"):
        assert min(row(run.output, name)) > 0, run.output
    assert min(row(run.output, "tokens per second, 4 requests at a time")) > 0
    assert min(row(run.output, "main memory")) > 0
    # The stand-in says that none of its model is on a card; of vLLM, on the processor here, nobody knows.
    assert re.search(r"\| memory of cards \| [^|]+ \| 0\.00 GB \|", run.output), run.output
    vllm, ollama = (re.findall(rf"- {name}: (.+)", run.output) for name in ("vLLM", "Ollama"))
    assert len(vllm) == len(ollama) == 5, run.output
    assert all("simulated" in answer for answer in ollama) and not any("simulated" in answer for answer in vllm)
    assert "step=canary -e share=10" in run.output
    assert container_states() == owner.before and ollama_unit() == RUNS


def test_a_canary_can_be_announced(owner: Owner) -> None:
    run = owner.step("step=canary", "share=10", check=True)
    assert run.returncode == 0 and run.changed, run.explain()
    assert not (owner.inventory / KEPT).exists()
    assert container_states() == owner.before and ollama_unit() == RUNS


@dataclass(frozen=True)
class Step:
    """A step that was run, and what the old port did meanwhile."""

    run: Run
    watched: Watched
    containers: dict[str, tuple[str, str, str]]


def watched_step(owner: Owner, *words: str) -> Step:
    with old_port_watched() as watched:
        run = owner.done(*words)
    print(f"{' '.join(words)}: {run.seconds:.0f} s; old port asked {watched.asked} times, "
          f"longest without an answer {watched.longest_gap:.1f} s")  # fmt: skip
    return Step(run, watched, container_states())


@pytest.fixture(scope="module")
def canary(owner: Owner) -> Step:
    return watched_step(owner, "step=canary", "share=10")


def test_in_the_canary_old_clients_go_on_as_before(owner: Owner, canary: Step) -> None:
    assert canary.watched.asked > 0 and canary.watched.longest_gap == 0, canary.watched
    assert ollama_unit() == RUNS
    for name in NAMES:
        assert is_simulated(ask_openai(OLD_PORT, name)) and is_simulated(ask_native(OLD_PORT, name))
    # vLLM has the old names now; the document service goes on as it was.
    assert canary.containers["vllm"] != owner.before["vllm"]
    assert canary.containers["pageindex"] == owner.before["pageindex"]
    kept = owner.kept()
    assert (kept["gateway_llm_share"], kept["vllm_served_aliases"]) == (10, NAMES)
    assert kept["ollama_models_directory"] == MODELS
    # The container serves the owner's models, as who owns them.
    [container] = json.loads(host.execute("docker container inspect ollama", check=True).stdout)
    uid, gid = host.execute("id -u ollama; id -g ollama", check=True).stdout.split()
    assert container["Config"]["User"] == f"{uid}:{gid}"
    assert [mount["Source"] for mount in container["Mounts"] if mount["Type"] == "bind"] == [MODELS]
    assert "llama3.2" in host.execute("docker exec ollama ollama list", check=True).stdout


def test_in_the_canary_the_work_is_shared_under_the_old_name(canary: Step) -> None:
    check_share(who_answers(), 10)


def test_the_canary_again_changes_nothing(owner: Owner, canary: Step) -> None:
    assert owner.done("step=canary", "share=10").changed == []
    # What was decided stands in the inventory: site.yml keeps to it.
    assert owner.site(*TAGS).changed == []


@pytest.fixture(scope="module")
def raised(owner: Owner, canary: Step) -> Step:
    return watched_step(owner, "step=canary", "share=50")


def test_the_share_is_raised_without_a_new_server(raised: Step, canary: Step) -> None:
    assert raised.containers["vllm"] == canary.containers["vllm"]
    assert raised.containers["gateway"][:2] == canary.containers["gateway"][:2], "taken up by the running one"
    assert raised.watched.longest_gap == 0 and ollama_unit() == RUNS
    check_share(who_answers(), 50)


@pytest.fixture(scope="module")
def finished(owner: Owner, raised: Step) -> Step:
    return watched_step(owner, "step=finish")


def test_finished_vllm_answers_under_the_old_name(finished: Step, raised: Step) -> None:
    assert finished.containers["vllm"] == raised.containers["vllm"], "it has the names already"
    assert who_answers() == {services()["vllm"]: QUESTIONS}
    assert ollama_unit() == AWAY


def test_finished_old_clients_are_answered_at_the_old_port(finished: Step) -> None:
    for name in NAMES:
        asked = ask_openai(OLD_PORT, name)
        assert (asked.status, asked.served_by) == (200, services()["vllm"]) and "simulated" not in asked.text, asked
        assert is_simulated(ask_native(OLD_PORT, name))
    assert MODEL in ask(OLD_PORT, "/v1/models").text
    assert NEWEST in ask(OLD_PORT, "/api/tags").text
    # Models are not changed there any more.
    for path in ("/api/pull", "/api/copy", "/api/delete", "/api/create"):
        assert ask(OLD_PORT, path, {"model": MODEL}).status == 404
    assert finished.watched.longest_gap < GAP_SECONDS, finished.watched
    # Only programs on the host are answered.
    assert host.execute(f"curl --silent --max-time 5 http://{settings.HOST_ADDRESS}:{OLD_PORT}/").returncode == 7


def test_to_finish_again_changes_nothing(owner: Owner, finished: Step) -> None:
    assert owner.done("step=finish").changed == []
    assert ollama_unit() == AWAY
    # The whole of it, its preflight and its proofs included.
    assert owner.site().changed == []
    assert ollama_unit() == AWAY


@pytest.fixture(scope="module")
def returned(owner: Owner, finished: Step) -> Step:
    return watched_step(owner, "step=rollback")


def test_one_command_brings_ollama_back_at_its_port(returned: Step, finished: Step) -> None:
    assert ollama_unit() == RUNS
    for name in NAMES:
        assert is_simulated(ask_native(OLD_PORT, name)) and is_simulated(ask_openai(OLD_PORT, name))
    assert returned.containers["vllm"] == finished.containers["vllm"], "vLLM may be why, and is not touched"
    assert who_answers() == {"ollama": QUESTIONS}
    assert returned.watched.longest_gap < GAP_SECONDS, returned.watched


def test_to_go_back_again_changes_nothing(owner: Owner, returned: Step) -> None:
    assert owner.done("step=rollback").changed == []
    assert owner.site(*TAGS).changed == []
    assert ollama_unit() == RUNS


def test_without_the_file_the_migration_is_gone_and_ollama_stays(owner: Owner, returned: Step) -> None:
    (owner.inventory / KEPT).unlink()
    owner.site(*TAGS)
    assert host.execute("docker container inspect ollama").returncode != 0
    wait_for("everything to serve", everything_serves, 300, pause=2)
    asked = ask_openai(OWN_PORT, "pageindex-llm")
    assert (asked.status, asked.served_by) == (200, services()["vllm"]), asked
    assert ask_openai(OWN_PORT, MODEL).status == 404, "the old name went with the file"
    assert ollama_unit() == RUNS
    for name in NAMES:
        assert is_simulated(ask_native(OLD_PORT, name))
