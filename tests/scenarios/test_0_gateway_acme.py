"""The gateway's certificate by ACME: Debian's real certbot, a simulated ACME server, and what the host makes of it.

certbot runs in a container of its own, where it has a port 80; what it keeps is read from here, as on a host.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import jinja2
import pytest
from cryptography import x509
from cryptography.x509.verification import PolicyBuilder, Store

from ansible_collections.pageindex.home.plugins.module_utils.acme_certificate import (
    AcmeCertificate,
    AcmeError,
    AcmeResult,
    AcmeSettings,
)
from ansible_collections.pageindex.home.plugins.module_utils.commands import CommandResult, run_command
from ansible_collections.pageindex.home.plugins.module_utils.gateway_certificate import (
    Certificates,
    CertificateSettings,
)
from staging import engine, images, network, settings
from staging.acme import AcmeServer

CONTAINER = f"{settings.HOST_NAME}-certbot-test"
NAMES = ("ai.example.test", "home.example.test")
HOOK = settings.REPOSITORY / "templates" / "gateway" / "certbot-hook.sh.j2"
UNIT = "pageindex-home-certificate.service"


@dataclass
class Host:
    """A host with certbot, and the servers that it may ask."""

    folder: Path
    address: str
    server: AcmeServer
    wanted: AcmeSettings

    def execute(self, command: str) -> CommandResult:
        return run_command(["docker", "exec", CONTAINER, "sh", "-ec", command], timeout=300)

    def run(self, arguments: list[str], **options: object) -> CommandResult:
        """Programs of the host: certbot there, everything else here."""
        there = ["docker", "exec", CONTAINER] if arguments[0] == "certbot" else []
        return run_command([*there, *arguments], timeout=300)

    def ensure(self, check: bool = False, **changes: object) -> AcmeResult:
        wanted = replace(self.wanted, **changes)  # type: ignore[arg-type]
        return AcmeCertificate(wanted, self.run).ensure(check)

    def shown(self) -> x509.Certificate:
        return x509.load_pem_x509_certificate(Path(self.wanted.certificate).read_bytes())

    def names(self) -> list[str]:
        found = self.shown().extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        return sorted(found.get_values_for_type(x509.DNSName))

    def systemctl(self) -> list[str]:
        """What systemctl was told since the last look."""
        told = self.execute("cat /systemctl.log; : > /systemctl.log").stdout
        return told.splitlines()


@pytest.fixture(scope="module", params=["trixie", pytest.param("bookworm", marks=pytest.mark.long)])
def host(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """The two certbots that Debian has, 4.0 and 2.1."""
    engine.ensure()
    image = images.certbot(request.param)
    images.build(image)
    folder = tmp_path_factory.mktemp(request.param)
    (folder / "letsencrypt").mkdir()
    hook = jinja2.Template(HOOK.read_text(), keep_trailing_newline=True).render(
        __gateway_acme_name="pageindex-home", __gateway_certificate_units=["", UNIT]
    )
    path = folder / "letsencrypt/renewal-hooks/deploy/pageindex-home"
    path.parent.mkdir(parents=True)
    path.write_text(hook)
    path.chmod(0o755)
    network.remove(CONTAINER)
    client = engine.client()
    client.containers.run(
        image.local_name,
        name=CONTAINER,
        detach=True,
        init=True,
        volumes={str(folder / "letsencrypt"): {"bind": "/etc/letsencrypt", "mode": "rw"}},
    )
    try:
        [attached] = client.containers.get(CONTAINER).attrs["NetworkSettings"]["Networks"].values()
        address, here = attached["IPAddress"], attached["Gateway"]
        with AcmeServer(here, dict.fromkeys(NAMES, (address, 80))) as server:
            wanted = AcmeSettings(
                NAMES, "me@example.test", server.url, ("--standalone",), str(folder / "acme.json"),
                str(folder / "letsencrypt"),
            )  # fmt: skip
            found = Host(folder, address, server, wanted)
            trust(found, server)
            found.execute("printf '#!/bin/sh\\necho \"$@\" >> /systemctl.log\\n' > /usr/bin/systemctl")
            found.execute("chmod 755 /usr/bin/systemctl; : > /systemctl.log")
            yield found
    finally:
        network.remove(CONTAINER)


def trust(host: Host, server: AcmeServer, name: str = "acme") -> None:
    """As the role downloads does with the owner's authorities."""
    (host.folder / "letsencrypt" / "authority").write_text(server.authority.root)
    host.execute(
        f"mv /etc/letsencrypt/authority /usr/local/share/ca-certificates/{name}.crt; update-ca-certificates 2>&1"
    )


