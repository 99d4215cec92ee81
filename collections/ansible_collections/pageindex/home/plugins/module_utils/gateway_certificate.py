"""The certificate that the gateway shows: signed by an authority of this host, or the owner's own files.

Made and looked at with the `openssl` program, which every Debian and Ubuntu with certificates has. The authority is
made once and kept for ten years, so that devices that trust it need no second visit; the certificate itself is renewed
long before it ends. Apple's devices refuse one that is valid for more than 825 days (support.apple.com/103769), whoever
signed it.
"""

from __future__ import annotations

import datetime
import ipaddress
import os
import re
import secrets
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ansible_collections.pageindex.home.plugins.module_utils.commands import CommandResult, Runner, run_command
from ansible_collections.pageindex.home.plugins.module_utils.files import (
    FileSetError,
    FileSetResult,
    apply_file_set,
)

AUTHORITY_DAYS = 3650
DAYS = 397
RENEW_DAYS = 30
#: What others renew (the owner, certbot) has not been renewed in time when so little is left.
WARN_DAYS = 14
SECONDS = 60
_AGAIN = "then run site.yml --tags gateway."
_LOOK_AT_OPENSSL = "`openssl version` on the host says whether the program works"
_PEM = re.compile(r"-----BEGIN ([A-Z ]+)-----.+?-----END \1-----\n?", re.DOTALL)

_AUTHORITY = """
[req]
distinguished_name = name
prompt = no
x509_extensions = extensions
[name]
CN = {title}
[extensions]
basicConstraints = critical, CA:TRUE, pathlen:0
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
"""

_SERVER = """
[req]
distinguished_name = name
prompt = no
[name]
CN = {title}
[extensions]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth
subjectAltName = {names}
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
"""


class CertificateError(Exception):
    """There is no usable certificate; the message says why and what to do."""


@dataclass(frozen=True)
class CertificateSettings:
    """What the gateway is to show.

    *directory* holds the authority (``ca.key``, ``ca.crt``) and, in the folder ``gateway``, ``server.pem`` for HAProxy.
    With *certificate* and *key* (paths of PEM files on the host) the owner's own is shown, else one for *names* (host
    names and addresses) signed here. *renew_with* is the command that renews the former, where one is known.
    """

    directory: str
    names: tuple[str, ...]
    title: str = "PageIndex Home"
    certificate: str = ""
    key: str = ""
    renew_with: str = ""

    @property
    def renewal(self) -> str:
        """What to do when the owner's certificate was not renewed."""
        hint = f"; `{self.renew_with}` on the host says why that was not done" if self.renew_with else ""
        return f"renew {self.certificate}{hint}"

    @property
    def authority(self) -> str:
        """What devices have to trust."""
        return os.path.join(self.directory, "ca.crt")

    def authority_pem(self) -> str:
        """What devices have to trust; empty for the owner's own certificate, and where there is no authority yet."""
        return "" if self.certificate else _read(self.authority)

    @property
    def served(self) -> str:
        """Certificate and key in one file, as HAProxy reads them."""
        return os.path.join(self.directory, "gateway", "server.pem")


@dataclass(frozen=True)
class Certificate:
    """What is served: the day it ends (ISO 8601, UTC), its SHA-256 and serial, and what had to be changed for it."""

    ends: str
    days_left: int
    fingerprint: str
    serial: str
    why: str
    files: FileSetResult


