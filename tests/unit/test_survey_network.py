"""Ports, and reaching addresses: against real servers, a real proxy and a real certificate on loopback."""

from __future__ import annotations

import datetime
import http.server
import ipaddress
import os
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlsplit

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from ansible_collections.pageindex.home.plugins.module_utils.survey import network
from ansible_collections.pageindex.home.plugins.module_utils.survey.request import SurveyRequest


class Server(http.server.BaseHTTPRequestHandler):
    """Answers the status that the path names; /silent does not answer."""

    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        path = self.path.rpartition("/")[2]
        if path == "silent":
            time.sleep(2)
        self.send_response(int(path) if path.isdigit() else 200)
        if path == "cached":
            self.send_header("Age", "4000")
        self.end_headers()

    def log_message(self, *arguments: object) -> None:
        pass


class Proxy(http.server.BaseHTTPRequestHandler):
    """Lets everything through but hosts named forbidden; with `password` it wants one."""

    password: ClassVar[str] = ""
    seen: ClassVar[list[str]] = []

    def _refused(self) -> bool:
        self.seen.append(self.path)
        if self.password and self.headers.get("Proxy-Authorization") != self.password:
            self.send_response(407)
            self.end_headers()
            return True
        if "forbidden" in self.path:
            self.send_response(403)
            self.send_header("X-Squid-Error", "ERR_ACCESS_DENIED 0")
            self.end_headers()
            return True
        return False

    def do_HEAD(self) -> None:
        if not self._refused():
            self.send_response(200)
            self.end_headers()

    def do_CONNECT(self) -> None:
        if self._refused():
            return
        host, _, port = self.path.partition(":")
        with socket.create_connection((host, int(port))) as behind:
            self.wfile.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            behind.settimeout(0.2)
            self.connection.settimeout(0.2)
            for _ in range(10):
                for source, target in ((self.connection, behind), (behind, self.connection)):
                    try:
                        target.sendall(source.recv(65536))
                    except (TimeoutError, OSError):
                        continue

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits long in a test."""
    monkeypatch.setattr(network, "STEP_TIMEOUT_SECONDS", 1.0)
    monkeypatch.setattr(network, "TOTAL_TIMEOUT_SECONDS", 3.0)
    monkeypatch.setattr(Proxy, "password", "")
    monkeypatch.setattr(Proxy, "seen", [])


def serve(server: http.server.HTTPServer) -> str:
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"127.0.0.1:{server.server_port}"


@pytest.fixture(scope="module")
def plain() -> Iterator[str]:
    """HOST:PORT of an HTTP server."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
        yield serve(server)
        server.shutdown()


