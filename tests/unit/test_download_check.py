"""What is found when apt, Docker or the bundle do not do what the inventory says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.pageindex.home.plugins.module_utils.certificate_authorities import (
    AuthorityError,
    SystemAuthorities,
)
from ansible_collections.pageindex.home.plugins.module_utils.commands import CommandResult
from ansible_collections.pageindex.home.plugins.module_utils.download_check import faults
from ansible_collections.pageindex.home.plugins.module_utils.download_settings import plan
from tests.unit.certificates import certificate

AUTHORITY = certificate()
PLAN = asdict(
    plan(
        {
            "http_proxy": "http://u:s3cret@proxy.example:3128",
            "https_proxy": "http://u:s3cret@proxy.example:3128",
            "no_proxy": ["mirror.example"],
            "certificate_authorities": {"corp": AUTHORITY},
        }
    )
)


class Host:
    """Files and answers of a host on which everything is right, until a test changes it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.settings = folder / "downloads.env"
        self.settings.write_text("".join(f'{name}="{value}"\n' for name, value in PLAN["environment"].items()))
        self.authorities = SystemAuthorities(
            sources=str(folder / "sources"), links=str(folder / "certs"), bundle=str(folder / "bundle.crt")
        )
        (folder / "bundle.crt").write_text("others\n" + AUTHORITY)
        (folder / "proc" / "7").mkdir(parents=True)
        self.started_with(PLAN["environment"])
        lines = [
            f'Acquire::{name}::Proxy{suffix} "{value}";'
            for name in ("http", "https")
            for suffix, value in [("", "http://proxy.example:3128")]
            + [(f"::{host}", "DIRECT") for host in PLAN["apt_direct"]]
        ]
        masked = "http://xxxxx:xxxxx@proxy.example:3128"
        self.answers = {
            "apt-config": 'APT::Sandbox::User "_apt";\n' + "\n".join(lines),
            "systemctl": "7\n",
            "docker": f"{masked}\n{masked}\n{PLAN['environment']['no_proxy']}\n",
        }

    def started_with(self, environment: dict[str, str]) -> None:
        text = "\0".join(f"{name}={value}" for name, value in environment.items())
        (self.folder / "proc" / "7" / "environ").write_text(text)

    def faults(self) -> list[str]:
        def runner(arguments: Sequence[str], **options: Any) -> CommandResult:
            return CommandResult(0, self.answers[arguments[0]], "")

        found = faults(PLAN, runner, str(self.settings), self.authorities, str(self.folder / "proc"))
        assert "s3cret" not in "".join(found)
        return found


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_a_host_as_it_should_be_has_no_faults(host: Host) -> None:
    assert host.faults() == []


def test_another_file_of_apt_that_wins_is_found(host: Host) -> None:
    host.answers["apt-config"] = host.answers["apt-config"].replace(
        'Acquire::https::Proxy "http://proxy.example:3128"', 'Acquire::https::Proxy "http://o:s3cret@other:1"'
    )
    [fault] = host.faults()
    assert "apt uses http://other:1 as Acquire::https::Proxy, expected http://proxy.example:3128" in fault
    assert "grep -r Acquire::https" in fault


def test_a_settings_file_of_yesterday_is_found(host: Host) -> None:
    host.settings.write_text('http_proxy="http://old:1"\n')
    assert "--tags downloads" in host.faults()[0]


def test_a_daemon_that_was_not_restarted_is_found(host: Host) -> None:
    host.started_with({**PLAN["environment"], "HTTP_PROXY": "http://u:s3cret-of-yesterday@proxy.example:3128"})
    [fault] = host.faults()
    assert "started with another HTTP_PROXY" in fault and "--tags downloads,docker_engine" in fault


def test_proxies_in_daemon_json_are_found(host: Host) -> None:
    host.answers["docker"] = "http://other:1\n" + host.answers["docker"].partition("\n")[2]
    [fault] = host.faults()
    assert "Docker uses http://other:1 as http_proxy" in fault and "daemon.json" in fault


def test_a_host_without_a_daemon_is_not_asked_for_it(host: Host) -> None:
    host.answers["systemctl"] = "0\n"
    host.answers["docker"] = ""
    assert host.faults() == []


def test_an_authority_that_is_not_in_the_bundle_is_found(host: Host) -> None:
    Path(host.authorities.bundle).write_text("others\n")
    [fault] = host.faults()
    assert "pageindex-home-corp" in fault


class Bundle:
    """update-ca-certificates, in a folder."""

    def __init__(self, folder: Path, works: bool = True) -> None:
        self.works, self.runs = works, 0
        for name in ("sources", "links"):
            (folder / name).mkdir()
        self.system = SystemAuthorities(
            runner=self.run, sources=str(folder / "sources"), links=str(folder / "links"), bundle=str(folder / "bundle")
        )
        self.folder = folder

    def run(self, arguments: Sequence[str], **options: Any) -> CommandResult:
        self.runs += 1
        # Without --fresh it leaves links alone, also those that lead nowhere.
        for link in (self.folder / "links").iterdir() if "--fresh" in arguments else []:
            link.unlink()
        text = ""
        for source in sorted((self.folder / "sources").glob("*.crt")) if self.works else []:
            link = self.folder / "links" / f"{source.stem}.pem"
            link.unlink(missing_ok=True)
            link.symlink_to(source)
            text += source.read_text()
        (self.folder / "bundle").write_text(text)
        return CommandResult(0, "", "")

    def put(self, wanted: dict[str, str]) -> None:
        for path in self.system.stale_files(wanted):
            Path(path).unlink()
        for entry in self.system.files(wanted):
            Path(entry["path"]).write_text(entry["content"])


def test_the_bundle_follows_what_is_wanted(tmp_path: Path) -> None:
    bundle, wanted = Bundle(tmp_path), {"pageindex-home-corp": AUTHORITY}
    assert bundle.system.is_current({}) and not bundle.system.is_current(wanted)
    bundle.put(wanted)
    # A run that was killed right here is made good by the next: the bundle is not current yet.
    assert not bundle.system.is_current(wanted)
    bundle.system.renew(wanted)
    assert bundle.system.is_current(wanted) and not bundle.system.is_current({})
    bundle.put({})
    assert not bundle.system.is_current({})
    bundle.system.renew({})
    assert bundle.system.is_current({})


def test_what_others_put_there_stays(tmp_path: Path) -> None:
    bundle = Bundle(tmp_path)
    (tmp_path / "sources" / "theirs.crt").write_text("theirs")
    (tmp_path / "sources" / "pageindex-home-old.crt").write_text(AUTHORITY)
    assert bundle.system.stale_files({}) == [str(tmp_path / "sources" / "pageindex-home-old.crt")]


def test_an_authority_that_does_not_get_into_the_bundle_is_an_error(tmp_path: Path) -> None:
    bundle = Bundle(tmp_path, works=False)
    with pytest.raises(AuthorityError, match=r"pageindex-home-corp is not in"):
        bundle.system.renew({"pageindex-home-corp": AUTHORITY})
