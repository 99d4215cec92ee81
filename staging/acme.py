"""A simulated ACME server (RFC 8555), for certbot to get certificates from that nobody outside trusts.

    python -m staging.acme ai.staging.test=172.31.250.10      # certificates for this name, proved at this address

What it speaks is real: TLS, nonces, signed requests, orders, and the HTTP-01 challenge, for which it asks the address
of the name and believes nothing else. What it signs is signed by an authority that it makes when it starts.
"""

from __future__ import annotations

import base64
import datetime
import hashlib
import http.client
import ipaddress
import json
import secrets
import ssl
import sys
import tempfile
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.x509.oid import NameOID

from staging import settings

LIFE = 90
_ERROR = "urn:ietf:params:acme:error:"


class Problem(Exception):
    """What the server answers instead: an error of RFC 8555 by its name, and words."""

    def __init__(self, kind: str, words: str, status: int = 400) -> None:
        super().__init__(words)
        self.status = status
        self.body = {"type": _ERROR + kind, "detail": f"simulated ACME server: {words}", "status": status}


class Authority:
    """Signs certificates: a root, of which devices know, and one below it that does the work."""

    def __init__(self) -> None:
        self._root_key = ec.generate_private_key(ec.SECP256R1())
        self._root = _signed("simulated ACME root", self._root_key.public_key(), None, self._root_key, depth=1)
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._below = _signed("simulated ACME authority", self._key.public_key(), self._root, self._root_key, depth=0)

    @property
    def root(self) -> str:
        """What devices have to trust (PEM)."""
        return _pem(self._root)

    def chain(self, key: Any, names: list[str], age: int = 0) -> str:
        """A certificate that has `age` of its 90 days behind it, and the one that signed it (PEM)."""
        return _pem(_signed(names[0], key, self._below, self._key, names, age=age)) + _pem(self._below)


