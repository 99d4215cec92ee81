"""The page of a check run: from recorded results to its text, and through Ansible itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from ansible_collections.pageindex.home.plugins.module_utils.memory_plan.host import host_plan
from ansible_collections.pageindex.home.plugins.plugin_utils.plan_page import Page, selection

REPOSITORY = Path(__file__).resolve().parents[2]
DATA = REPOSITORY / "tests" / "data"
CARDS = [
    {"index": index, "error": None, "name": "NVIDIA GeForce RTX 5090", "memory_total_mib": 32607} for index in (0, 1)
]
VARIABLES: dict[str, Any] = {"model": "qwen3-32b-awq", "version": "0.32.0", "profile": "pageindex"}


def result(page: Page, action: str, task: str = "a task", host: str = "gpu1", **content: Any) -> None:
    arguments = content.pop("arguments", {})
    page.take(host, f"pageindex.home.{action}", f"role : {task}", arguments, content)


def llm(
    page: Page, running: str = "", seconds: float | None = None, replicas: list[list[int]] | None = None, **wishes: Any
) -> None:
    memory = {**host_plan({**VARIABLES, **wishes}, {"nvml": {}, "gpus": CARDS}), "last_start_seconds": seconds}
    model = wishes.get("model", "qwen3-32b-awq")
    fact = {"model": model, "running": running, "memory": memory, "replicas": replicas, "drain_seconds": 120}
    page.take("gpu1", "ansible.builtin.set_fact", "vllm : keep", {}, {"ansible_facts": {"__vllm_plan_page": fact}})


def line(page: Page, heading: str) -> str:
    """One line of the page, unfolded."""
    found: list[str] = []
    for text in page.text().splitlines():
        if text.startswith(f"  {heading} "):
            found.append(text[16:])
        elif found and text.startswith(" " * 16):
            found.append(text.strip())
        elif found:
            break
    return " ".join(found)


def test_a_recorded_check_run_of_a_clean_host_gives_this_page() -> None:
    """Recorded on a Debian 12 machine that shows two RTX 5090s on a made-up PCI bus: its own driver is not there."""
    page = Page()
    for text in (DATA / "check_run_clean_host.jsonl").read_text(encoding="utf-8").splitlines():
        one = json.loads(text)
        page.take(one["host"], one["action"], one["task"], one["arguments"], one["result"])
    assert page.text() == (DATA / "check_run_clean_host.txt").read_text(encoding="utf-8")


def test_a_finished_host_needs_nothing() -> None:
    page = Page()
    result(page, "packages", changed=False, installed=[])
    result(page, "file_set", changed=False, changed_files=[])
    llm(page, running="qwen3-32b-awq")
    headings = ("Packages", "Files", "Downloads", "Images", "Reboot", "Services", "Downtime", "Also")
    assert [line(page, heading) for heading in headings] == [
        "none", "none", "none", "none", "no", "none is touched", "none", "",
    ]  # fmt: skip
    assert line(page, "Memory plan").startswith("Qwen/Qwen3-32B-AWQ fits 2 x NVIDIA GeForce RTX 5090 with 32768")


def test_a_switch_tells_download_and_downtime() -> None:
    page = Page()
    llm(page, running="qwen3-32b-awq", seconds=94.6, model="qwen3-8b-awq")
    result(page, "model_files", changed=True, arguments={"repository": "Qwen/Qwen3-8B-AWQ"})
    result(page, "llm_deployment", changed=True)
    assert line(page, "Downloads") == "model Qwen/Qwen3-8B-AWQ (6.1 GB)"
    assert line(page, "Services") == "start or restart vllm"
    assert line(page, "Downtime") == (
        "of the LLM the engine's start (95 s at the last start of this server here), after the requests that run have "
        "ended (120 s at most); qwen3-32b-awq serves until then"
    )


def test_a_server_that_starts_beside_the_other_costs_no_downtime() -> None:
    page = Page()
    llm(page, running="qwen3-32b-awq", seconds=94.6, model="qwen3-8b-awq")
    result(page, "llm_deployment", changed=True, beside=True)
    assert line(page, "Downtime") == (
        "none of the LLM: qwen3-32b-awq serves until a new server does (95 s at the last start of this server here)"
    )


@pytest.mark.parametrize(
    ("replicas", "said"),
    [
        ([[0], [1]], "2 replicas of the LLM, on GPU 0; on GPU 1"),
        ([[0, 1]], "one LLM, on GPU 0, 1"),
        ([[]], "one LLM, on the processor"),
        (None, ""),
    ],
)
def test_it_says_where_the_servers_run(replicas: list[list[int]] | None, said: str) -> None:
    page = Page()
    llm(page, running="qwen3-32b-awq", replicas=replicas)
    result(page, "llm_deployment", changed=True)
    assert line(page, "Servers") == said


def test_what_the_hub_says_wins_and_what_nobody_says_is_unknown() -> None:
    page = Page()
    result(page, "model_files", changed=True, arguments={"repository": "me/a"}, bytes_total=2_500_000_000)
    result(page, "model_files", changed=True, arguments={"repository": "me/b"})
    image: dict[str, Any] = {
        "image": "pageindex-home/vllm:1",
        "base_image": "vllm/vllm-openai:v1",
        "base_missing": True,
    }
    result(page, "container_image", changed=True, **image)
    result(page, "container_image", changed=True, **{**image, "base_image": "haproxy:3.0", "base_missing": False})
    assert line(page, "Downloads") == (
        "model me/a (2.5 GB), model me/b (size not known), image vllm/vllm-openai:v1 (size not known)"
    )


@pytest.mark.parametrize(
    ("reboot", "says"),
    [
        ("allow", "yes, as soon as"),
        ("local", "yes, by you"),
        ("stop", "yes, by you"),
        ("never", "needed, but switched"),
    ],
)
def test_a_reboot_is_announced_with_its_reason(reboot: str, says: str) -> None:
    page = Page()
    result(page, "packages", changed=True, installed=["nvidia-open"], versions={"nvidia-open": "595-1"}, removed=["x"])
    fact = {"__nvidia_driver_plan_page": {"reboot": reboot, "reasons": ["no driver is loaded"]}}
    page.take("gpu1", "set_fact", "keep", {}, {"ansible_facts": fact})
    assert line(page, "Reboot").startswith(says)
    assert line(page, "Reboot").endswith("no driver is loaded")
    assert line(page, "Packages") == "install or upgrade nvidia-open 595-1; remove x"
    assert line(page, "Downtime") == "the reboot, then the start of every service"


def test_a_model_that_does_not_fit_or_is_not_known() -> None:
    page = Page()
    result(page, "file_set")
    llm(page, model="qwen3-32b")
    text = page.text()
    assert "does not fit 2 x" in text and "vllm_model: qwen3-32b-fp8 (fits)" in text
    assert "vllm_start_despite_memory_plan: true" in text
    llm(page, model="mine", models_extra={"mine": {"repository": "me/mine"}})
    assert "mine: no memory plan (nothing is known of the model" in " ".join(page.text().split())


def test_other_changes_failures_and_hosts_stand_on_the_page_too() -> None:
    page = Page()
    result(page, "apt_repositories", "Set up a package source", changed=True)
    result(page, "packages", "Hold the driver", changed=True, installed=[], held=["nvidia-open"])
    page.fail("gpu2", "vllm : Refuse what cannot work")
    assert line(page, "Also") == "Set up a package source; Hold the driver"
    text = page.text({"gpu3"}, selection(["vllm"], ["verify"], "gpu*"))
    assert text.startswith(
        "What a run would change (only tags vllm, without tags verify, only hosts gpu*). Nothing was"
    )
    assert text.index("\ngpu1\n") < text.index("\ngpu2\n") < text.index("\ngpu3\n")
    assert 'at "Refuse what cannot work"' in text


def test_a_removal_or_a_verification_gets_no_page() -> None:
    page = Page()
    result(page, "removed", changed=True)
    assert page.text({"gpu1"}) == ""
    assert selection(["all"], [], None) == ""


@pytest.mark.parametrize(
    ("arguments", "written", "shown"),
    [(["-e", "plan_only=true"], False, True), (["--check"], False, True), ([], True, False)],
    ids=["plan", "check", "run"],
)
def test_through_ansible(tmp_path: Path, arguments: list[str], written: bool, shown: bool) -> None:
    """The play's switch, the callback, and a run that only looks."""
    target = tmp_path / "written"
    [play] = yaml.safe_load((REPOSITORY / "playbooks" / "deploy_llm.yml").read_text(encoding="utf-8"))
    files = [{"path": str(target), "content": "x", "owner": str(os.getuid()), "group": str(os.getgid())}]
    playbook = [
        {
            "hosts": "localhost",
            "gather_facts": False,
            "check_mode": play["check_mode"],
            "tasks": [{"name": "Write", "pageindex.home.file_set": {"files": files}}],
        }
    ]
    (tmp_path / "play.yml").write_text(yaml.safe_dump(playbook), encoding="utf-8")
    finished = subprocess.run(
        [str(Path(sys.executable).with_name("ansible-playbook")), "play.yml", "-i", "localhost,", "-c", "local",
         "-e", f"ansible_python_interpreter={sys.executable}", *arguments],
        cwd=tmp_path,
        env=os.environ
        | {
            "ANSIBLE_CONFIG": str(REPOSITORY / "ansible.cfg"),
            "ANSIBLE_COLLECTIONS_PATH": str(REPOSITORY / "collections"),
            "LC_ALL": "C.UTF-8",
        },
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert target.exists() == written
    assert ("What a run would change" in finished.stdout) == shown
    if shown:
        assert f"Files         {target}" in finished.stdout
