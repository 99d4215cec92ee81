"""The gateway towards other machines: TLS, keys and limits. A real HAProxy with the role's configuration.

Keys and certificates are made by the code that makes them on a host, and reach the running HAProxy as they do there.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from ansible_collections.pageindex.home.plugins.module_utils.api_keys import KeyRing, haproxy_map
from ansible_collections.pageindex.home.plugins.module_utils.gateway_certificate import (
    Certificate,
    Certificates,
    CertificateSettings,
)
from ansible_collections.pageindex.home.plugins.module_utils.haproxy_runtime import HaproxyError, HaproxyRuntime
from tests.scenarios.gateway_on_loopback import CONTAINER, Answer, Gateway, Waiter, eventually, guarded, running
from tests.scenarios.gateway_strangers import PREFACE, frame, literal
from tests.scenarios.gateway_tls import (
    HANDSHAKE_FAILURE,
    PROTOCOL_VERSION,
    ciphers,
    compression,
    old_versions,
    renegotiation,
)

CHAT = "/v1/chat/completions"


@dataclass
class Front:
    """A gateway that other machines reach, its keys and its certificate."""

    gateway: Gateway
    ring: KeyRing
    certificates: CertificateSettings
    folder: Path

    @property
    def runtime(self) -> HaproxyRuntime:
        return HaproxyRuntime(CONTAINER, self.gateway.admin, master_port=self.gateway.master)

    @property
    def map_name(self) -> str:
        return f"{self.folder}/keys/gateway/keys.map"

    def tell(self) -> bool:
        """Tell the running gateway of the keys; whether that was a change."""
        return self.runtime.replace_map(self.map_name, haproxy_map(self.ring.all()))

    def key(self, name: str, scope: str, **limits: int) -> str:
        """A new key that the gateway knows."""
        secret, _ = self.ring.create(name, [scope], **limits)  # type: ignore[arg-type]
        self.tell()
        return secret

    def trust(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=self.certificates.authority)

    def ask(self, key: str | None = None, path: str = CHAT, *, documents: bool = False, **more: object) -> Answer:
        """A request from outside, with the key as a client of OpenAI sends it."""
        headers = dict(more.pop("headers", {}))  # type: ignore[call-overload]
        if key is not None:
            headers["Authorization"] = f"Bearer {key}"
        port = self.gateway.documents if documents else self.gateway.outside
        return self.gateway.ask(path, headers=headers, secure=(port, self.trust()), **more)  # type: ignore[arg-type]

    def stream(self, key: str) -> Waiter:
        """A stream from outside, of which a piece comes for each `model.more.release()`."""
        secure = (self.gateway.outside, self.trust())
        return self.gateway.waiter(headers={"Authorization": f"Bearer {key}"}, body={"stream": True}, secure=secure)

    def raw(self, request: bytes) -> bytes:
        """All that is answered to these bytes."""
        with self.connected("127.0.0.1") as secure:
            secure.settimeout(3)
            answer = b""
            try:
                secure.sendall(request)
                while more := secure.recv(65536):
                    answer += more
            except (TimeoutError, ssl.SSLEOFError, ConnectionError):
                pass
            return answer

    def connected(self, name: str, context: ssl.SSLContext | None = None) -> ssl.SSLSocket:
        """A TLS connection to what is to be *name*."""
        plain = socket.create_connection(("127.0.0.1", self.gateway.outside), 5)
        return (context or self.trust()).wrap_socket(plain, server_hostname=name)

    def digest(self, name: str) -> str:
        return next(key.sha256 for key in self.ring.all() if key.name == name)

    def running(self, key: str) -> int:
        """Requests of the key that run."""
        digest = hashlib.sha256(key.encode()).hexdigest()
        lines = self.gateway.command("show table api_keys").splitlines()
        return next((int(line.rsplit("conn_cur=", 1)[1].split()[0]) for line in lines if digest in line), 0)

    def held(self) -> int:
        """Connections of this machine to the ports for other machines."""
        lines = self.gateway.command("show table addresses").splitlines()
        return next((int(line.rsplit("conn_cur=", 1)[1].split()[0]) for line in lines if "conn_cur=" in line), 0)

    def shown(self) -> str:
        """The certificate that a client gets (PEM)."""
        return ssl.get_server_certificate(("127.0.0.1", self.gateway.outside), timeout=5)

    def take_over(self, found: Certificate) -> bool:
        pem = Path(self.certificates.served).read_text()
        return self.runtime.replace_certificate(self.certificates.served, pem, found.serial)


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    """One gateway for all tests here; each makes keys of its own."""
    if "HAPROXY" in os.environ:
        pytest.fail("these tests need the container: HaproxyRuntime speaks to it by docker exec; unset HAPROXY")
    folder = tmp_path_factory.mktemp("front")
    ring, certificates = guarded(folder, "127.0.0.1", "staging.home.arpa")
    with running(folder, gateway_outside_address="0.0.0.0") as gateway:
        gateway.model.start()
        eventually("the server to be up", lambda: gateway.status() == "UP")
        yield Front(gateway, ring, certificates, folder)


def code(answer: Answer) -> str:
    """What a program is told of an error."""
    return str(json.loads(answer.body)["error"]["code"])


def test_a_gateway_that_runs_and_cannot_be_asked_is_no_gateway_that_does_not_run(front: Front) -> None:
    nobody = HaproxyRuntime(CONTAINER, 1)
    with pytest.raises(HaproxyError, match="cannot be asked"):
        nobody.replace_map(front.map_name, "")
    assert HaproxyRuntime("no-such-container", 1).replace_map(front.map_name, "") is False


@pytest.mark.parametrize("documents", [False, True], ids=["llm", "documents"])
def test_without_a_key_nothing_is_done(front: Front, documents: bool) -> None:
    answer = front.ask(documents=documents)
    assert (answer.status, code(answer)) == (401, "missing_api_key")
    assert answer.headers["www-authenticate"] == "Bearer"
    wrong = front.ask("pih_wrong", documents=documents)
    assert (wrong.status, code(wrong)) == (401, "invalid_api_key")
    form = "application/problem+json" if documents else "application/json"
    assert answer.headers["content-type"] == wrong.headers["content-type"] == form


@pytest.mark.parametrize(
    ("scope", "llm", "documents"),
    [("llm", 200, 403), ("documents", 403, 200), ("documents:read", 403, 200), ("admin", 200, 200)],
)
def test_a_key_opens_what_its_scopes_say(front: Front, scope: str, llm: int, documents: int) -> None:
    key = front.key(f"scope-{scope.replace(':', '-')}", scope)
    assert front.ask(key).status == llm
    assert front.ask(key, documents=True).status == documents
    # The other header counts as much.
    assert front.ask(headers={"x-api-key": key}).status == llm


def test_what_says_nothing_needs_no_key(front: Front) -> None:
    assert front.ask(path="/health", method="GET").status == 200
    for path in ("/", "/static/page.js"):
        assert front.ask(path=path, method="GET", documents=True).status == 200
    # A browser that has signed in; whether that is true is for the service to say.
    signed_in = front.ask(documents=True, headers={"Cookie": "pageindex_session=whatever"})
    assert signed_in.status == 200
    assert front.ask(headers={"Cookie": "pageindex_session=whatever"}).status == 401


def test_a_path_that_is_not_served_is_unknown_with_any_key(front: Front) -> None:
    key = front.key("everything", "admin")
    for path in ("/metrics", "/invocations", "/tokenize", "/openapi.json", "/v1/models/../../metrics", "/v1//models"):
        assert front.ask(key, path).status == front.ask(path=path).status == 404, path


def test_the_services_learn_what_they_have_to_and_no_secrets(front: Front) -> None:
    key = front.key("learns", "admin")
    forged = {"X-Forwarded-For": "10.9.9.9", "X-Forwarded-Proto": "http", "X-Pageindex-Require-Key": "false"}
    front.ask(key, headers=forged)
    headers = front.gateway.model.asked[-1]["headers"]
    assert "authorization" not in {name.lower() for name in headers} and key not in str(headers)
    assert headers["x-forwarded-proto"] == "https" and headers["x-pageindex-require-key"] == "true"
    assert headers["x-forwarded-for"] == "127.0.0.1"
    front.ask(key, documents=True)
    # The document service tells people apart by their keys.
    assert front.gateway.model.asked[-1]["headers"]["authorization"] == f"Bearer {key}"
    eventually("it to be logged", lambda: "{learns}" in front.gateway.log())
    assert key not in front.gateway.log()


def test_what_two_readers_could_read_differently_is_refused(front: Front) -> None:
    key, other = front.key("first", "admin"), front.key("second", "admin")
    head = "GET /v1/models HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\n"
    bearers = [f"Authorization: Bearer {one}\r\n" for one in (key, other)]
    for headers in ("".join(bearers), f"x-api-key: {key}\r\nX-Api-Key: {other}\r\n"):
        answer = front.raw(f"{head}{headers}\r\n".encode())
        assert answer.startswith(b"HTTP/1.1 400") and b'"code":"bad_request"' in answer, answer
    # A header that is no key goes no further, beside a session neither.
    odd = {"Authorization": f"Bearer {key} \xa0", "Cookie": "pageindex_session=whatever"}
    assert front.ask(documents=True, headers=odd).status == 200
    assert "authorization" not in front.gateway.model.asked[-1]["headers"]
    # To the model no session is of use.
    front.ask(key, headers={"Cookie": "pageindex_session=whatever"})
    assert "cookie" not in front.gateway.model.asked[-1]["headers"]


def test_on_loopback_and_inside_nothing_has_changed(front: Front) -> None:
    assert front.gateway.ask().status == 200
    assert front.gateway.ask(path="/tokenize", inside=True).status == 200
    assert "x-pageindex-require-key" not in front.gateway.model.asked[-1]["headers"]


def test_a_revoked_key_and_an_expired_one_are_refused_at_once(front: Front) -> None:
    key = front.key("soon-gone", "llm")
    assert front.ask(key).status == 200
    front.ring.revoke("soon-gone")
    assert front.tell() and not front.tell()
    assert code(front.ask(key)) == "invalid_api_key"
    old = front.key("old", "llm", days=1)
    path = front.folder / "keys/keys.json"
    path.write_text(path.read_text().replace(front.ring.all()[-1].expires, "2026-01-01"))
    front.ring.write_out()
    front.tell()
    answer = front.ask(old)
    assert (answer.status, code(answer)) == (401, "expired_api_key")


def test_requests_a_minute_are_limited_for_each_key(front: Front) -> None:
    key, other = front.key("hasty", "llm", requests_per_minute=3), front.key("calm", "llm", requests_per_minute=3)
    assert [front.ask(key).status for _ in range(5)] == [200, 200, 200, 429, 429]
    answer = front.ask(key)
    assert (code(answer), answer.headers["retry-after"]) == ("rate_limit_exceeded", "60")
    # By key, not by address.
    assert front.ask(other).status == 200
    front.ring.limit("hasty", requests_per_minute=100)
    front.tell()
    assert front.ask(key).status == 200
    # What was refused was not counted.
    assert "http_req_rate(60000)=4" in next(
        line for line in front.gateway.command("show table api_keys").splitlines() if front.digest("hasty") in line
    )


def test_requests_at_a_time_are_limited_for_each_key(front: Front) -> None:
    key = front.key("parallel", "llm", concurrent_requests=2)
    streams = [front.stream(key) for _ in range(2)]
    eventually("both to run", lambda: front.running(key) == 2)
    answer = front.ask(key)
    assert (answer.status, code(answer), answer.headers["retry-after"]) == (429, "concurrency_limit_exceeded", "1")
    front.gateway.model.more.release(10)
    assert [stream.result().status for stream in streams] == [200, 200]
    eventually("them to be over", lambda: front.running(key) == 0)
    assert front.ask(key).status == 200


def test_what_is_too_large_is_refused_before_it_is_read(front: Front) -> None:
    key = front.key("large", "llm")
    answer = front.ask(key, body={"text": "x" * 1_100_000})
    assert (answer.status, code(answer)) == (413, "request_too_large")
    head = f"POST {CHAT} HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer {key}\r\n"
    chunked = f"{head}Transfer-Encoding: chunked\r\n\r\n2\r\n{{}}\r\n0\r\n\r\n"
    assert front.raw(chunked.encode()).startswith(b"HTTP/1.1 411")
    # Neither was counted.
    assert front.digest("large") not in front.gateway.command("show table api_keys")


def test_the_log_says_what_was_asked_for_and_not_with_which_words(front: Front) -> None:
    """A page's picture is asked for with the text that is marked on it."""
    key = front.key("reads", "documents")
    assert front.ask(key, "/v1/pages/3?quote=the+garden+gate", documents=True).status == 200
    eventually("it to be logged", lambda: "{reads}" in front.gateway.log())
    [line] = [line for line in front.gateway.log().splitlines() if "{reads}" in line]
    assert line.endswith('"POST /v1/pages/3 HTTP/1.1"'), line


