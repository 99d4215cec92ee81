"""Removal: asked for, complete, idempotent, killed in the middle, polite to what is not ours; and built up again."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator

import pytest

from staging import host
from tests.scenarios.acceptance_run import run_acceptance
from tests.scenarios.ansible_run import RunningPlaybook, converge, run_playbook
from tests.scenarios.conftest import StagingHost
from tests.scenarios.services import services

REMOVE = "playbooks/remove.yml"
KEPT = (
    "/srv/pageindex-home/models",
    "/srv/pageindex-home/data/pageindex",
    "/srv/pageindex-home/data/gateway/certificates",
)
# Everything that must not be found on the host any more, as one shell command; it prints what is left.
LEFTOVERS = """
dpkg-query -W -f '${db:Status-Status} ${Package}\\n' | grep '^installed' |
    grep -E ' (nvidia-|libnvidia-|docker\\.io|docker-c|containerd|runc$)' | grep -v simulator
dpkg-query -W -f '${db:Status-Status} ${Package}\\n' | grep -E '^config-files (nvidia|libnvidia)'
apt-mark showhold
ls -d /opt/pageindex-home /var/lib/pageindex-home /run/pageindex-home/jobs/* /var/run/cdi/nvidia.yaml \
    /etc/docker /etc/pageindex-home 2> /dev/null
find /etc/systemd/system /etc/apt /etc/modprobe.d /var/lib/apt/lists -type f \
    \\( -name '*pageindex-home*' -o -name 'apt.staging.test_[dt][ro]*' -o -name '*nvidia-driver-pinning*' \\)
systemctl list-units --all --plain --no-legend 'pageindex-home*' 'nvidia-*' | cut -d' ' -f1
systemctl list-unit-files --no-legend 'pageindex-home*' 'nvidia-*' 'docker*' | cut -d' ' -f1
getent passwd | grep -i pageindex
true
"""


def leftovers() -> list[str]:
    """What is on the host and should not be."""
    return host.execute(LEFTOVERS, check=True).stdout.split()


def test_without_a_yes_nothing_is_removed(finished_host: StagingHost) -> None:
    run = run_playbook(REMOVE, timeout=180)
    assert run.returncode != 0 and run.changed == [], run.explain()
    assert "Nothing was removed" in run.output and "-e confirm=true" in run.output
    # Said beforehand, with sizes of what stays.
    for text in (
        "remove the image pageindex-home/vllm",
        "nvidia-open",
        "delete it with `rm -r /srv/pageindex-home/models`",
    ):
        assert text in run.output, text
    unit = f"pageindex-home@{services()['vllm']}.service"
    assert host.execute(f"systemctl is-active {unit}").stdout.strip() == "active"


def test_check_mode_removes_nothing_and_announces(finished_host: StagingHost) -> None:
    run = run_playbook(REMOVE, "--check", timeout=180)
    assert run.returncode == 0 and run.changed, run.explain()
    assert host.execute("systemctl is-active pageindex-home@gateway.service").stdout.strip() == "active"


def test_data_and_models_go_when_they_are_named(finished_host: StagingHost) -> None:
    run = run_playbook(
        REMOVE,
        "-e",
        "remove_data=true",
        "-e",
        "remove_models=true",
        "-e",
        "remove_docker=false",
        "--check",
        timeout=180,
    )
    assert run.returncode == 0, run.explain()
    data = [f"/srv/pageindex-home/data/{service}" for service in ("pageindex", "vllm", "gateway")]
    for path in ("/srv/pageindex-home/models", *data):
        assert f"remove {path}" in run.output, path
    assert "Docker stays, as remove_docker says" in run.output


@pytest.fixture(scope="module")
def somebody_else(finished_host: StagingHost) -> Iterator[None]:
    """A container, a network and a key in daemon.json that are not ours."""
    document = json.loads(host.execute("cat /etc/docker/daemon.json", check=True).stdout)
    changed = json.dumps(document | {"shutdown-timeout": 20})
    image = host.execute("docker inspect --format '{{.Config.Image}}' gateway", check=True).stdout.strip()
    base = host.execute(
        f"docker image inspect --format '{{{{index .Config.Labels \"pageindex-home.base-image\"}}}}' {image}",
        check=True,
    ).stdout.strip()
    host.execute(f"printf %s '{changed}' > /etc/docker/daemon.json", check=True)
    host.execute("docker network create theirs", check=True)
    host.execute(f"docker run --detach --name theirs --network theirs --entrypoint sleep {base} 100000", check=True)
    yield
    host.execute("docker rm --force theirs; docker network rm theirs")


# Numbers of tasks in the second play: after the gateway, after vLLM, between Docker and the driver.
@pytest.mark.parametrize("kill_at", [23, 28, 33])
def test_removal_goes_on_after_it_was_killed(somebody_else: None, finished_host: StagingHost, kill_at: int) -> None:
    killed = RunningPlaybook(REMOVE, "-e", "confirm=true", kill_at=kill_at).finish(400)
    assert killed.returncode == -signal.SIGKILL, killed.explain()


def test_a_docker_that_others_use_stays_and_so_does_what_is_theirs(
    somebody_else: None, finished_host: StagingHost
) -> None:
    finished_host.finished = False
    run = run_playbook(REMOVE, "-e", "confirm=true", timeout=400)
    assert run.returncode == 0, run.explain()
    assert host.execute("docker inspect --format '{{.State.Running}}' theirs").stdout.strip() == "true"
    assert json.loads(host.execute("cat /etc/docker/daemon.json", check=True).stdout) == {"shutdown-timeout": 20}
    assert host.execute("docker network ls --format '{{.Name}}'").stdout.split().count("theirs") == 1
    assert "pageindex-home" not in host.execute("docker image ls; docker network ls").stdout


def test_nothing_of_ours_is_left_but_data_and_models(somebody_else: None, finished_host: StagingHost) -> None:
    host.execute("docker rm --force theirs && docker network rm theirs && rm /etc/docker/daemon.json", check=True)
    # The note that Docker came with us went with the rest: from here on it has to be named.
    run = run_playbook(REMOVE, "-e", "confirm=true", "-e", "remove_docker=true", timeout=400)
    assert run.returncode == 0, run.explain()
    assert leftovers() == []
    for path in KEPT:
        assert host.execute(f"find {path} -type f | head -1", check=True).stdout.strip(), f"{path} was to be kept"
    assert host.execute("systemctl is-system-running").stdout.strip() == "running"
    assert host.execute("apt-get -q check && apt-get -q update", check=True).returncode == 0


def test_a_second_removal_changes_nothing_and_does_not_ask(finished_host: StagingHost) -> None:
    run = run_playbook(REMOVE, timeout=180)
    assert run.returncode == 0 and run.changed == [], run.explain()
    assert "Nothing of PageIndex Home is on this host" in run.output


@pytest.mark.long  # all of site.yml once more
def test_a_new_run_builds_everything_up_again(finished_host: StagingHost) -> None:
    converge()
    finished_host.finished = True
    assert converge().changed == []
    run = run_acceptance()
    assert run.returncode == 0, run.output
