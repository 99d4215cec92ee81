"""A certificate by ACME (RFC 8555), such as Let's Encrypt's: `certbot` gets it, and certbot's own timer renews it.

certbot is asked only when there is no certificate, or it is not the one that is wanted: a run that has nothing to do
asks nobody. What certbot keeps is named ``pageindex-home``; whatever else it keeps is the owner's.
"""

from __future__ import annotations

import datetime
import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass

from ansible_collections.pageindex.home.plugins.module_utils.commands import CommandResult, Runner, run_command
from ansible_collections.pageindex.home.plugins.module_utils.files import apply_file_set
from ansible_collections.pageindex.home.plugins.module_utils.gateway_certificate import WARN_DAYS, read_certificate

NAME = "pageindex-home"
#: A DNS challenge waits until the world has seen the record.
SECONDS = 900
LOG = "/var/log/letsencrypt/letsencrypt.log"
_LONGEST_LINE = 300
_MOST_LINES = 12
# What certbot says besides, in every case.
_NOISE = re.compile(
    r"^(saving debug log|ask for help|see the logfile|account registered|requesting a certificate"
    r"|renewing an existing|- - -|\s*$)",
    re.IGNORECASE,
)

_BY_DNS = (
    "at home a DNS challenge is the simpler way, which needs no open port: gateway_acme_challenge and"
    " gateway_acme_packages, docs/gateway.md"
)
# What certbot says, why, and what to do. The first that fits is told.
_CAUSES = (
    (
        "rateLimited|too many (certificates|registrations|failed|new orders|currently pending)",
        "the server has had enough requests for these names or from this address",
        "wait as long as it says; meanwhile try with Let's Encrypt's server for tests (gateway_acme_server,"
        " docs/gateway.md)",
    ),
    (
        "could not bind TCP port 80|Problem binding to port 80|Address already in use",
        "another program of this host has port 80, which --standalone needs for some seconds",
        "find it with `ss -ltnp 'sport = :80'` and let it answer (--webroot -w FOLDER), or take a DNS challenge:"
        " gateway_acme_challenge, docs/gateway.md",
    ),
    (
        "plugin does not appear to be installed|unrecognized arguments",
        "certbot does not know an argument of gateway_acme_challenge",
        "name its plugin's package in gateway_acme_packages, such as python3-certbot-dns-cloudflare, or correct it",
    ),
    (
        "does not support any combination of challenges",
        "the server wants a challenge that this way cannot answer; names with * are proved by DNS alone",
        "take a plugin for your DNS in gateway_acme_challenge, docs/gateway.md",
    ),
    (
        r"NXDOMAIN|no valid A(AAA)? records|Type:\s+dns\b|urn:ietf:params:acme:error:dns",
        "a name is not known in the public DNS, or its DNS does not answer",
        f"have each of gateway_acme_names point to this network's public address, and look with `dig NAME`; {_BY_DNS}",
    ),
    (
        r"Type:\s+(connection|unauthorized)\b|acme:error:(connection|unauthorized)",
        "the server did not find the answer to its challenge: it asks each name on port 80 from the internet",
        "forward port 80 of your router to this host, and look who answers `curl http://NAME/` from elsewhere;"
        f" {_BY_DNS}",
    ),
    (
        "rejectedIdentifier|forbidden by policy|valid public suffix",
        "the server gives no certificates for such names",
        "name public ones in gateway_acme_names, below a domain of yours",
    ),
    (
        "invalidContact|unable to register an account|invalidEmail",
        "the server does not take the e-mail address",
        "correct gateway_acme_email",
    ),
    (
        "choose an account",
        "certbot has several accounts at this server",
        "add [--account, ID] to gateway_acme_challenge; `ls /etc/letsencrypt/accounts/*/directory` names them",
    ),
    (
        "externalAccountRequired|external account binding",
        "the server wants to know whose account this is",
        "write what it gave you to /etc/letsencrypt/cli.ini on the host: lines `eab-kid = …` and `eab-hmac-key = …`",
    ),
    (
        "Another instance of Certbot is already running",
        "certbot is just running, perhaps by its timer",
        "wait until it is done",
    ),
    (
        "CERTIFICATE_VERIFY_FAILED|certificate verify failed",
        "the host does not trust the server's own certificate",
        "tell it the authority (downloads_certificate_authorities, docs/downloads.md), or correct gateway_acme_server",
    ),
    (
        "ConnectionError|Failed to establish a new connection|Max retries exceeded|Temporary failure in name resolution"
        r"|Requesting \S+: |timed out|no answer within",
        "the server cannot be reached from this host, or does not answer",
        "look at it with `curl -I SERVER` on the host, and at gateway_acme_server; for a proxy see docs/downloads.md",
    ),
    (
        "live directory exists|archive directory exists",
        "something of another certificate of this name is left",
        f"`certbot delete --cert-name {NAME}`, or move its folders away from /etc/letsencrypt",
    ),
    (
        # Debian 12's certbot 2.1 with Python 3.11, for whatever the server says of an order.
        "AttributeError: can't set attribute",
        "the server refused the order (too many requests, or names that it does not take); this certbot cannot say why",
        f"`grep -A 3 acme:error {LOG}` on the host shows the server's words; mend what they say",
    ),
    (
        "command not found",
        "certbot is not installed",
        "name it in gateway_acme_packages ([certbot]), or install it",
    ),
)


class AcmeError(Exception):
    """There is no certificate; the message says why and what to do."""


