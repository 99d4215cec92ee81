"""When certbot is asked for the gateway's certificate, with which words, and what is made of its answer."""

from __future__ import annotations

import datetime
import json
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.pageindex.home.plugins.module_utils.acme_certificate import (
    AcmeCertificate,
    AcmeError,
    AcmeResult,
    AcmeSettings,
)
from ansible_collections.pageindex.home.plugins.module_utils.commands import CommandResult, run_command
from ansible_collections.pageindex.home.plugins.module_utils.gateway_certificate import WARN_DAYS, CertificateError
from tests.unit.certificates import server_certificate

NAMES = ("ai.example.com", "home.example.com")
SERVER = "https://acme.example.com/directory"


@dataclass
class Certbot:
    """Does with its files what certbot does, and fails when it is to."""

    directory: Path
    days: int = 90
    failure: CommandResult | None = None
    #: What it writes is for these, whatever was asked for.
    other_names: tuple[str, ...] = ()
    commands: list[list[str]] = field(default_factory=list)
    environments: list[object] = field(default_factory=list)

    def __call__(self, arguments: list[str], **options: object) -> CommandResult:
        if arguments[0] != "certbot":
            return run_command(arguments, **options)  # type: ignore[arg-type]
        self.commands.append(arguments)
        self.environments.append(options["environment"])
        if self.failure:
            return self.failure
        told = dict(pairwise(arguments))
        live = self.directory / "live/pageindex-home/fullchain.pem"
        renewal = self.directory / "renewal/pageindex-home.conf"
        for path in (live, renewal):
            path.parent.mkdir(parents=True, exist_ok=True)
        live.write_text(server_certificate(self.other_names or told["--domains"].split(","), days=self.days))
        renewal.write_text(f"version = 4.0.0\n[renewalparams]\naccount = 0\nserver = {told['--server']}\n")
        return CommandResult(0, "Successfully received certificate.\n", "")


@dataclass
class Host:
    """A host, what is wanted there, and its certbot."""

    wanted: AcmeSettings
    certbot: Certbot

    def ensure(self, check: bool = False, days: int = 0, **changes: object) -> AcmeResult:
        """So many days from now."""
        wanted = replace(self.wanted, **changes)  # type: ignore[arg-type]
        now = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=days)
        return AcmeCertificate(wanted, self.certbot, {"https_proxy": "http://p:1"}, now=lambda: now).ensure(check)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    directory, record = tmp_path / "letsencrypt", tmp_path / "data/acme.json"
    wanted = AcmeSettings(NAMES, "me@example.com", SERVER, ("--standalone",), str(record), str(directory))
    return Host(wanted, Certbot(directory))


def test_certbot_is_asked_once(host: Host) -> None:
    found = host.ensure()
    assert (found.changed, found.why, found.days_left) == (True, "there is none yet", 89)
    assert host.certbot.commands == [
        [
            "certbot", "certonly", "--non-interactive", "--agree-tos", "--email", "me@example.com", "--server", SERVER,
            "--cert-name", "pageindex-home", "--domains", "ai.example.com,home.example.com",
            "--renew-with-new-domains", "--keep-until-expiring", "--standalone",
        ]
    ]  # fmt: skip
    # As everything else on the host downloads; not on a command line, where a proxy's password would be seen.
    assert host.certbot.environments == [{"https_proxy": "http://p:1"}]
    second = host.ensure()
    assert (second.changed, second.why, second.ends) == (False, "", found.ends)
    assert not host.ensure(check=True).changed and len(host.certbot.commands) == 1


def test_check_mode_asks_nobody_and_writes_nothing(host: Host, tmp_path: Path) -> None:
    assert host.ensure(check=True) == AcmeResult(True, "there is none yet", "", 0)
    assert host.certbot.commands == [] and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "why", "how"),
    [
        ({"names": NAMES[:1]}, "it is for other names (ai.example.com, home.example.com)", "--keep-until-expiring"),
        ({"names": (*NAMES, "*.example.com")}, "it is for other names", "--keep-until-expiring"),
        ({"server": "https://other.example.com/directory"}, f"it is from another server ({SERVER})", "--force-renewal"),
        ({"challenge": ("--dns-cloudflare",)}, "the challenge is to be answered in another way", "--force-renewal"),
    ],
)
def test_another_one_is_asked_for_when_another_one_is_wanted(
    host: Host, changes: dict[str, Any], why: str, how: str
) -> None:
    host.ensure()
    announced = host.ensure(check=True, **changes)
    assert announced.changed and why in announced.why and len(host.certbot.commands) == 1
    found = host.ensure(**changes)
    assert found.changed and found.why == announced.why
    assert how in host.certbot.commands[-1]
    assert not host.ensure(**changes).changed and len(host.certbot.commands) == 2


def test_names_are_the_same_in_any_order_and_size(host: Host) -> None:
    host.ensure()
    assert not host.ensure(names=("HOME.example.com", "ai.example.com")).changed
    assert len(host.certbot.commands) == 1


def test_an_address_of_the_account_counts_when_one_is_asked_for(host: Host) -> None:
    host.ensure()
    assert not host.ensure(email="other@example.com").changed


def test_renewal_is_certbots_and_only_what_it_missed_is_ours(host: Host) -> None:
    host.ensure()
    assert not host.ensure(days=90 - WARN_DAYS - 2).changed
    for days in (90 - WARN_DAYS + 1, 95):
        assert host.ensure(check=True, days=days).why.startswith("it ends on ")
    assert len(host.certbot.commands) == 1
    host.certbot.days = 180
    found = host.ensure(days=95)
    assert found.changed and found.days_left == 84