@pytest.fixture(scope="module")
def proxy() -> Iterator[str]:
    """HOST:PORT of a proxy."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Proxy) as server:
        yield serve(server)
        server.shutdown()


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """HOST:PORT of an HTTPS server, and the file with the authority that certified it."""
    folder = tmp_path_factory.mktemp("tls")
    authority_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    authority_name, name = (
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)]) for text in ("an authority", "a server")
    )
    now = datetime.datetime.now(datetime.UTC)

    def certified(subject: x509.Name, public_key: ec.EllipticCurvePublicKey, extension: x509.ExtensionType) -> bytes:
        built = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(authority_name)
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(extension, critical=True)
            .sign(authority_key, hashes.SHA256())
        )
        return built.public_bytes(serialization.Encoding.PEM)

    # Without key usage, as most people make theirs.
    is_authority = x509.BasicConstraints(ca=True, path_length=None)
    (folder / "authority.pem").write_bytes(certified(authority_name, authority_key.public_key(), is_authority))
    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    (folder / "certificate.pem").write_bytes(certified(name, key.public_key(), names))
    (folder / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "certificate.pem", folder / "key.pem")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        yield serve(server), str(folder / "authority.pem")
        server.shutdown()


def reach(url: str, **options: Any) -> dict[str, Any]:
    source = {"name": "source", "url": url, "needed_by": "vllm", **options.pop("source", {})}
    (result,) = network.reach_all(SurveyRequest(sources=[source], **options))
    return result


def trusting(certificate: str) -> dict[str, str]:
    return {"certificate_authorities": Path(certificate).read_text()}


@pytest.mark.parametrize("status", [200, 401, 403, 404, 405])
def test_any_answer_of_the_server_will_do(plain: str, status: int) -> None:
    result = reach(f"http://{plain}/{status}")
    assert (result["kind"], result["status"], result["proxy"]) == ("ok", status, None)
    assert abs(result["date_offset"]) < 3


def test_a_server_in_trouble_will_not(plain: str) -> None:
    result = reach(f"http://{plain}/503")
    assert (result["kind"], result["message"]) == ("http", "it answers with HTTP status 503")


def test_a_stored_answer_says_nothing_about_the_time(plain: str) -> None:
    assert reach(f"http://{plain}/cached")["date_offset"] is None
    assert network.date_offset({"date": "nonsense"}) is None
    assert network.date_offset({}) is None


def test_what_fails_is_told_apart(plain: str) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        refused = reach(f"http://127.0.0.1:{unused.getsockname()[1]}/")
    assert (refused["kind"], refused["message"].rpartition(": ")[2]) == ("connect", "Connection refused")
    assert reach(f"http://{plain}/silent")["kind"] == "timeout"
    assert reach("http://name.invalid/")["kind"] == "dns"
    assert reach("ftp://x.example/")["kind"] == "address"
    spoken = reach(f"https://{plain}/")
    assert (spoken["kind"], "TLS cannot be agreed on" in spoken["message"]) == ("tls", True)


def test_a_name_that_takes_forever_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "TOTAL_TIMEOUT_SECONDS", 0.3)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *arguments, **options: time.sleep(5))
    started = time.monotonic()
    result = reach("http://slow.example/")
    assert time.monotonic() - started < 2
    assert (result["kind"], "slow.example is not resolved within" in result["message"]) == ("dns", True)


def test_sources_are_asked_at_the_same_time(plain: str) -> None:
    sources = [{"name": str(number), "url": f"http://{plain}/silent"} for number in range(8)]
    started = time.monotonic()
    results = network.reach_all(SurveyRequest(sources=sources))
    assert time.monotonic() - started < 2.5
    assert [result["name"] for result in results] == [str(number) for number in range(8)]


def test_certificates(secure: tuple[str, str]) -> None:
    address, certificate = secure
    untrusted = reach(f"https://{address}/200")
    assert untrusted["kind"] == "tls"
    assert untrusted["message"] == "its certificate is not trusted: unable to get local issuer certificate"
    assert reach(f"https://{address}/200", source=trusting(certificate))["kind"] == "ok"
    mismatch = reach(f"https://localhost:{address.rpartition(':')[2]}/", source=trusting(certificate))
    assert (mismatch["kind"], "match" in mismatch["message"]) == ("tls", True)


def test_a_registry_is_trusted_as_docker_trusts_it(
    secure: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address, certificate = secure
    monkeypatch.setattr(network, "REGISTRY_CERTIFICATES", str(tmp_path))
    (tmp_path / address).mkdir()
    (tmp_path / address / "ca.crt").write_text(Path(certificate).read_text())
    assert reach(f"https://{address}/v2/")["kind"] == "ok"


def test_a_certificate_that_only_the_hosts_python_refuses(
    secure: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def default_context() -> ssl.SSLContext:
        context = make_context()
        context.verify_flags |= ssl.VERIFY_X509_STRICT  # as Python 3.13 does
        return context

    make_context = ssl.create_default_context
    monkeypatch.setattr(ssl, "create_default_context", default_context)
    result = reach(f"https://{secure[0]}/200", source=trusting(secure[1]))
    assert (result["kind"], result["status"]) == ("ok", 200)
    assert "not trusted" in result["only_python_refuses"]
    refused = reach(f"https://{secure[0]}/200")
    assert (refused["kind"], refused["only_python_refuses"]) == ("tls", None)


def test_through_a_proxy(plain: str, secure: tuple[str, str], proxy: str) -> None:
    proxies = {"http": f"http://{proxy}", "https": f"http://{proxy}"}
    # A name that only the proxy could resolve.
    result = reach("http://name.invalid/x", proxies=proxies)
    assert (result["kind"], result["proxy"]) == ("ok", proxy)
    assert Proxy.seen == ["http://name.invalid/x"]
    tunnel = reach(f"https://{secure[0]}/200", proxies=proxies, source=trusting(secure[1]))
    assert (tunnel["kind"], Proxy.seen[-1]) == ("ok", secure[0])
    assert reach(f"http://{plain}/200", proxies={**proxies, "no_proxy": "127.0.0.0/8"})["proxy"] is None


def test_a_proxy_that_refuses(proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    proxies = {"http": f"http://{proxy}", "https": f"http://{proxy}"}
    for scheme in ("http", "https"):
        result = reach(f"{scheme}://forbidden.example/", proxies=proxies)
        assert result["kind"] == "proxy"
        assert "does not let this address through" in result["message"]
    monkeypatch.setattr(Proxy, "password", "Basic bWU6c2VjcmV0")
    wants = reach("https://x.example/", proxies=proxies)
    assert (wants["kind"], "wants a user and a password" in wants["message"]) == ("proxy", True)
    wrong = reach("http://x.example/", proxies={"http": f"http://me:wrong@{proxy}"})
    assert "does not accept the user and password" in wrong["message"]
    assert "wrong@" not in str(wrong)
    assert reach("http://x.example/", proxies={"http": f"http://me:secret@{proxy}"})["kind"] == "ok"


def test_a_proxy_that_is_not_there() -> None:
    assert reach("http://x.example/", proxies={"http": "http://name.invalid:3128"})["kind"] == "proxy"
    assert reach("http://x.example/", proxies={"http": "http://127.0.0.1:1"})["kind"] == "proxy"
    assert reach("http://x.example/", proxies={"http": "socks5://127.0.0.1:1"})["kind"] == "proxy"


@pytest.mark.parametrize(
    ("url", "no_proxy", "direct"),
    [
        ("http://a.example/", "", False),
        ("http://a.example/", "a.example", True),
        ("http://a.example/", ".example", True),
        ("http://a.example/", "*.example", True),
        ("http://ba.example/", "a.example", False),
        ("http://a.example:8080/", "a.example:80", False),
        ("http://a.example:8080/", "b.example, a.example:8080", True),
        ("http://10.1.2.3/", "10.0.0.0/8", True),
        ("http://a.example/", "10.0.0.0/8", False),
        ("http://a.example/", "*", True),
    ],
)
def test_exceptions_from_the_proxy(url: str, no_proxy: str, direct: bool) -> None:
    found = network.proxy_for(urlsplit(url), {"http": "proxy.example:3128", "no_proxy": no_proxy})
    assert (found is None) == direct


def test_passwords_in_addresses_are_not_shown(plain: str) -> None:
    assert reach(f"http://me:secret@{plain}/200")["url"] == f"http://{plain}/200"


def test_who_listens() -> None:
    with socket.socket() as four, socket.socket(socket.AF_INET6) as six, socket.socket() as quiet:
        four.bind(("127.0.0.1", 0))
        six.bind(("::1", 0))
        quiet.bind(("127.0.0.1", 0))
        four.listen()
        six.listen()
        wanted = [entry.getsockname()[1] for entry in (four, six, quiet)]
        found = network.listeners(wanted)
    assert {(entry["port"], entry["address"], entry["pid"]) for entry in found} == {
        (wanted[0], "127.0.0.1", os.getpid()),
        (wanted[1], "::1", os.getpid()),
    }
    assert all("py" in entry["command"] for entry in found)
    assert network.listeners([]) == []


def test_the_whole_topic(plain: str) -> None:
    seen = network.survey(SurveyRequest(ports=[1], sources=[{"name": "x", "url": f"http://{plain}/200"}]))
    assert (seen["wanted_ports"], seen["ports"]) == ([1], [])
    assert seen["sources"][0]["kind"] == "ok"
    assert isinstance(seen["name_servers"], list)
    assert network.name_servers("# x\nnameserver 9.9.9.9\noptions edns0\n nameserver ::1\n") == ["9.9.9.9", "::1"]