def test_check_mode_announces_and_asks_nobody(host: Host) -> None:
    assert host.ensure(check=True) == AcmeResult(True, "there is none yet", "", 0)
    assert host.server.requests == [] and not Path(host.wanted.certificate).exists()


@pytest.fixture
def taken(host: Host) -> Iterator[None]:
    """Somebody else on port 80."""
    run_command(["docker", "exec", "--detach", CONTAINER, "python3", "-m", "http.server", "80"])
    listens = "python3 -c 'import socket; socket.create_connection((\"127.0.0.1\", 80))' 2> /dev/null"
    assert host.execute(f"for i in $(seq 100); do {listens} && exit 0; sleep 0.1; done; exit 1").returncode == 0
    yield
    host.execute("for p in /proc/[0-9]*; do grep -qs http.server $p/cmdline && kill ${p#/proc/} || true; done")


def test_a_challenge_that_cannot_be_answered_is_explained(host: Host, taken: None) -> None:
    with pytest.raises(AcmeError, match="another program of this host has port 80") as failed:
        host.ensure()
    assert "certbot says:\n" in str(failed.value) and "site.yml --tags gateway" in str(failed.value)
    assert not Path(host.wanted.certificate).exists()


def test_it_is_got(host: Host) -> None:
    found = host.ensure()
    assert (found.changed, found.why) == (True, "there is none yet") and 85 < found.days_left < 90
    assert host.names() == sorted(NAMES)
    chain = x509.load_pem_x509_certificates(Path(host.wanted.certificate).read_bytes())
    root = x509.load_pem_x509_certificate(host.server.authority.root.encode())
    # A client that trusts the root is shown what is between it and the certificate.
    verifier = PolicyBuilder().store(Store([root])).build_server_verifier(x509.DNSName(NAMES[0]))
    assert len(verifier.verify(chain[0], chain[1:])) == 3
    assert [request for request in host.server.requests if "/challenge/" in request]


def test_a_second_run_changes_nothing_and_asks_nobody(host: Host) -> None:
    asked, before = len(host.server.requests), host.shown()
    found = host.ensure()
    assert (found.changed, found.why) == (False, "") and host.shown() == before
    assert not host.ensure(check=True).changed
    assert len(host.server.requests) == asked


def renew(host: Host, *arguments: str) -> None:
    """As certbot.timer does, with the command line of Debian's own unit."""
    unit = host.execute("cat /lib/systemd/system/certbot.service").stdout
    [line] = [line for line in unit.splitlines() if line.startswith("ExecStart=")]
    done = host.execute(" ".join([line.partition("=")[2], *arguments]))
    assert done.returncode == 0, done


def test_it_is_renewed_when_it_is_due_and_the_gateway_is_told(host: Host) -> None:
    host.systemctl()
    renew(host)
    assert host.systemctl() == [], "not due yet"
    directory = host.folder / "gateway-data"
    (directory / "gateway").mkdir(parents=True)
    key = host.wanted.certificate.replace("fullchain", "privkey")
    gateway = CertificateSettings(str(directory), (), certificate=host.wanted.certificate, key=key)
    first = Certificates(gateway).ensure()
    # Five days are left of the next one.
    host.server.age = 85
    renew(host, "--force-renewal")
    host.server.age = 0
    assert (host.shown().not_valid_after_utc - Certificates(gateway)._now()).days < 6
    host.systemctl()
    renew(host)
    assert host.systemctl() == [f"start {UNIT}"]
    # That unit's program takes over what it finds.
    second = Certificates(gateway).ensure()
    assert second.why == "another file is to be served" and second.fingerprint != first.fingerprint
    assert Path(gateway.served).read_text().count("BEGIN CERTIFICATE") == 2
    assert not host.ensure().changed