class Certificates:
    """The gateway's certificate on this host."""

    def __init__(
        self,
        settings: CertificateSettings,
        runner: Runner = run_command,
        now: Callable[[], datetime.datetime] = lambda: datetime.datetime.now(datetime.timezone.utc),
    ) -> None:
        self._settings = settings
        self._run = runner
        self._now = now

    def ensure(self, check: bool = False) -> Certificate:
        """Have a certificate that is valid, for these names, and longer than the next days. Raises CertificateError.

        With *check* nothing is written, and what is not there yet has no end.
        """
        settings = self._settings
        wanted = self._owners() if settings.certificate else None
        served = _read(settings.served)
        why = self._reason(served) if wanted is None else ("" if wanted == served else "another file is to be served")
        result = FileSetResult()
        if why and check:
            result.changed_files.append(settings.served)
            return Certificate("", 0, "", "", why, result)
        if why:
            result = self._write(wanted if wanted is not None else self._signed())
            served = _read(settings.served)
        return self._described(served, why, result)

    def _reason(self, served: str) -> str:
        """Why the served certificate has to be made anew; empty where it has not."""
        settings = self._settings
        if not served:
            return "there is none yet"
        if not os.path.exists(settings.authority):
            return "the authority that signed it is gone"
        try:
            found = self._look(served)
        except CertificateError:
            return "openssl cannot read it"
        if found.days_left < RENEW_DAYS:
            return f"it ends on {found.ends}"
        if not _alternatives(settings.names) <= found.names:
            # One too many does no harm: an address may be away for a while.
            return "it was made for other names"
        checked = self._openssl("verify", "-CAfile", settings.authority, settings.served, fail=False)
        return "" if checked.returncode == 0 else "another authority signed it"

    def _owners(self) -> str:
        """The owner's certificate and key, found to belong together."""
        settings = self._settings
        texts = [self._owners_file(settings.certificate, "certificate"), self._owners_file(settings.key, "key")]
        found = self._look(texts[0], f"see by `cat {settings.certificate}` on the host that a certificate comes first")
        # A key with a password is refused at once, instead of somebody being asked for it.
        public = self._openssl(
            "pkey", "-in", settings.key, "-passin", "pass:", "-pubout",
            fix=f"have {settings.key} hold the private key, with no password (`openssl pkey -in OLD -out NEW`)",
        ).stdout  # fmt: skip
        if public != self._openssl("x509", "-in", settings.certificate, "-noout", "-pubkey").stdout:
            raise CertificateError(
                f"{settings.key} is not the key of the certificate in {settings.certificate}. Next: put the two there"
                f" that belong together; {_AGAIN}"
            )
        if found.days_left < 0:
            raise CertificateError(f"the gateway's certificate ended on {found.ends}: {settings.renewal}.")
        return "".join(texts)

    def _owners_file(self, path: str, what: str) -> str:
        """What is in PEM form in the file, without the rest: comments in whatever language."""
        settings = self._settings
        its_file = f"the file of the gateway's {what}, {path},"
        try:
            text = _text(path)
        except FileNotFoundError:
            mend = (
                "Run site.yml --tags gateway, which has it made again."
                if settings.renew_with
                else "Put it there, or take gateway_certificate_file and gateway_certificate_key_file out of the"
                " inventory."
            )
            raise CertificateError(f"{its_file} is not there on the host. {mend}") from None
        except OSError as error:
            raise CertificateError(
                f"{its_file} cannot be read on the host: {error.strerror}. Next: see `ls -ld {path}` there; {_AGAIN}"
            ) from error
        found = "".join(match.group(0) for match in _PEM.finditer(text))
        if not found:
            program = "x509" if what == "certificate" else "pkey"
            raise CertificateError(
                f"{its_file} holds nothing in PEM form (-----BEGIN …). Next: `openssl {program} -in {path} -out NEW` on"
                f" the host, if it has another form; name NEW in the inventory; {_AGAIN}"
            )
        if not found.isascii():
            raise CertificateError(f"{its_file} is damaged: what no PEM has is in it. Next: copy it anew; {_AGAIN}")
        return found if found.endswith("\n") else found + "\n"

    def _signed(self) -> str:
        """A new certificate with a new key, signed by the host's authority, which is made where there is none."""
        settings = self._settings
        with tempfile.TemporaryDirectory() as folder:
            self._ensure_authority(folder)
            left = self._authority_days_left()
            config, request, key, made = (os.path.join(folder, name) for name in ("config", "request", "key", "made"))
            names = ", ".join(f"{kind}:{name}" for kind, name in sorted(_alternatives(settings.names)))
            _write(config, _SERVER.format(title=settings.title, names=names))
            self._openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", key)
            self._openssl("req", "-new", "-config", config, "-key", key, "-out", request)
            self._openssl(
                "x509", "-req", "-in", request, "-days", str(min(DAYS, left)), "-sha256", "-set_serial", _serial(),
                "-CA", settings.authority, "-CAkey", os.path.join(settings.directory, "ca.key"),
                "-extfile", config, "-extensions", "extensions", "-out", made,
            )  # fmt: skip
            return _read(made) + _read(key)

    def _authority_days_left(self) -> int:
        """How long the authority lasts. Raises CertificateError when that is not long enough for a certificate."""
        authority = self._look(
            _read(self._settings.authority),
            f"restore {self._settings.authority} from a backup, or remove ca.crt and ca.key there to have a new"
            " authority made, which every device has to be told to trust again",
        )
        if authority.days_left <= RENEW_DAYS:
            raise CertificateError(
                f"the host's authority {self._settings.authority} ends on {authority.ends}: remove ca.crt and ca.key"
                " there to have a new one made, which every device has to be told to trust."
            )
        return authority.days_left

    def _ensure_authority(self, folder: str) -> None:
        """The key first: an authority without one would be trusted and of no use."""
        settings = self._settings
        key_path = os.path.join(settings.directory, "ca.key")
        if os.path.exists(settings.authority):
            if os.path.exists(key_path):
                return
            raise CertificateError(
                f"{settings.authority} is there and its key {key_path} is not: restore it from a backup, or remove"
                " ca.crt to have a new authority made, which every device has to be told to trust again."
            )
        config, key, made = (os.path.join(folder, name) for name in ("ca-config", "ca-key", "ca"))
        _write(config, _AUTHORITY.format(title=f"{settings.title} authority {secrets.token_hex(4)}"))
        self._openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", key)
        self._openssl(
            "req", "-x509", "-new", "-config", config, "-key", key, "-sha256",
            "-days", str(AUTHORITY_DAYS), "-set_serial", _serial(), "-out", made,
        )  # fmt: skip
        self._apply(
            [
                {"path": key_path, "content": _read(key), "mode": "0600", "secret": True},
                {"path": settings.authority, "content": _read(made)},
            ]
        )

    def _write(self, content: str) -> FileSetResult:
        folder = os.path.dirname(self._settings.served)
        owner = os.stat(folder)
        ids = {"owner": str(owner.st_uid), "group": str(owner.st_gid)}
        return self._apply([{"path": self._settings.served, "content": content, "mode": "0400", "secret": True, **ids}])

    def _apply(self, files: list[dict[str, Any]]) -> FileSetResult:
        try:
            return apply_file_set([], files, [])
        except (FileSetError, OSError) as error:
            raise CertificateError(f"the certificate cannot be written: {error}") from error

    def _described(self, served: str, why: str, result: FileSetResult) -> Certificate:
        found = self._look(served)
        return Certificate(found.ends, found.days_left, found.fingerprint, found.serial, why, result)

    def _look(self, text: str, fix: str = "") -> ReadCertificate:
        return read_certificate(text, self._run, self._now(), fix)

    def _openssl(self, *arguments: str, fail: bool = True, fix: str = "") -> CommandResult:
        return _openssl(self._run, *arguments, fail=fail, fix=fix)


