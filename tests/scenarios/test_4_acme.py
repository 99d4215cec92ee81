"""A certificate by ACME on a host that serves: got, shown, kept, renewed without a cut, refused well, and taken back.

certbot is Debian's own, the server is simulated, and asks the host on its port 80 as Let's Encrypt would.
"""

from __future__ import annotations

import datetime
import json
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509

from staging import host, settings
from staging.acme import AcmeServer
from tests.scenarios.ansible_run import Run, converge, run_playbook
from tests.scenarios.conftest import StagingHost

# certbot is installed from Debian's mirror, and the gateway is replaced twice.
pytestmark = pytest.mark.long

NAME = "ai.staging.test"
AUTHORITY = "usr/local/share/ca-certificates/simulated-acme.crt"
HOOK = "/etc/letsencrypt/renewal-hooks/deploy/pageindex-home"
DROP_IN = "/etc/systemd/system/certbot.service.d/pageindex-home.conf"
LOOK = "docker inspect --format '{{.Id}} {{.State.StartedAt}}' gateway"
UNIT = "pageindex-home-certificate.service"
WITHOUT = ("--tags", "gateway")


@dataclass
class Acme:
    """The server, the run that got the first certificate, and the variables that ask for it."""

    server: AcmeServer
    wanted: tuple[str, ...]
    first: Run

    def trust(self) -> ssl.SSLContext:
        return ssl.create_default_context(cadata=self.server.authority.root)


def shown(context: ssl.SSLContext) -> bytes:
    """The certificate that a client gets that trusts only what the context says."""
    with (
        socket.create_connection((settings.HOST_ADDRESS, 8443), 10) as plain,
        context.wrap_socket(plain, server_hostname=NAME) as secure,
    ):
        return secure.getpeercert(binary_form=True) or b""


def anything() -> ssl.SSLContext:
    """Looks at nothing."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def days_left() -> int:
    found = x509.load_der_x509_certificate(shown(anything()))
    return (found.not_valid_after_utc - datetime.datetime.now(datetime.UTC)).days


def issuer() -> str:
    return x509.load_der_x509_certificate(shown(anything())).issuer.rfc4514_string()


@pytest.fixture(scope="module")
def acme(finished_host: StagingHost, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Acme]:
    """The host with a certificate by ACME; afterwards it is as it was, without certbot."""
    with AcmeServer(settings.CONTROLLER_ADDRESS, {NAME: (settings.HOST_ADDRESS, 80)}) as server:
        host.TRIXIE.write({AUTHORITY: (server.authority.root.encode(), 0o644)})
        host.execute("update-ca-certificates", check=True)
        file: Path = tmp_path_factory.mktemp("acme") / "variables.json"
        variables = {"names": [NAME], "email": "me@staging.test", "server": server.url}
        file.write_text(json.dumps({f"gateway_acme_{name}": value for name, value in variables.items()}))
        wanted = ("--tags", "gateway", "-e", f"@{file}")
        try:
            announced = run_playbook("site.yml", *wanted, "--check")
            assert announced.returncode == 0, announced.explain()
            assert "gateway : Have a certificate by ACME" in announced.changed and server.requests == []
            yield Acme(server, wanted, converge(*wanted))
        finally:
            run = run_playbook("site.yml", *WITHOUT)
            host.execute("certbot delete --non-interactive --cert-name pageindex-home")
            host.execute("apt-get purge --yes certbot python3-certbot python3-acme", timeout=300)
            host.execute(f"rm -rf /{AUTHORITY} /etc/letsencrypt; update-ca-certificates --fresh")
            assert run.returncode == 0, run.explain()


def test_other_machines_are_shown_it(acme: Acme) -> None:
    for task in ("Have certbot, which gets and renews certificates by ACME", "Have a certificate by ACME"):
        assert f"gateway : {task}" in acme.first.changed, acme.first.changed
    # Of the name, by way of what signed it, and for a client that trusts the root alone.
    assert shown(acme.trust())
    assert "simulated ACME authority" in issuer()
    head = host.execute(f"curl --silent --include --insecure https://{settings.HOST_ADDRESS}:8443/health", check=True)
    assert "strict-transport-security: max-age=31536000" in head.stdout.lower()


def test_a_second_run_changes_nothing_and_asks_nobody(acme: Acme) -> None:
    asked = len(acme.server.requests)
    assert converge(*acme.wanted).changed == []
    run = run_playbook("site.yml", *acme.wanted, "--check")
    assert run.returncode == 0 and run.changed == [], run.explain()
    assert len(acme.server.requests) == asked


def test_verification_looks_at_it(acme: Acme) -> None:
    run = run_playbook("playbooks/verify.yml", *acme.wanted)
    assert run.returncode == 0, run.explain()
    proof = "gateway : Prove that the certificate is the one to be shown, and valid for a while"
    assert proof in [result.title for result in run.results if result.status == "ok"]


def test_it_is_renewed_by_certbots_own_unit_and_shown_without_a_restart(acme: Acme) -> None:
    assert host.execute("systemctl is-active certbot.timer").stdout.strip() == "active"
    before = host.execute(LOOK, check=True).stdout
    # One that is due. It is said while it is so: fourteen days before the end the unit fails.
    acme.server.age = 85
    host.execute("certbot renew --quiet --no-random-sleep-on-renew --force-renewal", timeout=300)
    acme.server.age = 0
    assert days_left() < 6
    assert host.execute(f"systemctl is-failed {UNIT}").stdout.strip() == "failed"
    # What certbot.timer starts.
    host.execute("systemctl start certbot.service", timeout=300, check=True)
    assert days_left() > 80
    assert host.execute(f"systemctl show --value -p Result {UNIT}").stdout.strip() == "success"
    assert host.execute(LOOK, check=True).stdout == before
    assert converge(*acme.wanted).changed == []


def test_a_failure_is_explained_and_the_old_one_is_shown(acme: Acme) -> None:
    before, gateway = shown(acme.trust()), host.execute(LOOK, check=True).stdout
    run = run_playbook("site.yml", *acme.wanted, "-e", json.dumps({"gateway_acme_names": ["nowhere.staging.test"]}))
    assert run.returncode != 0
    [failed] = run.failed
    assert "not known in the public DNS" in failed.message and "certbot says:" in failed.message, failed.message
    assert shown(acme.trust()) == before and host.execute(LOOK, check=True).stdout == gateway
    assert converge(*acme.wanted).changed == []


def test_removal_says_what_stays_with_certbot(acme: Acme) -> None:
    run = run_playbook("playbooks/remove.yml", *acme.wanted, "--check", timeout=300)
    assert run.returncode == 0, run.explain()
    assert f"remove {HOOK}" in run.output
    assert "certbot delete --cert-name pageindex-home" in run.output


def test_switched_off_the_hosts_own_authority_signs_again_and_certbot_stays(acme: Acme) -> None:
    run = converge(*WITHOUT)
    assert "gateway : Have a valid certificate" in run.changed, run.changed
    assert "PageIndex Home authority" in issuer()
    assert host.execute(f"ls {HOOK} {DROP_IN}").stdout == ""
    assert host.execute("certbot certificates", check=True).stdout.count("Certificate Name: pageindex-home") == 1
    assert converge(*WITHOUT).changed == []
