"""What the owner says about proxies and certificate authorities → what each program on a host has to be told.

Runs on the controller, in a filter. Proxies are plain HTTP ones: apt, Docker, pip and Python's urllib all
know these, and no other kind is known to all of them.
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
import ssl
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit

LOOPBACK = ("localhost", "127.0.0.1", "::1")
SYSTEM_BUNDLE = "/etc/ssl/certs/ca-certificates.crt"
CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
# What neither a shell, systemd nor apt takes for more than a character; a URL writes others as %XX.
URL_CHARACTERS = re.compile(r"[A-Za-z0-9._~:/?#\[\]@!$&()*+,;=%-]+")
HOST = re.compile(r"\.?[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?(:[0-9]{1,5})?")
FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
EXPECTED_PROXY = "expected http://HOST:PORT or http://USER:PASSWORD@HOST:PORT"


@dataclass
class Plan:
    """The settings, ready for the files of each program. Without problems only."""

    problems: list[str] = field(default_factory=list)
    # Whether anything is set at all.
    active: bool = False
    # Variables for Docker, jobs and modules; values may hold credentials.
    environment: dict[str, str] = field(default_factory=dict)
    # http, https and no_proxy for a survey of the host; empty texts for a direct connection.
    proxies: dict[str, str] = field(default_factory=lambda: {"http": "", "https": "", "no_proxy": ""})
    # Proxy per protocol as apt is told, without credentials, and hosts that it reaches without one.
    apt_proxies: dict[str, str] = field(default_factory=dict)
    apt_direct: list[str] = field(default_factory=list)
    # {machine, login, password} for apt.
    apt_logins: list[dict[str, str]] = field(default_factory=list)
    # Name of a file without its ending → PEM text of one certificate.
    certificate_authorities: dict[str, str] = field(default_factory=dict)
    # Changes when any of them does.
    certificate_authorities_digest: str = ""


def without_credentials(url: str) -> str:
    """A proxy's URL as it may be shown: "http://user:secret@proxy:3128" → "http://proxy:3128"."""
    scheme, separator, rest = url.partition("://")
    return f"{scheme}{separator}{rest.rpartition('@')[2]}" if separator else url.rpartition("@")[2]


def plan(variables: Mapping[str, Any], now: float | None = None) -> Plan:
    """The role's variables (without prefix) → plan; `now` in seconds since the epoch.

    Everything that is wrong is listed in `problems`; then the rest of the plan is empty.
    """
    proxies = {name: str(variables.get(f"{name}_proxy") or "") for name in ("http", "https")}
    exceptions, problems = _exceptions(variables)
    for name, url in proxies.items():
        problems += _proxy_problems(f"downloads_{name}_proxy", url) if url else []
    authorities, certificate_problems = _authorities(
        variables.get("certificate_authorities") or {}, time.time() if now is None else now
    )
    problems += certificate_problems
    if problems:
        return Plan(problems=list(dict.fromkeys(problems)))
    if not any(proxies.values()) and not authorities:
        return Plan()
    text = "".join(authorities.values())
    environment = _environment(proxies, exceptions, bool(authorities))
    return Plan(
        active=True,
        environment=environment,
        proxies={**proxies, "no_proxy": environment.get("no_proxy", "")},
        apt_proxies={name: without_credentials(url).rstrip("/") for name, url in proxies.items() if url},
        apt_direct=_apt_direct(exceptions) if any(proxies.values()) else [],
        apt_logins=_apt_logins(proxies),
        certificate_authorities=authorities,
        certificate_authorities_digest=hashlib.sha256(text.encode()).hexdigest() if text else "",
    )


def plan_as_dict(variables: Mapping[str, Any]) -> dict[str, Any]:
    """`plan`, for Jinja."""
    return asdict(plan(variables))


def _environment(urls: Mapping[str, str], exceptions: Sequence[str], own_authorities: bool) -> dict[str, str]:
    """Both spellings: Python and apt read the small letters, some programs only the capital ones."""
    values = {f"{name}_proxy": url for name, url in urls.items() if url}
    if values:
        values["no_proxy"] = ",".join(exceptions)
    both = {**values, **{name.upper(): value for name, value in values.items()}}
    if own_authorities:
        both["SSL_CERT_FILE"] = SYSTEM_BUNDLE
    return both


def _proxy_problems(variable: str, url: str) -> list[str]:
    """What is wrong with a proxy's URL. Its credentials never come into the sentence."""
    shown = f"{variable} is {without_credentials(url)!r}{' (credentials not shown)' if '@' in url else ''}"
    if not URL_CHARACTERS.fullmatch(url):
        return [
            f"{variable} holds a character that a URL may not hold as it is (a blank, a quote, a backslash or the "
            f"like); {EXPECTED_PROXY}. Write it as %XX: a blank as %20."
        ]
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return [f"{shown}, which is not a URL; {EXPECTED_PROXY}. An @, :, / or # in a password is written as %XX."]
    if parts.scheme.startswith("socks"):
        return [f"{shown}: Docker and Python cannot use a SOCKS proxy for this; {EXPECTED_PROXY}."]
    if parts.scheme == "https":
        return [f"{shown}: Python cannot speak TLS to a proxy; {EXPECTED_PROXY}. https addresses go through it too."]
    if parts.scheme != "http" or not parts.hostname:
        return [f"{shown}, which is not the URL of a proxy; {EXPECTED_PROXY}."]
    if not port:
        return [f"{shown}: it names no port, and programs differ in what they take then; {EXPECTED_PROXY}."]
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        return [f"{shown}: nothing may follow the port; {EXPECTED_PROXY}. An / ? or # in a password is written as %XX."]
    return _credential_problems(variable, parts)


