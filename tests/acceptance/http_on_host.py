"""HTTP from the target host's point of view: ports on its loopback are not reachable from anywhere else.

`PROGRAM` runs on the host with its own Python (Ansible needs one there anyway), so the suite works over
SSH and with a local connection alike.
"""

from __future__ import annotations

import base64
import json
import uuid
from dataclasses import dataclass
from typing import Any

# Reads a list of requests (base64 of JSON) from its argument, prints a list of answers as JSON. Requests that want a
# key of the document service get one that is made for them here and revoked at the end, so that no command shows it.
PROGRAM = r"""
import base64, json, ssl, subprocess, sys, time, urllib.error, urllib.request
wanted_all = json.loads(base64.b64decode(sys.argv[1]))
answers = []

def keys(*arguments):
    command = ["docker", "exec", "pageindex", "pageindex-home", "keys", *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()

key_name = f"acceptance {time.time_ns()}"
needs_key = any(wanted["with_key"] for wanted in wanted_all)
secret = keys("create", key_name, "--scope", "admin", "--days", "1") if needs_key else ""
for wanted in wanted_all:
    body = base64.b64decode(wanted["body"]) if wanted["body"] is not None else None
    headers = {**wanted["headers"], **({"x-api-key": secret} if wanted["with_key"] else {})}
    request = urllib.request.Request(wanted["url"], body, headers, method=wanted["method"])
    handlers = [urllib.request.ProxyHandler({})]
    if wanted["authority"]:
        context = ssl.create_default_context(cafile=wanted["authority"])
        handlers.append(urllib.request.HTTPSHandler(context=context))
    opener = urllib.request.build_opener(*handlers)
    started = time.monotonic()
    answer = {"status": 0, "headers": {}, "body": "", "arrivals": [], "error": ""}
    try:
        try:
            response = opener.open(request, timeout=wanted["timeout"])
        except urllib.error.HTTPError as error:
            response = error
        answer["status"] = response.status
        answer["headers"] = {name.lower(): value for name, value in response.headers.items()}
        lines = []
        for line in response:
            lines.append(line)
            answer["arrivals"].append(round(time.monotonic() - started, 3))
        answer["body"] = b"".join(lines).decode("utf-8", "replace")
    except Exception as error:
        answer["error"] = f"{type(error).__name__}: {error}"
    answers.append(answer)
if secret:
    keys("revoke", key_name)
print(json.dumps(answers))
"""


@dataclass(frozen=True)
class Answer:
    """What came back. `status` is 0 and `error` says why when nothing did; `arrivals` are seconds per line."""

    method: str
    url: str
    status: int
    headers: dict[str, str]
    body: str
    arrivals: list[float]
    error: str

    def json(self) -> Any:
        """The body as JSON; an assertion with the whole answer when it is something else."""
        try:
            return json.loads(self.body)
        except ValueError:
            raise AssertionError(f"{self} is not JSON") from None

    def events(self) -> list[str]:
        """The data of a server-sent event stream, one entry an event."""
        return [line[6:] for line in self.body.splitlines() if line.startswith("data: ")]

    def __str__(self) -> str:
        return f"{self.method} {self.url} → {self.status} {self.error}{self.body[:600]}"


def request(
    url: str,
    *,
    method: str | None = None,
    json_body: Any = None,
    body: bytes | None = None,
    headers: dict[str, str] | None = None,
    timeout: float = 120,
    with_key: bool | None = None,
    authority: str | None = None,
) -> dict[str, Any]:
    """Describe one request for `PROGRAM`; `timeout` in seconds, `with_key` where it is not to go by the address.

    `authority` is a file on the host that is trusted instead of the system's authorities.
    """
    sent = dict(headers or {})
    if json_body is not None:
        body = json.dumps(json_body).encode()
        sent.setdefault("Content-Type", "application/json")
    described: dict[str, Any] = {} if with_key is None else {"with_key": with_key}
    return described | {
        "url": url,
        "method": method or ("GET" if body is None else "POST"),
        "headers": sent,
        "body": None if body is None else base64.b64encode(body).decode(),
        "timeout": timeout,
        "authority": authority,
    }


def multipart(
    name: str, content: bytes, media_type: str, field: str = "file"
) -> tuple[bytes, dict[str, str]]:
    """Return body and headers of a form upload with one file."""
    boundary = uuid.uuid4().hex
    head = (
        f"--{boundary}\r\n"
        f'Content-Disposition: form-data; name="{field}"; filename="{name}"\r\n'
        f"Content-Type: {media_type}\r\n\r\n"
    )
    body = head.encode() + content + f"\r\n--{boundary}--\r\n".encode()
    return body, {"Content-Type": f"multipart/form-data; boundary={boundary}"}


class HttpOnHost:
    """Sends requests from the target host; those to an address that begins with *keyed* with a key."""

    def __init__(self, host: Any, keyed: str = "") -> None:
        self._host = host
        self._keyed = keyed

    def send_all(self, requests: list[dict[str, Any]]) -> list[Answer]:
        """Send the requests one after the other, in one command on the host."""
        for wanted in requests:
            with_key = bool(self._keyed) and wanted["url"].startswith(self._keyed)
            wanted.setdefault("with_key", with_key)
        argument = base64.b64encode(json.dumps(requests).encode()).decode()
        output = self._host.check_output("python3 -c %s %s", PROGRAM, argument)
        return [
            Answer(method=sent["method"], url=sent["url"], **got)
            for sent, got in zip(requests, json.loads(output), strict=True)
        ]

    def send(self, url: str, **options: Any) -> Answer:
        """Send one request; the options are those of `request`."""
        return self.send_all([request(url, **options)])[0]
