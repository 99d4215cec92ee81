"""A network with no way out but a proxy that asks for a password, and mirrors whose certificates nobody knows.

Everything that the project downloads has to come through the proxy, and the password may be seen nowhere.
"""

from __future__ import annotations

import json
import re
import subprocess
import threading
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from staging import host, network, proxy, settings
from tests.scenarios.ansible_run import Run, converge, run_playbook
from tests.scenarios.conftest import StagingHost

# All of site.yml once more, and twice again to take it back.
pytestmark = pytest.mark.long

PASSWORDS = (proxy.PASSWORD, urllib.parse.quote(proxy.PASSWORD, safe=""))
PYTHON_IMAGE = "python:3.13-slim"
KEYRING = "/etc/apt/keyrings/pageindex-home-nvidia-toolkit.asc"
PACKAGE = "libnvidia-container-tools"
LOOK = "docker inspect --format '{{.Id}} {{.State.StartedAt}}' gateway"


@dataclass(frozen=True)
class ProxiedRun:
    """A run through the proxy: what it said, what the proxy saw, and what others on both machines could see."""

    run: Run
    requests: list[proxy.Request]
    process_lists: str
    arguments: list[str]
    gateway_before: str
    # Runs without the settings, after which the host is as it was.
    put_back: list[Run]


def variables() -> dict[str, object]:
    """What an owner of such a network puts into the inventory."""
    fingerprint = (settings.STATE / "apt-key-fingerprint").read_text().strip()
    return {
        "downloads_http_proxy": proxy.URL_WITH_PASSWORD,
        "downloads_certificate_authorities": {"mirrors": settings.DEPOT_AUTHORITY.read_text()},
        "nvidia_toolkit_repository": {
            "uris": ["https://apt.staging.test/toolkit/"],
            "suites": ["./"],
            "key_url": "https://apt.staging.test/toolkit/key.asc",
            "fingerprints": [fingerprint],
        },
        "vllm_hub_endpoint": "https://hub.staging.test",
        "pageindex_pip_index_url": "https://pypi.staging.test/simple/",
        "pageindex_pip_trusted_host": "",
    }


def forget_downloads() -> None:
    """Take away one thing of every kind, so that it has to be downloaded again; what runs goes on."""
    models = "/srv/pageindex-home/models"
    for command in (
        f"rm {KEYRING}",
        f"apt-mark unhold {PACKAGE} && dpkg --force-depends --remove {PACKAGE} && apt-get clean",
        # Without its manifest a model is not complete, and this file has to be fetched.
        f"cd {models}/{settings.SMOLLM2_REPOSITORY} && rm */.manifest.json */generation_config.json",
        f"docker image rm --force {PYTHON_IMAGE} && docker builder prune --all --force",
    ):
        host.execute(command, check=True)