def test_a_frontend_that_names_no_scope_is_for_admins(front: Front) -> None:
    owner, user = front.key("owner", "admin"), front.key("user", "llm")
    frontends = front.gateway.frontends()
    try:
        bare = [{name: value for name, value in one.items() if name != "scope"} for one in frontends]
        front.gateway.reconfigure("without-scopes", gateway_frontends=bare)
        assert (front.ask(owner).status, front.ask(user).status) == (200, 403)
    finally:
        front.gateway.reconfigure("with-scopes", gateway_frontends=frontends)
    assert front.ask(user).status == 200


def test_a_body_of_unknown_length_is_none_over_http_2_either(front: Front) -> None:
    key = front.key("unknown-length", "llm")
    fields = [(b":method", b"POST"), (b":path", CHAT.encode()), (b":scheme", b"https"), (b":authority", b"gateway")]
    fields.append((b"authorization", f"Bearer {key}".encode()))
    for length, wanted in ((b"2", b"200"), (None, b"411")):
        head = b"".join(literal(*one) for one in [*fields, *([(b"content-length", length)] if length else [])])
        context = front.trust()
        context.set_alpn_protocols(["h2"])
        with front.connected("127.0.0.1", context) as secure:
            secure.settimeout(10)
            secure.sendall(PREFACE + frame(4, 0, 0, b"") + frame(1, 4, 1, head) + frame(0, 1, 1, b"{}"))
            answer = b""
            # HAProxy writes a status as it is, or as one of the few that have a number: 200 is 0x88.
            while not (seen := {b"411": b"411" in answer, b"200": b"\x88" in answer})[wanted]:
                assert not any(seen.values()), answer
                more = secure.recv(65536)
                assert more, answer
                answer += more


