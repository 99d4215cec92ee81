"""TLS as a scanner tries it: a handshake for each version and each cipher, with the machine's own `openssl`.

What this machine's configuration of OpenSSL forbids is offered too: that the server refuses it is what is to be seen.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import ssl
import subprocess
from concurrent.futures import ThreadPoolExecutor

SECONDS = 10
#: All of TLS 1.3, not only those that OpenSSL offers by itself (RFC 8446, appendix B.4).
SUITES = (
    "TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256",
    "TLS_AES_128_CCM_SHA256", "TLS_AES_128_CCM_8_SHA256",
)  # fmt: skip
#: Alerts of a server (RFC 5246, section 7.2).
HANDSHAKE_FAILURE, PROTOCOL_VERSION = "alert 40", "alert 70"
# Of no strength is too little; without a configuration of this machine's.
_ANY = "ALL:COMPLEMENTOFALL:@SECLEVEL=0"
_ENVIRONMENT = os.environ | {"OPENSSL_CONF": os.devnull, "LC_ALL": "C"}


def handshake(port: int, *options: str) -> str:
    """What a client of `openssl s_client` with *options* gets: "TLSv1.2 CIPHER", or the server's alert.

    AssertionError where the server was not asked, or said neither.
    """
    said = _openssl("s_client", "-connect", f"127.0.0.1:{port}", "-brief", *options)
    if alert := re.search(r"SSL alert number (\d+)", said):
        return f"alert {alert[1]}"
    agreed = re.search(r"^Protocol version: (\S+)\nCiphersuite: (\S+)$", said, re.MULTILINE)
    assert agreed, f"openssl s_client {' '.join(options)}: no handshake and no alert of the server's: {said}"
    return f"{agreed[1]} {agreed[2]}"


def old_versions(port: int) -> dict[str, str]:
    """What a client gets that speaks one version of before 2008 alone."""
    return {version: handshake(port, f"-{version}", "-cipher", _ANY) for version in ("tls1", "tls1_1")}


def ciphers(port: int) -> dict[str, str]:
    """What a client gets that offers one cipher alone: all that this machine's OpenSSL knows of TLS 1.2 and 1.3."""
    known = _openssl("ciphers", "-s", "-tls1_2", _ANY).strip().split(":")
    options = {name: ("-tls1_2", "-cipher", f"{name}:@SECLEVEL=0") for name in known}
    options |= {name: ("-tls1_3", "-ciphersuites", name) for name in SUITES}
    with ThreadPoolExecutor(4) as pool:
        got = pool.map(lambda name: handshake(port, *options[name]), options)
        return dict(zip(options, got, strict=True))


def renegotiation(port: int) -> str:
    """What `openssl s_client` says when it wants to negotiate again on a connection of TLS 1.2."""
    command = ["openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-tls1_2"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=_ENVIRONMENT, stdin=pipe, stdout=pipe, stderr=subprocess.STDOUT) as client:
        assert client.stdin and client.stdout
        # Its word for that. Where it is refused it ends; its input stays open, at whose end it would end too.
        client.stdin.write(b"R\n")
        client.stdin.flush()
        with contextlib.suppress(subprocess.TimeoutExpired):
            client.wait(SECONDS)
        client.kill()
        return client.stdout.read().decode(errors="replace")


def compression(port: int) -> tuple[str, int]:
    """(cipher, method of compression) that the server takes where DEFLATE is offered; 0 is none, 1 is DEFLATE."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    sent = ssl.MemoryBIO()
    with contextlib.suppress(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), sent).do_handshake()
    # Python's own beginning, with one method more: few builds of OpenSSL can offer any. It is a header of 5 bytes, one
    # of 4, version and random (34), then session, ciphers and methods, each after its length.
    record = sent.read()
    body = record[9:]
    at = 34 + 1 + body[34]
    at += 2 + int.from_bytes(body[at : at + 2], "big")
    assert body[at : at + 2] == b"\1\0"
    body = body[:at] + b"\2\1\0" + body[at + 2 :]
    hello = b"\1" + len(body).to_bytes(3, "big") + body
    with socket.create_connection(("127.0.0.1", port), SECONDS) as connection:
        connection.sendall(record[:3] + len(hello).to_bytes(2, "big") + hello)
        answer = b""
        while len(answer) < 256 and (more := connection.recv(65536)):
            answer += more
    # A handshake (22), the server's beginning (2); session, cipher (2 bytes) and method.
    assert answer[:1] == b"\x16" and answer[5:6] == b"\2", answer
    at = 9 + 34 + 1 + answer[43]
    names = {entry["id"] & 0xFFFF: entry["name"] for entry in context.get_ciphers()}
    return names[int.from_bytes(answer[at : at + 2], "big")], answer[at + 2]


def _openssl(*arguments: str) -> str:
    """What the program says, with nothing to read for it."""
    done = subprocess.run(
        ["openssl", *arguments],
        env=_ENVIRONMENT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    return done.stdout + done.stderr
