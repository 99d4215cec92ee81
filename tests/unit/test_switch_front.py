"""The gateway's runtime API, as HAProxy 3.0 answers it."""

from __future__ import annotations

from itertools import count

from ansible_collections.pageindex.home.plugins.module_utils.llm_switch.front import Front

SETTINGS = {"container": "gateway", "backend": "llm", "admin_port": 8405}


class Gateway:
    """Answers `show stat` and remembers what it was told."""

    def __init__(self, running: list[int], status: list[str]) -> None:
        self.running, self.status = running, status
        self.commands: list[str] = []

    def __call__(self, command: str) -> str | None:
        self.commands.append(command)
        if command != "show stat":
            return "\n"
        now = self.running.pop(0) if len(self.running) > 1 else self.running[0]
        status = self.status.pop(0) if len(self.status) > 1 else self.status[0]
        # The backend for what does not wait stands first, and has a request of its own on the same server.
        return (
            f"# pxname,svname,qcur,scur,status\nllm_now,vllm:8000,0,{min(now, 1)},no check\nllm,FRONTEND,,9,OPEN\n"
            f"llm,vllm:8000,0,{max(now - 1, 0)},{status}\nllm,vllm-2:8000,0,7,UP\nllm,BACKEND,0,9,UP\n"
        )


def test_drain_waits_for_running_requests() -> None:
    gateway = Gateway([2, 1, 0], ["DRAIN"])
    assert Front(SETTINGS, "vllm", gateway).drain(60) == 0
    assert gateway.commands[0] == "set server llm/vllm:8000 state drain"
    assert gateway.commands.count("show stat") == 3


def test_drain_is_bounded_and_says_what_still_runs() -> None:
    ticks = count(step=10.0)
    assert Front(SETTINGS, "vllm", Gateway([3], ["DRAIN"])).drain(5, lambda: next(ticks)) == 3


def test_open_waits_until_the_server_is_up() -> None:
    gateway = Gateway([0], ["DOWN", "DOWN 1/2", "UP"])
    assert Front(SETTINGS, "vllm", gateway).wait_open(60)
    assert gateway.commands[0] == "set server llm/vllm:8000 state ready"


def test_open_is_bounded() -> None:
    ticks = count(step=10.0)
    assert not Front(SETTINGS, "vllm", Gateway([0], ["DOWN"])).wait_open(5, lambda: next(ticks))


def test_without_a_front_there_is_nothing_to_wait_for() -> None:
    def never(_: str) -> str | None:
        raise AssertionError("nobody is asked")

    assert Front({}, "vllm", never).drain(5) == 0
    assert Front(None, "vllm", never).wait_open(5)


def test_a_gateway_that_does_not_run_holds_nothing_up() -> None:
    front = Front(SETTINGS, "vllm", lambda *_: None)
    assert front.drain(5) == 0
    assert front.wait_open(5)