class ProcessLists(threading.Thread):
    """Looks at the command lines of every process, on the host and on the controller, until it is stopped."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._end = threading.Event()
        self.seen: set[str] = set()

    def run(self) -> None:
        """Collect command lines, several times a second."""
        while not self._end.wait(0.2):
            self.seen.update(host.execute("ps axo args").stdout.splitlines())
            mine = subprocess.run(["ps", "axo", "args"], capture_output=True, text=True, errors="replace", check=False)
            self.seen.update(mine.stdout.splitlines())

    def stop(self) -> str:
        """End, and return every command line that was seen."""
        self._end.set()
        self.join(30)
        return "\n".join(sorted(self.seen))


@pytest.fixture(scope="module")
def proxied(finished_host: StagingHost, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProxiedRun]:
    """site.yml on a host that has no other way out; everything is put back afterwards."""
    proxy.ensure()
    file: Path = tmp_path_factory.mktemp("proxy") / "variables.json"
    file.touch(mode=0o600)
    file.write_text(json.dumps(variables()), encoding="utf-8")
    arguments = ["-e", f"@{file}"]
    gateway = host.execute(LOOK, check=True).stdout
    forget_downloads()
    network.cut_direct_access(host.TRIXIE)
    proxy.clear_log()
    put_back: list[Run] = []
    watcher = ProcessLists()
    watcher.start()
    try:
        run = run_playbook("site.yml", "-vvv", "--diff", *arguments)
        yield ProxiedRun(run, proxy.log(), watcher.stop(), arguments, gateway, put_back)
    finally:
        watcher.stop()
        network.restore_direct_access(host.TRIXIE)
        # The next scenarios find the host as this one did, whatever happened here.
        if not put_back:
            converge()
        proxy.remove()


def test_the_way_out_is_really_cut(proxied: ProxiedRun) -> None:
    direct = host.execute(f"curl --silent --noproxy '*' --max-time 5 http://{settings.DEPOT_ADDRESS}/healthz")
    assert direct.returncode != 0
    assert host.execute("curl --silent --noproxy '*' --max-time 5 https://apt.staging.test/").returncode != 0


def test_everything_is_downloaded_through_the_proxy(proxied: ProxiedRun) -> None:
    assert proxied.run.returncode == 0, proxied.run.explain()
    targets = {request.target for request in proxied.requests if 200 <= request.status < 400}
    for kind, pattern in {
        "the signing key and the toolkit's packages": r"apt\.staging\.test:443",
        "the distribution's package lists": r"http://deb\.debian\.org/.*|http://apt\.staging\.test/.*",
        "the model": r"hub\.staging\.test:443",
        "the image": r"registry\.staging\.test:5000",
        "Python packages of the image build": r"pypi\.staging\.test:443",
    }.items():
        assert any(re.fullmatch(pattern, target) for target in targets), f"{kind} did not come through: {targets}"
    assert host.execute(f"test -s {KEYRING} && dpkg --status {PACKAGE}").returncode == 0
    assert host.execute(f"docker image inspect {PYTHON_IMAGE}").returncode == 0


def test_every_request_names_the_user(proxied: ProxiedRun) -> None:
    answered = [request for request in proxied.requests if request.status != 407]
    assert answered and {request.user for request in answered} == {proxy.USER}


def test_the_second_run_changes_nothing_and_verify_is_content(proxied: ProxiedRun) -> None:
    run = converge(*proxied.arguments)
    assert run.changed == []
    assert any("download_check" in result.action for result in run.results), "nobody looked"


def test_docker_restarted_and_containers_did_not(proxied: ProxiedRun) -> None:
    assert host.execute("docker info --format '{{.HTTPSProxy}}'").stdout.strip().endswith(":3129")
    assert host.execute(LOOK, check=True).stdout == proxied.gateway_before


def test_the_password_is_in_no_output_and_no_process_list(proxied: ProxiedRun) -> None:
    for password in PASSWORDS:
        assert password not in proxied.run.output
        assert password not in proxied.run.log.with_suffix(".jsonl").read_text(encoding="utf-8")
        assert password not in proxied.process_lists
    assert "docker build" in proxied.process_lists, "the build was not seen, so nothing is proved"


def test_the_password_is_in_no_file_that_others_read(proxied: ProxiedRun) -> None:
    patterns = " ".join(f"-e '{password}'" for password in PASSWORDS)
    found = host.execute(
        f"grep -rlF {patterns} /etc /opt /run /srv/pageindex-home/data /usr/local /var/lib/pageindex-home /var/log "
        "/var/tmp /tmp /root 2>/dev/null",
        timeout=300,
    ).stdout.split()
    expected = ["/etc/apt/auth.conf.d/90pageindex-home-downloads.conf", "/etc/pageindex-home/downloads.env"]
    assert sorted(found) == expected
    modes = host.execute(f"stat --format '%a %U' {' '.join(expected)}", check=True).stdout.splitlines()
    assert modes == ["600 root"] * len(expected)
    for command in (
        "systemctl show docker.service",
        "systemctl cat docker.service",
        "docker info",
        "apt-config dump",
        "journalctl --no-pager",
        "docker image ls --quiet | xargs docker image inspect",
        "docker image ls --quiet | xargs --max-args 1 docker image history --no-trunc",
        "docker ps --quiet | xargs docker inspect",
    ):
        said = host.execute(command, timeout=300).stdout
        assert said and not any(password in said for password in PASSWORDS), command


def test_containers_know_no_proxy(proxied: ProxiedRun) -> None:
    environments = host.execute(
        "docker ps --quiet | xargs docker inspect --format '{{json .Config.Env}}'", check=True
    ).stdout
    assert "vllm" in environments.lower() and "_proxy=" not in environments.lower()


def test_apt_works_for_everyone(proxied: ProxiedRun) -> None:
    # A configuration that only root reads would break every apt command of others.
    asked = host.execute("setpriv --reuid=nobody --regid=nogroup --clear-groups apt-get --simulate install less")
    assert asked.returncode == 0, asked.stderr


def test_without_settings_nothing_of_it_is_left(proxied: ProxiedRun) -> None:
    network.restore_direct_access(host.TRIXIE)
    gateway = host.execute(LOOK, check=True).stdout
    run = converge()
    assert "downloads : Tell every program on the host how to download" in run.changed
    left = host.execute(
        "ls -d /etc/pageindex-home /etc/apt/apt.conf.d/*downloads* /etc/apt/auth.conf.d/*downloads* "
        "/etc/systemd/system/docker.service.d/*downloads* /etc/ssl/certs/pageindex-home-* "
        "/usr/local/share/ca-certificates/pageindex-home-* 2>/dev/null; "
        "find /etc/ssl/certs -type l ! -exec test -e {} \\; -print"
    ).stdout
    assert left == ""
    assert host.execute("docker info --format '[{{.HTTPSProxy}}]'").stdout.strip() == "[]"
    assert host.execute(LOOK, check=True).stdout == gateway
    again = converge()
    assert again.changed == []
    proxied.put_back.append(again)
