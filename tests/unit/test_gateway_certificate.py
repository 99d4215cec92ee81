"""The gateway's certificate: made, kept, renewed in time, or the owner's own."""

from __future__ import annotations

import datetime
import json
import os
import stat
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.verification import PolicyBuilder, Store

from ansible_collections.pageindex.home.plugins.module_utils import gateway_certificate_program as program
from ansible_collections.pageindex.home.plugins.module_utils.commands import CommandResult, run_command
from ansible_collections.pageindex.home.plugins.module_utils.gateway_certificate import (
    AUTHORITY_DAYS,
    DAYS,
    RENEW_DAYS,
    CertificateError,
    Certificates,
    CertificateSettings,
    _time,
)

NAMES = ("ai.home.arpa", "192.168.1.5", "fd00::5", "localhost")


@pytest.fixture
def settings(tmp_path: Path) -> CertificateSettings:
    (tmp_path / "gateway").mkdir()
    return CertificateSettings(str(tmp_path), NAMES)


def served(settings: CertificateSettings) -> x509.Certificate:
    return x509.load_pem_x509_certificate(Path(settings.served).read_bytes())


def at(settings: CertificateSettings, days: float) -> Certificates:
    """So many days from now."""
    return Certificates(settings, now=lambda: datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=days))


def test_a_client_that_trusts_the_authority_accepts_it(settings: CertificateSettings) -> None:
    found = Certificates(settings).ensure()
    assert (found.why, found.days_left) == ("there is none yet", DAYS - 1)
    assert settings.authority_pem() == Path(settings.authority).read_text()
    authority = x509.load_pem_x509_certificate(Path(settings.authority).read_bytes())
    for name in (x509.DNSName("ai.home.arpa"), x509.DNSName("localhost")):
        PolicyBuilder().store(Store([authority])).build_server_verifier(name).verify(served(settings), [])
    names = served(settings).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert sorted(map(str, names.get_values_for_type(x509.IPAddress))) == ["192.168.1.5", "fd00::5"]
    # Apple's devices refuse more.
    assert served(settings).not_valid_after_utc - served(settings).not_valid_before_utc <= datetime.timedelta(days=825)


def test_keys_are_for_nobody_else(settings: CertificateSettings) -> None:
    Certificates(settings).ensure()
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in Path(settings.directory).rglob("*.*")}
    assert modes == {"ca.key": 0o600, "ca.crt": 0o644, "server.pem": 0o400}


def test_a_second_look_changes_nothing(settings: CertificateSettings) -> None:
    first = Certificates(settings).ensure()
    second = Certificates(settings).ensure()
    assert not second.files.changed and second.fingerprint == first.fingerprint and second.why == ""
    # An address that is away just now is no reason.
    assert not Certificates(CertificateSettings(settings.directory, NAMES[:2])).ensure().files.changed


def test_it_is_renewed_in_time_and_the_authority_stays(settings: CertificateSettings) -> None:
    first = Certificates(settings).ensure()
    authority = Path(settings.authority).read_bytes()
    assert not at(settings, DAYS - RENEW_DAYS - 2).ensure().files.changed
    renewed = at(settings, DAYS - RENEW_DAYS + 1).ensure()
    assert renewed.fingerprint != first.fingerprint and renewed.why == f"it ends on {first.ends}"
    assert Path(settings.authority).read_bytes() == authority


def test_another_name_is_a_reason(settings: CertificateSettings) -> None:
    Certificates(settings).ensure()
    more = CertificateSettings(settings.directory, (*NAMES, "new.home.arpa"))
    assert Certificates(more).ensure().why == "it was made for other names"


@pytest.mark.parametrize(
    ("broken", "why"),
    [
        ("", "there is none yet"),
        ("-----BEGIN CERTIFICATE-----\nbroken\n-----END CERTIFICATE-----\n", "openssl"),
    ],
)
def test_a_broken_one_is_made_anew(settings: CertificateSettings, broken: str, why: str) -> None:
    Certificates(settings).ensure()
    Path(settings.served).unlink()
    Path(settings.served).write_text(broken)
    assert why in Certificates(settings).ensure().why
    assert served(settings)


def test_one_of_another_authority_is_made_anew(settings: CertificateSettings, tmp_path: Path) -> None:
    Certificates(settings).ensure()
    for name in ("ca.crt", "ca.key"):
        (tmp_path / name).unlink()
    assert Certificates(settings).ensure().why == "the authority that signed it is gone"
    assert Certificates(settings).ensure().why == ""


def test_an_authority_without_its_key_is_not_replaced_behind_the_owners_back(
    settings: CertificateSettings, tmp_path: Path
) -> None:
    Certificates(settings).ensure()
    (tmp_path / "ca.key").unlink()
    # What is served goes on being served.
    assert not Certificates(settings).ensure().files.changed
    with pytest.raises(CertificateError, match="restore it from a backup"):
        at(settings, DAYS).ensure()


