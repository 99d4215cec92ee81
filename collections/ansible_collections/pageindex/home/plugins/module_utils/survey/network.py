"""Ports that are taken, and whether each address that something is downloaded from answers."""

from __future__ import annotations

import base64
import contextlib
import email.utils
import glob
import ipaddress
import os
import re
import socket
import ssl
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit

from ansible_collections.pageindex.home.plugins.module_utils.apt_lock import command_of
from ansible_collections.pageindex.home.plugins.module_utils.survey.reading import read_text
from ansible_collections.pageindex.home.plugins.module_utils.survey.request import SurveyRequest

# One step (connecting, the handshake, the answer) and all sources together.
STEP_TIMEOUT_SECONDS = 5.0
TOTAL_TIMEOUT_SECONDS = 10.0
LISTENING = "0A"
DEFAULT_PORTS = {"http": 80, "https": 443}
CERTIFICATE_BUNDLES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/ssl/cert.pem")
LONGEST_HEAD_BYTES = 65536
REGISTRY_CERTIFICATES = "/etc/docker/certs.d"


@dataclass(frozen=True)
class Trusted:
    """Certificate authorities beside the system's own."""

    files: Sequence[str] = ()
    text: str = ""
    # Python 3.13 and newer wants more of a certificate than apt, Docker and others do.
    strict: bool = True


class Unreachable(Exception):
    """Why an address does not answer: kind is dns, connect, proxy, tls, timeout, http or address."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


def survey(request: SurveyRequest, host_root: str = "/") -> dict[str, Any]:
    """Who listens on the wanted ports, and what each source answers."""
    return {
        "wanted_ports": sorted(request.ports),
        "ports": listeners(request.ports),
        "sources": reach_all(request),
        "name_servers": name_servers(read_text(host_root, "etc/resolv.conf") or ""),
        "has_certificate_authorities": any(os.path.exists(path) for path in CERTIFICATE_BUNDLES),
    }


def name_servers(text: str) -> list[str]:
    """Addresses in resolv.conf."""
    return re.findall(r"^\s*nameserver\s+(\S+)", text, re.MULTILINE)


# --- ports -------------------------------------------------------------------------------------------


def listeners(ports: Iterable[int]) -> list[dict[str, Any]]:
    """Who listens on the given TCP ports: port, address, pid, command, and the container it lives in."""
    wanted = {int(port) for port in ports}
    sockets: dict[str, tuple[int, str]] = {}
    for name in ("tcp", "tcp6"):
        sockets.update(listening_sockets(read_text(f"/proc/net/{name}") or "", wanted))
    if not sockets:
        return []
    owners = socket_owners(set(sockets))
    found = []
    for inode, (port, address) in sockets.items():
        process = owners.get(inode)
        found.append(
            {
                "port": port,
                "address": address,
                "pid": process,
                "command": command_of(process) if process else None,
                "container": container_of(process) if process else None,
            }
        )
    return sorted(found, key=lambda entry: (entry["port"], entry["address"]))


def listening_sockets(text: str, ports: set[int]) -> dict[str, tuple[int, str]]:
    """Inode → port and address of the listening sockets in a /proc/net/tcp table."""
    found = {}
    for line in text.splitlines()[1:]:
        fields = line.split()
        if len(fields) < 10 or fields[3] != LISTENING:
            continue
        address, _, port = fields[1].partition(":")
        if int(port, 16) in ports:
            found[fields[9]] = (int(port, 16), socket_address(address))
    return found


def socket_address(text: str) -> str:
    """The address in /proc/net/tcp: words of 32 bits, each in the order of the machine."""
    data = b"".join(bytes.fromhex(text[start : start + 8])[::-1] for start in range(0, len(text), 8))
    return str(ipaddress.ip_address(data))


def socket_owners(inodes: set[str]) -> dict[str, int]:
    """Inode → process id, as far as they can be found."""
    owners: dict[str, int] = {}
    for process in filter(str.isdigit, os.listdir("/proc")):
        directory = f"/proc/{process}/fd"
        with contextlib.suppress(OSError):
            for handle in os.listdir(directory):
                with contextlib.suppress(OSError):
                    target = os.readlink(f"{directory}/{handle}")
                    if target.startswith("socket:[") and target[8:-1] in inodes:
                        owners.setdefault(target[8:-1], int(process))
        if len(owners) == len(inodes):
            break
    return owners


def container_of(process: int) -> str | None:
    """Id of the innermost container that a process runs in; a proxy of Docker's runs in that of the daemon."""
    found = re.findall(r"docker[-/]([0-9a-f]{64})", read_text(f"/proc/{process}/cgroup") or "")
    return found[-1] if found else None