class AcmeServer:
    """Listens on `address` from `with` to its end; `names` says where each name is proved: (address, port)."""

    def __init__(self, address: str, names: Mapping[str, tuple[str, int]], port: int = 0) -> None:
        self.names = dict(names)
        self.authority = Authority()
        #: Method and path of every request.
        self.requests: list[str] = []
        #: Days that a new certificate has behind it: one that is old is due for renewal.
        self.age = 0
        #: What a new order is answered with instead: ("rateLimited", "too many certificates …").
        self.refusal: tuple[str, str] | None = None
        self._nonces: set[str] = set()
        self._things: dict[str, dict[str, Any]] = {}
        self._accounts: dict[str, dict[str, Any]] = {}
        self._server = ThreadingHTTPServer((address, port), type("Bound", (_Handler,), {"acme": self}))
        self._server.socket = self._secured(address).wrap_socket(self._server.socket, server_side=True)
        self.base = f"https://{address}:{self._server.server_port}"
        self.url = f"{self.base}/directory"

    def __enter__(self) -> AcmeServer:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _secured(self, address: str) -> ssl.SSLContext:
        key = ec.generate_private_key(ec.SECP256R1())
        with tempfile.NamedTemporaryFile("w") as file:
            file.write(self.authority.chain(key.public_key(), [address]))
            file.write(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
                                         serialization.NoEncryption()).decode())
            file.flush()
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(file.name)
        return context

    def nonce(self) -> str:
        """A new one, good for one request."""
        nonce = secrets.token_urlsafe(16)
        self._nonces.add(nonce)
        return nonce

    def directory(self) -> dict[str, Any]:
        """Where everything is."""
        places = {"newNonce": "nonce", "newAccount": "new-account", "newOrder": "new-order", "revokeCert": "revoke",
                  "keyChange": "key-change"}
        meta = {"termsOfService": f"{self.base}/terms-of-a-simulated-server"}
        return {**{name: f"{self.base}/{place}" for name, place in places.items()}, "meta": meta}

    def answer(self, path: str, body: bytes) -> tuple[int, dict[str, str], Any]:
        """Status, headers and body for a signed request. Raises Problem."""
        account, payload = self._opened(path, json.loads(body))
        kind, _, number = path.strip("/").partition("/")
        if kind == "new-account":
            return 201, {"Location": self._url("account", account["number"])}, {"status": "valid"}
        if kind == "new-order":
            return self._new_order([str(identifier["value"]) for identifier in payload["identifiers"]])
        if number not in self._things:
            raise Problem("malformed", f"there is no {path}", 404)
        thing = self._things[number]
        if kind == "challenge":
            self._validate(thing, account)
            return 200, {"Link": f'<{self._url("authorization", number)}>;rel="up"'}, self._challenge(number)
        if kind == "authorization":
            name, below = thing["name"].removeprefix("*."), thing["name"].startswith("*.")
            told = {"identifier": {"type": "dns", "value": name}, "status": thing["status"], "wildcard": below}
            return 200, {}, {**told, "challenges": [self._challenge(number)]}
        if kind == "finalize":
            self._finalize(thing, payload["csr"])
        if kind == "certificate":
            return 200, {"Content-Type": "application/pem-certificate-chain"}, thing["certificate"]
        return 200, {"Location": self._url("order", number)}, self._order(number)

    def _opened(self, path: str, message: dict[str, str]) -> tuple[dict[str, Any], Any]:
        """Whose request it is, and what it says, once its signature, nonce and address are found to be right."""
        protected = json.loads(_bytes(message["protected"]))
        if protected["nonce"] not in self._nonces:
            raise Problem("badNonce", "unknown nonce")
        self._nonces.discard(protected["nonce"])
        if protected["url"] != self.base + path:
            raise Problem("unauthorized", "signed for another address", 403)
        if "jwk" in protected:
            key = protected["jwk"]
            account = self._accounts.setdefault(_thumbprint(key), {"number": str(len(self._accounts)), "key": key})
        else:
            known = {self._url("account", one["number"]): one for one in self._accounts.values()}
            if protected["kid"] not in known:
                raise Problem("accountDoesNotExist", "unknown account")
            account = known[protected["kid"]]
        if protected["alg"] != "RS256":
            raise Problem("badSignatureAlgorithm", "only RS256 is known here")
        numbers = rsa.RSAPublicNumbers(*(int.from_bytes(_bytes(account["key"][name])) for name in ("e", "n")))
        signed = f"{message['protected']}.{message['payload']}".encode()
        try:
            numbers.public_key().verify(_bytes(message["signature"]), signed, padding.PKCS1v15(), hashes.SHA256())
        except InvalidSignature:
            raise Problem("malformed", "wrong signature") from None
        return account, json.loads(_bytes(message["payload"]) or b"{}")

    def _new_order(self, names: list[str]) -> tuple[int, dict[str, str], Any]:
        if self.refusal:
            raise Problem(*self.refusal, status=429)
        authorizations = []
        for name in names:
            authorizations.append(secrets.token_hex(8))
            self._things[authorizations[-1]] = {"name": name, "status": "pending", "token": secrets.token_urlsafe(24)}
        number = secrets.token_hex(8)
        self._things[number] = {"names": names, "authorizations": authorizations, "certificate": ""}
        return 201, {"Location": self._url("order", number)}, self._order(number)

    def _order(self, number: str) -> dict[str, Any]:
        order = self._things[number]
        found = {self._things[one]["status"] for one in order["authorizations"]}
        status = "valid" if order["certificate"] else "ready" if found == {"valid"} else "pending"
        body = {
            "status": "invalid" if "invalid" in found else status,
            "identifiers": [{"type": "dns", "value": name} for name in order["names"]],
            "authorizations": [self._url("authorization", one) for one in order["authorizations"]],
            "finalize": self._url("finalize", number),
        }
        return {**body, "certificate": self._url("certificate", number)} if status == "valid" else body

    def _challenge(self, number: str) -> dict[str, Any]:
        thing = self._things[number]
        # All names below one are proved by its DNS alone, which is not asked here.
        kind = "dns-01" if thing["name"].startswith("*.") else "http-01"
        body = {"type": kind, "url": self._url("challenge", number), "token": thing["token"]}
        error = {"error": thing["error"]} if "error" in thing else {}
        return {**body, "status": thing["status"], **error}

    def _validate(self, thing: dict[str, Any], account: dict[str, Any]) -> None:
        """Ask where the name is, as a stranger from the internet would."""
        name, expected = thing["name"], f"{thing['token']}.{_thumbprint(account['key'])}"
        try:
            if name not in self.names:
                raise Problem("dns", f"DNS problem: NXDOMAIN looking up A for {name}")
            try:
                connection = http.client.HTTPConnection(*self.names[name], timeout=5)
                connection.request("GET", f"/.well-known/acme-challenge/{thing['token']}", headers={"Host": name})
                answer = connection.getresponse()
                said = answer.read(1000).decode(errors="replace").strip()
            except (OSError, http.client.HTTPException) as error:
                raise Problem("connection", f"{':'.join(map(str, self.names[name]))}: {error}") from error
            if answer.status != 200 or said != expected:
                raise Problem("unauthorized", f"Invalid response from http://{name}/: {answer.status}", 403)
            thing["status"] = "valid"
        except Problem as problem:
            thing.update(status="invalid", error=problem.body)

    def _finalize(self, order: dict[str, Any], request: str) -> None:
        wanted = x509.load_der_x509_csr(_bytes(request))
        names = wanted.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        if sorted(names.get_values_for_type(x509.DNSName)) != sorted(order["names"]) or not wanted.is_signature_valid:
            raise Problem("badCSR", "it is not for the names of the order")
        if any(self._things[one]["status"] != "valid" for one in order["authorizations"]):
            raise Problem("orderNotReady", "not all names are proved", 403)
        order["certificate"] = self.authority.chain(wanted.public_key(), order["names"], self.age)

    def _url(self, kind: str, number: str) -> str:
        return f"{self.base}/{kind}/{number}"