def test_an_authority_that_has_ended_is_said_and_not_signed_with(settings: CertificateSettings) -> None:
    Certificates(settings).ensure()
    # The last certificate does not outlive what signs it.
    at(settings, AUTHORITY_DAYS - 100).ensure()
    valid = served(settings).not_valid_after_utc - served(settings).not_valid_before_utc
    assert 98 <= valid.days <= 100
    with pytest.raises(CertificateError, match=r"ends on .*: remove ca\.crt and ca\.key"):
        at(settings, AUTHORITY_DAYS - 20).ensure()


def test_a_host_may_have_a_name_that_no_certificate_states(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, found in {"my_host": [], "ai.lan.": ["ai.lan"], "box": ["box", "box.local"]}.items():
        monkeypatch.setattr(program.socket, "gethostname", lambda name=name: name)
        assert program.host_names()[2 : 2 + len(found)] == found
        assert not any("_" in one for one in program.host_names())


def test_the_language_of_the_host_does_not_matter() -> None:
    """Ansible sets it for modules, and a German one knows no Dec."""
    assert _time("Dec 24 03:06:40 2027 GMT") == datetime.datetime(2027, 12, 24, 3, 6, 40, tzinfo=datetime.UTC)
    assert _time("Mar  1 00:00:00 2027 GMT").month == 3


def test_names_that_are_none(settings: CertificateSettings) -> None:
    bad = CertificateSettings(settings.directory, ("ai home",))
    with pytest.raises(CertificateError, match="'ai home' is neither a host name nor an address"):
        Certificates(bad).ensure()


def test_check_mode_writes_nothing(settings: CertificateSettings) -> None:
    assert Certificates(settings).ensure(check=True).files.changed
    assert [path.name for path in Path(settings.directory).rglob("*")] == ["gateway"]


@pytest.fixture
def owners(settings: CertificateSettings, tmp_path: Path) -> CertificateSettings:
    """The owner's own, as a client of ACME keeps it: two files."""
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "gateway").mkdir(parents=True)
    Certificates(CertificateSettings(str(elsewhere), ("ai.example.com",))).ensure()
    pem = (elsewhere / "gateway/server.pem").read_text()
    at_key = pem.index("-----BEGIN EC")
    (tmp_path / "fullchain.pem").write_text(f"Bag Attributes\n{pem[:at_key]}" + (elsewhere / "ca.crt").read_text())
    (tmp_path / "privkey.pem").write_text(pem[at_key:])
    return CertificateSettings(
        str(tmp_path), NAMES, certificate=str(tmp_path / "fullchain.pem"), key=str(tmp_path / "privkey.pem")
    )


def test_the_owners_own_is_shown_with_what_signed_it(owners: CertificateSettings) -> None:
    assert Certificates(owners).ensure().files.changed
    text = Path(owners.served).read_text()
    assert text.count("BEGIN CERTIFICATE") == 2 and "PRIVATE KEY" in text and "Bag" not in text
    assert not Certificates(owners).ensure().files.changed
    assert not Path(owners.authority).exists()


def test_one_that_the_owner_has_renewed_is_taken_over(owners: CertificateSettings, tmp_path: Path) -> None:
    first = Certificates(owners).ensure()
    other = tmp_path / "other"
    (other / "gateway").mkdir(parents=True)
    Certificates(CertificateSettings(str(other), ("ai.example.com",))).ensure()
    pem = (other / "gateway/server.pem").read_text()
    Path(owners.certificate).write_text(pem[: pem.index("-----BEGIN EC")])
    with pytest.raises(CertificateError, match="is not the key of the certificate"):
        Certificates(owners).ensure()
    Path(owners.key).write_text(pem[pem.index("-----BEGIN EC") :])
    second = Certificates(owners).ensure()
    assert second.fingerprint != first.fingerprint and second.why == "another file is to be served"


def test_what_the_owner_gave_is_looked_at_first(owners: CertificateSettings) -> None:
    with pytest.raises(CertificateError, match=r"ended on .*: renew .*fullchain\.pem"):
        at(owners, DAYS + 1).ensure()
    os.unlink(owners.key)
    with pytest.raises(CertificateError, match=r"gateway's key, .*privkey\.pem, is not there.*inventory"):
        Certificates(owners).ensure()


def test_a_comment_in_the_owners_file_may_be_in_any_language(owners: CertificateSettings) -> None:
    """As `openssl x509 -text` writes one before the certificate, in whatever encoding its maker had."""
    for path in map(Path, (owners.certificate, owners.key)):
        comment = "Subject: O = Müller & Söhne\n".encode() + "für Zürich\n".encode("latin-1")
        path.write_bytes(comment + path.read_bytes())
    assert Certificates(owners).ensure().files.changed
    assert "ller" not in Path(owners.served).read_text(encoding="ascii")