def test_only_tls_of_this_decade_and_only_of_the_right_name(front: Front) -> None:
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        context = front.trust()
        context.minimum_version = context.maximum_version = version
        with front.connected("staging.home.arpa", context) as secure:
            assert secure.version() == version.name.replace("_", ".")
            cipher = secure.cipher()
            assert cipher and cipher[0].startswith(("TLS_", "ECDHE-")), cipher
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        front.connected("elsewhere.home.arpa")
    with pytest.raises(ssl.SSLCertVerificationError, match="unable to get local issuer"):
        front.connected("127.0.0.1", ssl.create_default_context())


def test_a_scan_of_tls_finds_nothing_that_is_not_meant(front: Front) -> None:
    """As testssl would look. All that is accepted has forward secrecy: a key that is stolen opens nothing of before."""
    port = front.gateway.outside
    # HAProxy and OpenSSL refuse these by themselves as well, so it takes more than one line to let them in.
    assert old_versions(port) == {"tls1": PROTOCOL_VERSION, "tls1_1": PROTOCOL_VERSION}
    # Of those in the template the ones for a key on an elliptic curve, which is what the authority makes.
    modern = {
        "ECDHE-ECDSA-AES128-GCM-SHA256": "TLSv1.2",
        "ECDHE-ECDSA-AES256-GCM-SHA384": "TLSv1.2",
        "ECDHE-ECDSA-CHACHA20-POLY1305": "TLSv1.2",
        "TLS_AES_128_GCM_SHA256": "TLSv1.3",
        "TLS_AES_256_GCM_SHA384": "TLSv1.3",
        "TLS_CHACHA20_POLY1305_SHA256": "TLSv1.3",
    }
    got = ciphers(port)
    # There is something to refuse: such as without forward secrecy, without authentication, without encryption.
    assert {"AES128-SHA", "ECDHE-ECDSA-AES128-SHA", "ADH-AES128-SHA", "NULL-SHA256"} <= set(got)
    wanted = {name: f"{modern[name]} {name}" if name in modern else HANDSHAKE_FAILURE for name in got}
    assert set(modern) <= set(got)
    assert got == wanted
    again = renegotiation(port)
    assert "RENEGOTIATING" in again and "no renegotiation" in again, again
    cipher, method = compression(port)
    assert cipher in modern and method == 0, (cipher, method)