@dataclass(frozen=True)
class AcmeSettings:
    """What is wanted: *names* from *server*, proved as certbot's arguments *challenge* say.

    *record* is the file that remembers those arguments; *directory* is where certbot keeps what it has.
    """

    names: tuple[str, ...]
    email: str
    server: str
    challenge: tuple[str, ...]
    record: str
    directory: str = "/etc/letsencrypt"

    @property
    def certificate(self) -> str:
        """The certificate with those between it and its authority."""
        return os.path.join(self.directory, "live", NAME, "fullchain.pem")

    @property
    def renewal(self) -> str:
        """How certbot renews it."""
        return os.path.join(self.directory, "renewal", f"{NAME}.conf")


@dataclass(frozen=True)
class AcmeResult:
    """Whether there is another certificate now (or would be), why that was wanted, and the day it ends (ISO 8601)."""

    changed: bool
    why: str
    ends: str
    days_left: int


@dataclass(frozen=True)
class _Reason:
    why: str
    # The one that is there would do for certbot.
    force: bool = False


class AcmeCertificate:
    """The certificate that certbot keeps for the gateway."""

    def __init__(
        self,
        settings: AcmeSettings,
        runner: Runner = run_command,
        environment: dict[str, str] | None = None,
        now: Callable[[], datetime.datetime] = lambda: datetime.datetime.now(datetime.timezone.utc),
    ) -> None:
        """*environment*: how programs of this host reach the internet."""
        self._settings = settings
        self._run = runner
        self._environment = environment or {}
        self._now = now

    def ensure(self, check: bool = False) -> AcmeResult:
        """Have the certificate. Raises AcmeError, CertificateError for one that cannot be read, and FileSetError.

        With *check* nobody is asked and nothing is written.
        """
        before = _read(self._settings.certificate)
        reason = self._reason()
        if reason and check:
            return AcmeResult(True, reason.why, "", 0)
        if reason:
            self._ask(reason.force)
            left = self._reason(asked=True)
            if left:
                raise AcmeError(
                    f"certbot is content, and yet {left.why}. Look at `certbot certificates` and {LOG} on the host,"
                    " then run site.yml --tags gateway."
                )
        noted = self._note() if not check else False
        text = _read(self._settings.certificate)
        found = read_certificate(text, self._run, self._now())
        return AcmeResult(text != before or noted, reason.why if reason else "", found.ends, found.days_left)

    def _reason(self, asked: bool = False) -> _Reason | None:
        """Why certbot has to be asked; None when it has not. *asked*: it just was, with the wanted challenge."""
        settings = self._settings
        text = _read(settings.certificate)
        if not text:
            return _Reason("there is none yet")
        found = read_certificate(text, self._run, self._now())
        if found.names != {("DNS", name.lower()) for name in settings.names}:
            return _Reason(f"it is for other names ({', '.join(sorted(name for _, name in found.names))})")
        server = re.search(r"^server\s*=\s*(\S+)$", _read(settings.renewal), re.MULTILINE)
        if not server or server.group(1) != settings.server:
            known = server.group(1) if server else "nobody knows which"
            return _Reason(f"it is from another server ({known})", force=True)
        if found.days_left < (0 if asked else WARN_DAYS):
            # certbot's timer had its time; a certificate for few days may be none that certbot renews now.
            return _Reason(f"it ends on {found.ends}")
        if not asked and self._known_challenge() not in (None, settings.challenge):
            # It would go on being renewed in the old way. That the new one works shows now, not in two months.
            return _Reason("the challenge is to be answered in another way", force=True)
        return None

    def _ask(self, force: bool) -> None:
        settings = self._settings
        arguments = [
            "certbot", "certonly", "--non-interactive", "--agree-tos", "--email", settings.email,
            "--server", settings.server, "--cert-name", NAME, "--domains", ",".join(settings.names),
            "--renew-with-new-domains",
            # To a server that is known for tests certbot changes only then; it was named on purpose.
            *(["--force-renewal", "--break-my-certs"] if force else ["--keep-until-expiring"]),
            *settings.challenge,
        ]  # fmt: skip
        done = self._run(arguments, environment=self._environment, timeout=SECONDS)
        if done.returncode != 0:
            names = ", ".join(settings.names)
            raise AcmeError(f"certbot got none for {names} from {settings.server}: {_explained(done)}")

    def _known_challenge(self) -> tuple[str, ...] | None:
        """How it was answered last; None where nobody has noted it."""
        try:
            return tuple(json.loads(_read(self._settings.record))["challenge"])
        except (ValueError, KeyError, TypeError):
            return None

    def _note(self) -> bool:
        content = json.dumps({"challenge": self._settings.challenge}) + "\n"
        return apply_file_set([], [{"path": self._settings.record, "content": content, "mode": "0600"}], []).changed


def _explained(done: CommandResult) -> str:
    """Why it failed, what to do, and certbot's own words."""
    lines = [line.rstrip() for line in f"{done.stdout}\n{done.stderr}".splitlines() if not _NOISE.match(line)]
    words = "\n".join(line[:_LONGEST_LINE] for line in lines[-_MOST_LINES:])
    # A line may be broken anywhere.
    said = " ".join(" ".join(lines).split())
    cause, fix = "see its own words below", f"look at {LOG} on the host"
    for pattern, known_cause, known_fix in _CAUSES:
        if re.search(pattern, said, re.IGNORECASE):
            cause, fix = known_cause, known_fix
            break
    return f"{cause}. Next: {fix}; then run site.yml --tags gateway.\ncertbot says:\n{words}"


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except (OSError, UnicodeDecodeError):
        return ""