# --- sources -----------------------------------------------------------------------------------------


def reach_all(request: SurveyRequest) -> list[dict[str, Any]]:
    """Try all sources at once: name, url, needed_by, proxy, kind, message, status, date_offset and more of each.

    A source may bring `certificate_authorities` (PEM text) that only it is checked with.

    kind: "ok" or that of Unreachable. date_offset: seconds that the server's clock is ahead of this
    host's, None when it does not say. only_python_refuses: what the host's Python dislikes about a
    certificate that apt and Docker accept.
    """
    results: list[dict[str, Any]] = []
    threads = []
    for source in request.sources:
        result = {
            "name": source.get("name") or source["url"],
            "url": without_password(source["url"]),
            "needed_by": source.get("needed_by") or "",
            "proxy": None,
            "kind": "timeout",
            "message": f"no answer within {TOTAL_TIMEOUT_SECONDS:.0f} seconds",
            "status": None,
            "date_offset": None,
            "only_python_refuses": None,
        }
        results.append(result)
        # Daemons: looking up a name cannot be interrupted, and must not keep the module from ending.
        threads.append(threading.Thread(target=_reach, args=(source, request, result), daemon=True))
    deadline = time.monotonic() + TOTAL_TIMEOUT_SECONDS
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    # A late thread may still write into its own dictionary.
    return [dict(result) for result in results]


def _reach(source: Mapping[str, Any], request: SurveyRequest, result: dict[str, Any]) -> None:
    try:
        address = urlsplit(source["url"])
        if address.scheme not in DEFAULT_PORTS or not address.hostname:
            raise Unreachable("address", "the address has to begin with http:// or https:// and a host")
        proxy = proxy_for(address, request.proxies)
        if proxy is not None:
            result["proxy"] = f"{proxy.hostname}:{_port(proxy)}"
        first = proxy or address
        result.update(
            kind="proxy" if proxy else "dns",
            message=f"the name {first.hostname} is not resolved within {TOTAL_TIMEOUT_SECONDS:.0f} seconds",
        )
        addresses = resolve(first.hostname or "", _port(first), proxy)
        result.update(kind="timeout", message=f"no answer within {TOTAL_TIMEOUT_SECONDS:.0f} seconds")
        for_docker = registry_authorities(address.netloc)
        trusted = Trusted(
            files=for_docker,
            text=str(source.get("certificate_authorities") or ""),
            # Where Docker has authorities of its own, it is Docker that asks.
            strict=not for_docker,
        )
        try:
            status, offset = ask(address, proxy, trusted, addresses)
        except Unreachable as problem:
            if problem.kind != "tls" or not trusted.strict:
                raise
            try:
                status, offset = ask(address, proxy, replace(trusted, strict=False), addresses)
            except Unreachable:
                raise problem from None
            result.update(only_python_refuses=str(problem))
        result.update(status=status, date_offset=offset)
        if status >= 500:
            raise Unreachable("http", f"it answers with HTTP status {status}")
        result.update(kind="ok", message=f"HTTP status {status}")
    except Unreachable as problem:
        result.update(kind=problem.kind, message=str(problem))
    except Exception as problem:
        result.update(kind="connect", message=f"{type(problem).__name__}: {problem}")


def without_password(url: str) -> str:
    """The address without a user's name and password in it."""
    return re.sub(r"^(\w+://)[^/@]*@", r"\1", url)


def _port(address: SplitResult) -> int:
    return address.port or DEFAULT_PORTS.get(address.scheme, 80)


def proxy_for(address: SplitResult, proxies: Mapping[str, str]) -> SplitResult | None:
    """The proxy for an address, None for a direct connection. Raises Unreachable when it is no usable address."""
    host = address.hostname or ""
    for entry in (proxies.get("no_proxy") or "").split(","):
        if _excluded(host, _port(address), entry.strip().lower()):
            return None
    text = proxies.get(address.scheme) or ""
    if not text:
        return None
    proxy = urlsplit(text if "://" in text else f"http://{text}")
    if proxy.scheme != "http" or not proxy.hostname:
        raise Unreachable("proxy", f"the proxy for {address.scheme} has to be an address such as http://HOST:3128")
    return proxy