def test_why_the_owners_file_is_of_no_use_is_said(owners: CertificateSettings) -> None:
    certificate, key = Path(owners.certificate), Path(owners.key)
    pem, secret = certificate.read_text(), key.read_text()
    der = x509.load_pem_x509_certificate(pem.encode()).public_bytes(Encoding.DER)
    certificate.write_bytes(der)
    with pytest.raises(CertificateError, match=rf"{certificate}, holds nothing in PEM form.*`openssl x509 -in /"):
        Certificates(owners).ensure()
    certificate.write_text(secret)
    with pytest.raises(CertificateError, match=rf"`openssl x509` failed: .*Next: .*`cat {certificate}`.*run site\.yml"):
        Certificates(owners).ensure()
    middle = len(pem) - 200
    certificate.write_text(f"{pem[:middle]}ü{pem[middle + 1 :]}")
    with pytest.raises(CertificateError, match=rf"{certificate}, is damaged.*run site\.yml"):
        Certificates(owners).ensure()
    certificate.write_text(pem)
    encrypted = run_command(["openssl", "pkey", "-in", str(key), "-aes256", "-passout", "pass:secret"])
    key.write_text(encrypted.stdout)
    with pytest.raises(CertificateError, match=rf"`openssl pkey` failed: .*Next: .*{key}.* no password.*run site\.yml"):
        Certificates(owners).ensure()
    key.unlink()
    key.mkdir()
    with pytest.raises(CertificateError, match=rf"{key}, cannot be read on the host: Is a directory.*`ls -ld {key}`"):
        Certificates(owners).ensure()


def test_without_openssl_it_is_said_what_to_run(settings: CertificateSettings) -> None:
    away = Certificates(settings, runner=lambda *_, **__: CommandResult(127, "", "openssl: command not found"))
    with pytest.raises(CertificateError, match=r"openssl: command not found\. Next: `openssl version`.*site\.yml"):
        away.ensure()


def test_an_authority_that_is_broken_is_not_replaced_behind_the_owners_back(
    settings: CertificateSettings, tmp_path: Path
) -> None:
    Certificates(settings).ensure()
    (tmp_path / "ca.crt").write_text("broken")
    with pytest.raises(CertificateError, match=r"Next: restore .*ca\.crt from a backup, or remove ca\.crt and ca\.key"):
        Certificates(settings).ensure()


def test_who_has_it_renewed_by_certbot_is_told_how(owners: CertificateSettings) -> None:
    by_certbot = replace(owners, renew_with="certbot renew --cert-name pageindex-home")
    with pytest.raises(CertificateError, match="`certbot renew --cert-name pageindex-home` on the host says why"):
        at(by_certbot, DAYS + 1).ensure()
    os.unlink(owners.key)
    with pytest.raises(CertificateError, match=r"Run site\.yml --tags gateway, which has it made again"):
        Certificates(by_certbot).ensure()


class Gateway:
    """HAProxy behind `docker exec`: shows a certificate by its serial, and takes another one."""

    def __init__(self, serial: str) -> None:
        self.serial = serial
        self.commands: list[list[str]] = []

    def __call__(self, arguments: list[str], **options: object) -> CommandResult:
        if arguments[0] != "docker":
            return run_command(arguments, **options)  # type: ignore[arg-type]
        self.commands.append(arguments)
        text = str(options["text"])
        if text.startswith("show ssl cert"):
            return CommandResult(0, f"Filename: server.pem\nSerial: {self.serial}\n", "")
        if text.startswith("set ssl cert"):
            assert "PRIVATE KEY" in text and text.endswith("\n\n")
            return CommandResult(0, "Transaction created for certificate server.pem!\n", "")
        self.serial = "taken"
        return CommandResult(0, "Committing server.pem.\nSuccess!\n", "")


def settings_file(settings: CertificateSettings, folder: Path) -> Path:
    path = folder / "settings.json"
    gateway = {"container": "gateway", "admin_port": 8405, "certificate": "/certificates/server.pem"}
    content = {"directory": settings.directory, "names": list(settings.names), "certificate": settings.certificate}
    path.write_text(json.dumps({**content, "key": settings.key, "gateway": gateway}))
    return path


def test_a_running_gateway_is_told_once_and_never_by_its_arguments(
    settings: CertificateSettings, tmp_path: Path
) -> None:
    read = program.settings_from(str(settings_file(settings, tmp_path)))
    assert {"localhost", "127.0.0.1"} <= set(read.certificate.names)
    gateway = Gateway("00")
    found, told = program.ensured(read, runner=gateway)
    assert told and found.files.changed
    assert "PRIVATE KEY" not in json.dumps(gateway.commands)
    found, told = program.ensured(read, runner=Gateway(found.serial.lower()))
    assert not told and not found.files.changed


def test_the_daily_program_fails_before_the_owners_ends(
    owners: CertificateSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(settings_file(owners, tmp_path))
    monkeypatch.setattr(
        program, "HaproxyRuntime", lambda *_: type("Away", (), {"replace_certificate": lambda *_, **__: False})()
    )
    assert program.main([path]) == 0
    assert "it ends on" in capsys.readouterr().out
    monkeypatch.setattr(program, "WARN_DAYS", DAYS + 1)
    assert program.main([path]) == 1
    assert f"renew {owners.certificate}" in capsys.readouterr().err
    Path(owners.key).unlink()
    assert program.main([path]) == 1
    assert "is not there" in capsys.readouterr().err