def test_a_renewal_of_somebody_elses_is_nothing_to_the_gateway(host: Host) -> None:
    host.systemctl()
    hook = "/etc/letsencrypt/renewal-hooks/deploy/pageindex-home"
    assert host.execute(f"RENEWED_LINEAGE=/etc/letsencrypt/live/theirs {hook}").returncode == 0
    assert host.systemctl() == []


def test_one_that_certbot_did_not_renew_in_time_is_renewed_by_a_run(host: Host) -> None:
    host.server.age = 85
    renew(host, "--force-renewal")
    host.server.age = 0
    found = host.ensure()
    assert found.changed and found.why.startswith("it ends on") and found.days_left > 85


def test_other_names_are_asked_for(host: Host) -> None:
    found = host.ensure(names=NAMES[:1])
    assert found.changed and found.why == f"it is for other names ({', '.join(sorted(NAMES))})"
    assert host.names() == [NAMES[0]]
    assert host.ensure().changed and host.names() == sorted(NAMES)
    assert not host.ensure().changed


def test_another_way_of_answering_is_tried_and_kept_for_renewals(host: Host) -> None:
    assert host.ensure().changed is False
    other = ("--standalone", "--http-01-address", "0.0.0.0")
    found = host.ensure(challenge=other)
    assert found.changed and found.why == "the challenge is to be answered in another way"
    assert "http01_address = 0.0.0.0" in Path(host.wanted.renewal).read_text()
    assert not host.ensure(challenge=other).changed
    assert json.loads(Path(host.wanted.record).read_text()) == {"challenge": list(other)}
    host.ensure()


def test_another_server_is_asked(host: Host) -> None:
    here = host.server.base.split("/")[2].split(":")[0]
    with AcmeServer(here, host.server.names) as other:
        with pytest.raises(AcmeError, match="does not trust the server's own certificate"):
            host.ensure(server=other.url)
        trust(host, other, "other")
        before = host.shown()
        found = host.ensure(server=other.url)
        assert found.changed and found.why == f"it is from another server ({host.server.url})"
        assert host.shown() != before and not host.ensure(server=other.url).changed
    with pytest.raises(AcmeError, match="the server cannot be reached from this host"):
        host.ensure(server=other.url, names=NAMES[:1])
    assert host.ensure().changed and not host.ensure().changed


@pytest.mark.parametrize(
    ("names", "challenge", "cause"),
    [
        (("nowhere.example.test",), ("--standalone",), "not known in the public DNS.*needs no open port"),
        (("closed.example.test",), ("--standalone",), "did not find the answer.*needs no open port"),
        (("*.example.test",), ("--standalone",), "proved by DNS alone"),
        (NAMES[:1], ("--dns-cloudflare",), "name its plugin's package"),
    ],
)
def test_what_goes_wrong_is_explained_and_what_is_there_stays(
    host: Host, names: tuple[str, ...], challenge: tuple[str, ...], cause: str
) -> None:
    host.server.names["closed.example.test"] = (host.address, 81)
    before = host.shown()
    with pytest.raises(AcmeError, match=cause):
        host.ensure(names=names, challenge=challenge)
    assert host.shown() == before and not host.ensure().changed


def test_a_server_that_has_had_enough(host: Host) -> None:
    words = "too many certificates already issued for this exact set of names"
    host.server.refusal = ("rateLimited", words)
    try:
        # Debian 12's own loses the words, and keeps them in its log.
        with pytest.raises(AcmeError, match=r"has had enough.*wait(.|\n)*already issued|grep -A 3 acme:error"):
            host.ensure(names=NAMES[:1])
        assert words in host.execute("grep -A 3 acme:error /var/log/letsencrypt/letsencrypt.log").stdout
    finally:
        host.server.refusal = None
    assert not host.ensure().changed


def test_keys_are_for_nobody_else(host: Host) -> None:
    key = Path(host.wanted.certificate).with_name("privkey.pem")
    assert os.stat(key).st_mode & 0o077 == 0 and os.stat(key.resolve()).st_mode & 0o077 == 0