def _excluded(host: str, port: int, entry: str) -> bool:
    """Whether an entry of no_proxy names a host: exactly, as a parent domain, a network, or by *."""
    name, _, entry_port = entry.partition(":") if entry.count(":") == 1 else (entry, "", "")
    if not name or (entry_port and entry_port != str(port)):
        return False
    if name == "*":
        return True
    if "/" in name:
        try:
            return ipaddress.ip_address(host) in ipaddress.ip_network(name, strict=False)
        except ValueError:
            return False
    name = name.removeprefix("*").lstrip(".")
    return host == name or host.endswith("." + name)


def ask(
    address: SplitResult, proxy: SplitResult | None, trusted: Trusted, addresses: Sequence[Any]
) -> tuple[int, float | None]:
    """HTTP status of a HEAD request and the offset of the server's clock. Raises Unreachable.

    addresses: of the proxy where there is one, else of the server, as getaddrinfo gives them.
    """
    host, port = address.hostname or "", _port(address)
    secure = address.scheme == "https"
    connection = connect(addresses, proxy or address, bool(proxy))
    try:
        if proxy and secure:
            open_tunnel(connection, host, port, proxy)
        if secure:
            connection = handshake(connection, host, trusted)
        target = address.path or "/"
        if address.query:
            target += f"?{address.query}"
        if proxy and not secure:
            target = f"http://{_host_header(host, port, 'http')}{target}"
        headers = [f"Host: {_host_header(host, port, address.scheme)}"]
        if proxy and not secure:
            headers += authorisation("Proxy-Authorization", proxy)
        headers += authorisation("Authorization", address)
        status, answer = exchange(connection, "HEAD", target, headers)
    finally:
        connection.close()
    if proxy and not secure:
        _refuse_answer_of_proxy(status, answer, proxy)
    return status, date_offset(answer)


def _host_header(host: str, port: int, scheme: str) -> str:
    name = f"[{host}]" if ":" in host else host
    return name if port == DEFAULT_PORTS[scheme] else f"{name}:{port}"


def authorisation(header: str, address: SplitResult) -> list[str]:
    """A header with the user and password that an address carries; none without."""
    if not address.username:
        return []
    pair = f"{unquote(address.username)}:{unquote(address.password or '')}"
    return [f"{header}: Basic {base64.b64encode(pair.encode()).decode()}"]


def resolve(host: str, port: int, proxy: SplitResult | None) -> Sequence[Any]:
    """Addresses of a host, as getaddrinfo gives them. Raises Unreachable."""
    try:
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise Unreachable("proxy" if proxy else "dns", f"the name {host} is not resolved: {reason}") from None


def connect(addresses: Sequence[Any], where_to: SplitResult, is_proxy: bool) -> socket.socket:
    """A connection to the first address that answers. Raises Unreachable."""
    problem = "no address"
    timed_out = False
    for family, kind, protocol, _, where in addresses:
        connection = socket.socket(family, kind, protocol)
        connection.settimeout(STEP_TIMEOUT_SECONDS)
        try:
            connection.connect(where)
            return connection
        except TimeoutError:
            timed_out, problem = True, f"no answer within {STEP_TIMEOUT_SECONDS:.0f} seconds"
        except OSError as error:
            # "Network is unreachable" for IPv6 says less than what was met with IPv4.
            problem = problem if timed_out else error.strerror or str(error)
        connection.close()
    name = f"{where_to.hostname}:{_port(where_to)}"
    if is_proxy:
        raise Unreachable("proxy", f"no connection to the proxy {name}: {problem}")
    raise Unreachable("connect", f"no connection to {name}: {problem}")


def open_tunnel(connection: socket.socket, host: str, port: int, proxy: SplitResult) -> None:
    """Ask a proxy for a way through. Raises Unreachable when it refuses."""
    name = f"[{host}]" if ":" in host else host
    headers = [f"Host: {name}:{port}", *authorisation("Proxy-Authorization", proxy)]
    status, answer = exchange(connection, "CONNECT", f"{name}:{port}", headers)
    if status != 200:
        _refuse_answer_of_proxy(status, {**answer, "x-squid-error": answer.get("x-squid-error", "CONNECT")}, proxy)
        raise Unreachable("proxy", f"the proxy {proxy.hostname}:{_port(proxy)} answers CONNECT with status {status}")