def test_new_keys_and_a_new_certificate_count_at_once_and_cut_no_stream(front: Front) -> None:
    key = front.key("streams", "llm")
    streams = [front.stream(key) for _ in range(16)]
    eventually("all to run", lambda: front.running(key) == 16)
    before = front.shown()
    names = (*front.certificates.names, "new.home.arpa")
    found = Certificates(CertificateSettings(front.certificates.directory, names)).ensure()
    assert found.why == "it was made for other names"
    assert front.take_over(found) and not front.take_over(found)
    assert front.shown() != before
    assert front.ask(front.key("meanwhile", "llm")).status == 200
    # The streams' own key goes: what runs was let in.
    front.ring.revoke("streams")
    front.tell()
    assert front.ask(key).status == 401
    front.gateway.model.more.release(16 * 5)
    assert [stream.result().status for stream in streams] == [200] * 16
    assert {stream.result().body.count(b"piece") for stream in streams} == {5}


def test_a_revoked_key_is_refused_by_the_process_before_a_reload_too(front: Front) -> None:
    """It finishes what it has, and goes on taking requests on connections of HTTP/2 that are kept busy."""
    key = front.key("busy", "llm")
    fields = [(b":method", b"POST"), (b":path", CHAT.encode()), (b":scheme", b"https"), (b":authority", b"gateway")]
    fields += [(b"authorization", f"Bearer {key}".encode())]
    context = front.trust()
    context.set_alpn_protocols(["h2"])
    with front.connected("127.0.0.1", context) as secure:
        secure.settimeout(10)

        def ask(stream: int, body: bytes) -> None:
            head = b"".join(literal(*one) for one in [*fields, (b"content-length", str(len(body)).encode())])
            secure.sendall(frame(1, 4, stream, head) + frame(0, 1, stream, body))

        def status(stream: int) -> bytes:
            """How the stream is answered: 200 is one byte, other numbers are spelt out."""
            while True:
                size, kind, number = int.from_bytes(exactly(3), "big"), exactly(2)[0], int.from_bytes(exactly(4), "big")
                payload = exactly(size)
                if (kind, number) == (1, stream):
                    return b"200" if payload[0] == 0x88 else next(word for word in (b"401", b"?") if word in payload)

        def exactly(length: int) -> bytes:
            found = b""
            while len(found) < length:
                more = secure.recv(length - len(found))
                assert more, "the gateway has closed the connection"
                found += more
            return found

        secure.sendall(PREFACE + frame(4, 0, 0, b""))
        ask(1, b'{"stream": true}')
        assert status(1) == b"200"
        front.gateway.reconfigure("after-busy")
        assert len(front.runtime.ending()) == 1
        ask(3, b"{}")
        assert status(3) == b"200"
        front.ring.revoke("busy")
        assert front.tell()
        ask(5, b"{}")
        assert status(5) == b"401"
        front.gateway.model.more.release(5)
    eventually("that process to end", lambda: not front.runtime.ending())