def _credential_problems(variable: str, parts: SplitResult) -> list[str]:
    """apt reads user name and password as words of a file, where nothing can be quoted."""
    if "@" not in parts.netloc:
        return []
    user, password = unquote(parts.username or ""), unquote(parts.password or "")
    if not user or not password:
        return [f"{variable} names {'no password' if user else 'no user'} before the @; {EXPECTED_PROXY}."]
    if re.search(r"\s|[\x00-\x1f\x7f]", user + password) or user.startswith("#") or password.startswith("#"):
        return [
            f"{variable}: apt cannot be told a user name or password with a blank or a leading #; "
            "let the proxy's administrator choose another."
        ]
    return []


def _exceptions(variables: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """What is reached without the proxy, and the problems with it."""
    wanted = [str(entry).strip() for entry in variables.get("no_proxy") or []]
    entries: list[str] = []
    problems: list[str] = []
    for entry in [*LOOPBACK, *map(str, variables.get("container_addresses") or []), *wanted]:
        # Not every program knows the star; all know that .example.org means what is below it.
        plain = entry[1:] if entry.startswith("*.") else entry
        if _is_network(plain) or HOST.fullmatch(plain):
            entries.append(plain)
        else:
            problems.append(
                f"downloads_no_proxy: {entry!r} is neither a host, a domain (.example.org), an address nor a "
                "network (10.0.0.0/8); give each as an entry of its own, without http://. To use no proxy "
                "at all, leave downloads_http_proxy and downloads_https_proxy empty."
            )
    return list(dict.fromkeys(entries)), problems


def _is_network(entry: str) -> bool:
    try:
        ipaddress.ip_network(entry, strict=False)
    except ValueError:
        return False
    return True


def _apt_direct(exceptions: Sequence[str]) -> list[str]:
    """The exceptions that apt's configuration can express: whole names and IPv4 addresses."""
    return [entry for entry in exceptions if not entry.startswith(".") and "/" not in entry and ":" not in entry]


def _apt_logins(proxies_by_name: Mapping[str, str]) -> list[dict[str, str]]:
    """One entry for each proxy with credentials. apt wants the protocol, or it keeps them to itself."""
    logins: list[dict[str, str]] = []
    for url in proxies_by_name.values():
        parts = urlsplit(url)
        if parts.username and parts.password:
            machine = without_credentials(url).rstrip("/")
            entry = {"machine": machine, "login": unquote(parts.username), "password": unquote(parts.password)}
            if entry not in logins:
                logins.append(entry)
    return logins


def _authorities(wanted: Mapping[str, Any], now: float) -> tuple[dict[str, str], list[str]]:
    """Names and PEM texts → one file for each certificate, as update-ca-certificates wants it, and problems."""
    files: dict[str, str] = {}
    problems: list[str] = []
    for name, given in sorted(wanted.items()):
        where = f"downloads_certificate_authorities: {name}"
        text = str(given or "")
        if not FILE_NAME.fullmatch(str(name)):
            problems.append(f"{where!r} cannot be the name of a file; use letters, digits, - _ and .")
            continue
        if "PRIVATE KEY" in text:
            problems.append(f"{where} holds a private key. Take it out of the inventory; it takes certificates only.")
            continue
        found = CERTIFICATE.findall(text)
        if not found:
            problems.append(
                f"{where} holds no certificate; expected PEM text that begins with -----BEGIN CERTIFICATE-----. "
                "Convert a binary one by `openssl x509 -inform der -in FILE`."
            )
        for number, pem in enumerate(found, start=1):
            problem = _certificate_problem(pem, now)
            if problem:
                problems.append(f"{where}{f', certificate {number}' if len(found) > 1 else ''}: {problem}")
                continue
            suffix = f"-{number}" if number > 1 else ""
            files[f"pageindex-home-{name}{suffix}"] = ssl.DER_cert_to_PEM_cert(ssl.PEM_cert_to_DER_cert(pem))
    return files, problems


def _certificate_problem(pem: str, now: float) -> str:
    """Why a certificate cannot be trusted as an authority, "" when it can."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_verify_locations(cadata=pem)
    except (ssl.SSLError, ValueError) as error:
        return f"not a readable certificate ({error}); look at it with `openssl x509 -noout -text`."
    authorities: list[dict[str, Any]] = context.get_ca_certs()
    if not authorities:
        return (
            "the certificate of a server, not of an authority (CA:TRUE is missing); "
            "give the one that signed it, the root of the chain."
        )
    subject = ", ".join(f"{key}={value}" for entry in authorities[0]["subject"] for key, value in entry)
    if ssl.cert_time_to_seconds(authorities[0]["notAfter"]) < now:
        return f"{subject} expired on {authorities[0]['notAfter']}; get the present one."
    if ssl.cert_time_to_seconds(authorities[0]["notBefore"]) > now + 86400:
        return f"{subject} is valid only from {authorities[0]['notBefore']}; check the clock of this machine."
    return ""