@dataclass(frozen=True)
class ReadCertificate:
    """What a certificate says: its last day (ISO 8601, UTC), SHA-256, serial, and for whom it is: (DNS or IP, name)."""

    ends: str
    days_left: int
    fingerprint: str
    serial: str
    names: frozenset[tuple[str, str]]


def read_certificate(text: str, runner: Runner, now: datetime.datetime, fix: str = "") -> ReadCertificate:
    """What the first certificate in *text* says. Raises CertificateError, with *fix* for what to do next."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "certificate")
        _write(path, text)
        told = _openssl(
            runner, "x509", "-in", path, "-noout", "-enddate", "-serial", "-fingerprint", "-sha256",
            "-ext", "subjectAltName", fix=fix,
        ).stdout  # fmt: skip
    ends = re.search(r"^notAfter=(.+)$", told, re.MULTILINE)
    fingerprint = re.search(r"Fingerprint=([0-9A-F:]+)$", told, re.MULTILINE)
    serial = re.search(r"^serial=([0-9A-F]+)$", told, re.MULTILINE)
    if not ends or not fingerprint or not serial:
        raise CertificateError(
            f"openssl does not say when the certificate ends: {told!r}. Next: {fix or _LOOK_AT_OPENSSL}; {_AGAIN}"
        )
    end = _time(ends.group(1))
    names = re.findall(r"(DNS|IP)(?: Address)?:([^,\s]+)", told)
    return ReadCertificate(
        end.date().isoformat(),
        (end - now).days,
        fingerprint.group(1),
        serial.group(1),
        frozenset((kind, _plain_address(name) if kind == "IP" else name) for kind, name in names),
    )


def _openssl(runner: Runner, *arguments: str, fail: bool = True, fix: str = "") -> CommandResult:
    done: CommandResult = runner(["openssl", *arguments], timeout=SECONDS)
    if fail and done.returncode != 0:
        said = "; ".join(done.explanation(3).splitlines())
        raise CertificateError(f"`openssl {arguments[0]}` failed: {said}. Next: {fix or _LOOK_AT_OPENSSL}; {_AGAIN}")
    return done


def can_be_stated(name: str) -> bool:
    """Whether a certificate may be for this host name."""
    return re.fullmatch(r"(\*\.)?[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?", name) is not None


def _alternatives(names: Sequence[str]) -> frozenset[tuple[str, str]]:
    """Names and addresses as a certificate states them. Raises CertificateError for one that it cannot state."""
    found = set()
    for name in names:
        try:
            found.add(("IP", _plain_address(name)))
        except ValueError:
            if not can_be_stated(name):
                raise CertificateError(
                    f"{name!r} is neither a host name nor an address; see gateway_certificate_names."
                ) from None
            found.add(("DNS", name.lower()))
    return frozenset(found)


def _time(text: str) -> datetime.datetime:
    """``Dec 24 03:06:40 2027 GMT``, whatever language the host speaks."""
    month, day, clock, year, _ = text.split()
    hour, minute, second = map(int, clock.split(":"))
    number = "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split().index(month) + 1
    return datetime.datetime(int(year), number, int(day), hour, minute, second, tzinfo=datetime.timezone.utc)


def _plain_address(text: str) -> str:
    return str(ipaddress.ip_address(text))


def _serial() -> str:
    return "0x" + secrets.token_hex(16).lstrip("0")


def _read(path: str) -> str:
    """The text of a file; "" where there is none."""
    try:
        return _text(path)
    except OSError:
        return ""


def _text(path: str) -> str:
    """The text of a file. Comments beside what is in PEM form may be in any encoding."""
    with open(path, encoding="ascii", errors="replace") as file:
        return file.read()


def _write(path: str, text: str) -> None:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