def test_a_broken_certificate_is_refused_and_the_old_one_shown(front: Front) -> None:
    before = front.shown()
    with pytest.raises(HaproxyError, match="set ssl cert"):
        front.runtime.replace_certificate(front.certificates.served, "no certificate\n", "01")
    assert front.shown() == before


def test_one_address_cannot_take_all_connections(front: Front) -> None:
    key = front.key("honest", "llm")
    opened = [socket.create_connection(("127.0.0.1", front.gateway.outside), 5) for _ in range(60)]
    try:
        eventually("the first fifty to be held", lambda: front.held() == 50)
        # Who is on the host itself is not held up.
        assert front.gateway.ask().status == 200
    finally:
        for connection in opened:
            connection.close()
    eventually("them to be let go", lambda: front.held() == 0)
    assert front.ask(key).status == 200


def test_headers_that_are_too_large_and_requests_in_disguise_go_nowhere(front: Front) -> None:
    key = front.key("odd", "llm")
    asked = len(front.gateway.model.asked)
    large = f"GET /v1/models HTTP/1.1\r\nHost: gateway\r\nx-api-key: {key}\r\nX-Large: {'x' * 40_000}\r\n\r\n"
    # Some are told, some find the connection closed while they are still sending.
    assert front.raw(large.encode())[:12] in (b"HTTP/1.1 400", b"HTTP/1.1 431", b"")
    for odd in (
        b"Content-Length: 5\r\nContent-Length: 6\r\n",
        b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: chunked, identity\r\n",
        b"Transfer-Encoding : chunked\r\n",
        b"Content-Length: +5\r\n",
    ):
        begin = f"POST {CHAT} HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer {key}\r\n".encode()
        answer = front.raw(begin + odd + b"\r\n0\r\n\r\nGET /metrics HTTP/1.1\r\nHost: gateway\r\n\r\n")
        assert b"/metrics" not in answer, (odd, answer)
        assert answer.count(b"HTTP/1.1 200") == 0, (odd, answer)
    assert len(front.gateway.model.asked) == asked


def test_many_keys_are_told_in_pieces(front: Front) -> None:
    """HAProxy takes 16 KiB at a time."""
    for number in range(250):
        front.ring.create(f"many-{number}", ["llm"])
    last, _ = front.ring.create("many-last", ["llm"])
    assert front.tell() and not front.tell()
    assert front.ask(last).status == 200
    began = time.monotonic()
    assert front.ask(last).status == 200
    assert time.monotonic() - began < 5