class _Handler(BaseHTTPRequestHandler):
    acme: AcmeServer
    protocol_version = "HTTP/1.1"
    server_version = "simulated-acme"
    timeout = 10

    def log_message(self, *_arguments: object) -> None:
        """The requests are kept, not printed."""

    def do_HEAD(self) -> None:
        """A new nonce."""
        self._send(200, {}, "")

    def do_GET(self) -> None:
        """The directory, or a nonce; everything else is asked by POST."""
        self._send(200 if self.path == "/directory" else 204, {}, self.acme.directory())

    def do_POST(self) -> None:
        """A signed request."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        try:
            self._send(*self.acme.answer(self.path, body))
        except Problem as problem:
            self._send(problem.status, {"Content-Type": "application/problem+json"}, problem.body)

    def _send(self, status: int, headers: dict[str, str], body: Any) -> None:
        self.acme.requests.append(f"{self.command} {self.path}")
        content = body.encode() if isinstance(body, str) else b"" if status == 204 else json.dumps(body).encode()
        self.send_response(status)
        usual = {"Content-Type": "application/json", "Replay-Nonce": self.acme.nonce(), "Cache-Control": "no-store"}
        for name, value in {**usual, **headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


def _signed(
    title: str, key: Any, issuer: x509.Certificate | None, issuer_key: ec.EllipticCurvePrivateKey,
    names: list[str] | None = None, depth: int = 0, age: int = 0,
) -> x509.Certificate:
    """A certificate for the public key: of a server with `names`, else of an authority above `depth` others."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, title)])
    life, began = LIFE if names else 3650, datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=age, hours=1)
    public = issuer_key.public_key()
    built = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.subject if issuer else subject)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(began)
        .not_valid_after(began + datetime.timedelta(days=life))
        .add_extension(x509.BasicConstraints(ca=not names, path_length=None if names else depth), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(public), critical=False)
    )
    if names:
        built = built.add_extension(x509.SubjectAlternativeName([_alternative(name) for name in names]), critical=False)
        built = built.add_extension(x509.ExtendedKeyUsage([x509.ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
    usage = dict.fromkeys(("content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
                           "encipher_only", "decipher_only"), False)
    signs = {"digital_signature": bool(names), "key_cert_sign": not names, "crl_sign": not names}
    return built.add_extension(x509.KeyUsage(**usage, **signs), critical=True).sign(issuer_key, hashes.SHA256())


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def _bytes(text: str) -> bytes:
    """Base64url without its padding → bytes."""
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _thumbprint(key: dict[str, str]) -> str:
    """Of an RSA key, RFC 7638."""
    plain = json.dumps({name: key[name] for name in ("e", "kty", "n")}, separators=(",", ":"))
    return base64.urlsafe_b64encode(hashlib.sha256(plain.encode()).digest()).rstrip(b"=").decode()


def main(arguments: list[str]) -> int:
    """Serve on the staging network until it is interrupted."""
    names = {name: (address, 80) for name, _, address in (word.partition("=") for word in arguments)}
    with AcmeServer(settings.CONTROLLER_ADDRESS, names) as server:
        root = settings.STATE / "acme-ca.crt"
        root.write_text(server.authority.root)
        print(f"simulated ACME server: {server.url}, its authority: {Path(root)}; Ctrl-C ends it", flush=True)
        threading.Event().wait()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