def test_one_for_few_days_is_no_error_when_certbot_keeps_it(host: Host) -> None:
    host.certbot.days = 6
    assert host.ensure().days_left == 5
    assert host.ensure().why.startswith("it ends on ")


def test_a_certbot_that_is_content_with_another_one_is_no_endless_loop(host: Host) -> None:
    host.certbot.other_names = ("else.example.com",)
    with pytest.raises(AcmeError, match=r"content, and yet it is for other names \(else\.example\.com\)"):
        host.ensure()
    assert not Path(host.wanted.record).exists()


def test_after_a_kill_between_certbot_and_the_note(host: Host) -> None:
    host.ensure()
    Path(host.wanted.record).unlink()
    found = host.ensure()
    assert (found.changed, found.why) == (True, "") and len(host.certbot.commands) == 1
    assert json.loads(Path(host.wanted.record).read_text()) == {"challenge": ["--standalone"]}
    Path(host.wanted.record).write_text("not JSON")
    assert host.ensure().changed and not host.ensure().changed


def test_a_broken_certificate_is_said(host: Host) -> None:
    host.ensure()
    Path(host.wanted.certificate).write_text("-----BEGIN CERTIFICATE-----\nbroken\n")
    with pytest.raises(CertificateError, match="openssl"):
        host.ensure()


# Words of certbot's, with details in Let's Encrypt's.
FAILED = """
Certbot failed to authenticate some domains (authenticator: standalone). The Certificate Authority reported:
  Domain: ai.example.com
  Type:   {kind}
  Detail: {detail}

Hint: The Certificate Authority failed to download the challenge files from the temporary standalone webserver
started by Certbot on port 80. Ensure that the listed domains point to this machine.
"""
NOISE = """Saving debug log to /var/log/letsencrypt/letsencrypt.log
Some challenges have failed.
Ask for help or search for solutions at https://community.letsencrypt.org. See the logfile for more details.
"""


@pytest.mark.parametrize(
    ("stdout", "stderr", "cause", "step"),
    [
        (FAILED.format(kind="connection", detail="192.0.2.1: Timeout during connect (likely firewall problem)"), NOISE,
         "did not find the answer", "forward port 80"),
        (FAILED.format(kind="unauthorized", detail="Invalid response from http://ai.example.com/: 404"), NOISE,
         "did not find the answer", "needs no open port"),
        (FAILED.format(kind="dns", detail="DNS problem: NXDOMAIN looking up A for ai.example.com"), NOISE,
         "not known in the public DNS", "dig NAME"),
        ("", "Could not bind TCP port 80 because it is already in use by another process on this system (such as a web "
         "server). Please stop the program in question and then try again.", "another program", "ss -ltnp"),
        ("", "An unexpected error occurred:\nError creating new order :: too many certificates (5) already issued for "
         "this exact set of identifiers in the last 168h0m0s, retry after 2026-11-23 01:00:00 UTC",
         "had enough requests", "server for tests"),
        ("", "An unexpected error occurred:\nValueError: Requesting acme.example.com/directory: Connection refused",
         "cannot be reached", "curl -I"),
        ("", "requests.exceptions.SSLError: [SSL: CERTIFICATE_VERIFY_FAILED] unable to get local issuer certificate",
         "does not trust", "downloads_certificate_authorities"),
        ("", "The requested dns-cloudflare plugin does not appear to be installed", "does not know an argument",
         "gateway_acme_packages"),
        ("", "An unexpected error occurred:\nAttributeError: can't set attribute", "cannot say why",
         "grep -A 3 acme:error"),
        ("", "Another instance of Certbot is already running.", "just running", "wait"),
        ("", "certbot: command not found", "not installed", "gateway_acme_packages"),
        ("", "Something that nobody has foreseen", "own words", "letsencrypt.log"),
    ],
)  # fmt: skip
def test_what_goes_wrong_is_explained(host: Host, stdout: str, stderr: str, cause: str, step: str) -> None:
    host.certbot.failure = CommandResult(1, stdout, stderr)
    with pytest.raises(AcmeError) as failed:
        host.ensure()
    message = str(failed.value)
    first = message.splitlines()[0]
    assert first.startswith(f"certbot got none for ai.example.com, home.example.com from {SERVER}: ")
    assert cause in first and "Next: " in first and step in first and "site.yml --tags gateway" in first
    assert "Saving debug log" not in message and "Ask for help" not in message
    # Its own words too: they say more than ours.
    detail = next(line for line in (stdout + stderr).splitlines() if "Detail" in line or (line and not stdout))
    assert detail[:200] in message.partition("certbot says:\n")[2]


def test_a_novel_is_shortened(host: Host) -> None:
    host.certbot.failure = CommandResult(1, "", "\n".join(f"line {number} {'x' * 1000}" for number in range(100)))
    with pytest.raises(AcmeError) as failed:
        host.ensure()
    assert len(str(failed.value)) < 5000 and "line 99" in str(failed.value)


def test_a_failure_leaves_what_is_there(host: Host) -> None:
    host.ensure()
    before = Path(host.wanted.certificate).read_text()
    host.certbot.failure = CommandResult(1, "", "no")
    with pytest.raises(AcmeError):
        host.ensure(challenge=("--dns-cloudflare",))
    assert Path(host.wanted.certificate).read_text() == before
    host.certbot.failure = None
    # What did not work is not noted as the way of answering.
    assert not host.ensure().changed