def _refuse_answer_of_proxy(status: int, answer: Mapping[str, str], proxy: SplitResult) -> None:
    """Raise Unreachable when an error comes from the proxy and not from the server behind it."""
    name = f"the proxy {proxy.hostname}:{_port(proxy)}"
    if status == 407:
        known = "does not accept the user and password" if proxy.username else "wants a user and a password"
        raise Unreachable("proxy", f"{name} {known} (HTTP status 407)")
    own = "x-squid-error" in answer or re.match(r"squid|tinyproxy", answer.get("server", ""), re.IGNORECASE)
    if not own or status < 400:
        return
    detail = answer.get("x-squid-error", "")
    detail = "" if detail == "CONNECT" else f", {detail}" if detail else ""
    if status == 403:
        raise Unreachable("proxy", f"{name} does not let this address through (HTTP status 403{detail})")
    if status >= 500:
        raise Unreachable("proxy", f"{name} cannot reach it (HTTP status {status}{detail})")


def registry_authorities(host_and_port: str) -> list[str]:
    """Files with the authorities that Docker trusts for a registry."""
    return sorted(glob.glob(f"{REGISTRY_CERTIFICATES}/{glob.escape(host_and_port)}/*.crt"))


def handshake(connection: socket.socket, host: str, trusted: Trusted) -> socket.socket:
    """TLS on a connection, checked against the system's authorities and the given ones. Raises Unreachable."""
    context = ssl.create_default_context()
    if not trusted.strict:
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    try:
        for path in trusted.files:
            if path and os.path.exists(path):
                context.load_verify_locations(cafile=path)
        if trusted.text:
            context.load_verify_locations(cadata=trusted.text)
    except (ssl.SSLError, OSError) as error:
        raise Unreachable("tls", f"the additional certificate authorities cannot be read: {error}") from None
    try:
        return context.wrap_socket(connection, server_hostname=host)
    except ssl.SSLCertVerificationError as error:
        raise Unreachable("tls", f"its certificate is not trusted: {error.verify_message}") from None
    except TimeoutError:
        raise Unreachable("timeout", f"no TLS answer within {STEP_TIMEOUT_SECONDS:.0f} seconds") from None
    except (ssl.SSLError, OSError) as error:
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or str(error)
        raise Unreachable("tls", f"TLS cannot be agreed on: {reason}") from None


def exchange(connection: socket.socket, method: str, target: str, headers: Sequence[str]) -> tuple[int, dict[str, str]]:
    """Send a request and read status and headers of the answer. Raises Unreachable."""
    lines = [f"{method} {target} HTTP/1.1", *headers, "User-Agent: pageindex-home-preflight", "Accept: */*"]
    if method != "CONNECT":
        lines.append("Connection: close")
    data = b""
    try:
        connection.sendall(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", "replace"))
        while b"\r\n\r\n" not in data and len(data) < LONGEST_HEAD_BYTES:
            part = connection.recv(4096)
            if not part:
                break
            data += part
    except TimeoutError:
        raise Unreachable("timeout", f"no HTTP answer within {STEP_TIMEOUT_SECONDS:.0f} seconds") from None
    except OSError as error:
        raise Unreachable("connect", f"the connection broke: {error.strerror or error}") from None
    head, _, _ = data.partition(b"\r\n\r\n")
    first, *rest = head.decode("latin-1").split("\r\n")
    match = re.match(r"HTTP/\d\S*\s+(\d{3})", first)
    if not match:
        raise Unreachable("http", "what answers there does not speak HTTP")
    pairs = (line.partition(":") for line in rest)
    return int(match.group(1)), {name.strip().lower(): value.strip() for name, _, value in pairs}


def date_offset(headers: Mapping[str, str]) -> float | None:
    """Seconds that the server's clock is ahead of ours; None without a date, or for a stored answer."""
    if "age" in headers:
        return None
    try:
        return email.utils.parsedate_to_datetime(headers["date"]).timestamp() - time.time()
    except (KeyError, TypeError, ValueError, IndexError):
        return None
