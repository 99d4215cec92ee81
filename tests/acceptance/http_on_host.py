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

# Reads a list of requests (base64 of JSON) from its argument, prints a list of answers as JSON.
PROGRAM = r"""
import base64, json, sys, time, urllib.error, urllib.request
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
answers = []
for wanted in json.loads(base64.b64decode(sys.argv[1])):
    body = base64.b64decode(wanted["body"]) if wanted["body"] is not None else None
    request = urllib.request.Request(wanted["url"], body, wanted["headers"], method=wanted["method"])
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
) -> dict[str, Any]:
    """Describe one request for `PROGRAM`; `timeout` in seconds."""
    sent = dict(headers or {})
    if json_body is not None:
        body = json.dumps(json_body).encode()
        sent.setdefault("Content-Type", "application/json")
    return {
        "url": url,
        "method": method or ("GET" if body is None else "POST"),
        "headers": sent,
        "body": None if body is None else base64.b64encode(body).decode(),
        "timeout": timeout,
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
    """Sends requests from the target host."""

    def __init__(self, host: Any) -> None:
        self._host = host

    def send_all(self, requests: list[dict[str, Any]]) -> list[Answer]:
        """Send the requests one after the other, in one command on the host."""
        argument = base64.b64encode(json.dumps(requests).encode()).decode()
        output = self._host.check_output("python3 -c %s %s", PROGRAM, argument)
        return [
            Answer(method=sent["method"], url=sent["url"], **got)
            for sent, got in zip(requests, json.loads(output), strict=True)
        ]

    def send(self, url: str, **options: Any) -> Answer:
        """Send one request; the options are those of `request`."""
        return self.send_all([request(url, **options)])[0]
