"""A real HTTP proxy on the staging network, for hosts that have no other way out."""

from __future__ import annotations

import socket
import time
import urllib.parse
from dataclasses import dataclass

from staging import images, network, settings
from staging.steps import StepFailed, run, step

USER, PASSWORD = "staging", "proxy-4711@word"
# Anyone may use the first; the second asks for the name and the password above.
URL = f"http://{settings.PROXY_ADDRESS}:3128"
URL_WITH_PASSWORD = f"http://{USER}:{urllib.parse.quote(PASSWORD, safe='')}@{settings.PROXY_ADDRESS}:3129"

_CONFIGURATION = """
http_port 3128 name=open
http_port 3129 name=password
auth_param basic program /usr/lib/squid/basic_ncsa_auth /etc/staging-proxy/users
auth_param basic realm staging
acl password_port myportname password
acl known proxy_auth REQUIRED
http_access deny password_port !known
http_access allow all
cache deny all
logformat staging %ts.%03tu %>a %>Hs %rm %ru %[un
access_log stdio:/var/log/staging-proxy/access.log logformat=staging
cache_log /dev/null
pid_filename none
shutdown_lifetime 1 second
max_filedescriptors 4096
"""


@dataclass(frozen=True)
class Request:
    """One line of the proxy's log; `target` is an address, or HOST:PORT of a CONNECT. `time` in seconds (Unix)."""

    time: float
    client: str
    status: int
    method: str
    target: str
    user: str


def ensure() -> None:
    """Start the proxy, with an empty log; builds its image when it is missing. Raises StepFailed."""
    images.build(images.proxy())
    network.ensure()
    folder = settings.PROXY_LOG.parent
    folder.mkdir(parents=True, exist_ok=True)
    # Squid writes as a user of its own.
    folder.chmod(0o777)
    configuration, users = folder / "squid.conf", folder / "users"
    configuration.write_text(_CONFIGURATION)
    users.write_text(f"{USER}:{run(['openssl', 'passwd', '-apr1', PASSWORD]).strip()}\n")
    with step("proxy"):
        network.start(
            settings.PROXY_NAME, images.proxy().local_name, settings.PROXY_ADDRESS, ["proxy.staging.test"],
            {configuration: "/etc/squid/squid.conf:ro", users: "/etc/staging-proxy/users:ro",
             folder: "/var/log/staging-proxy"},
            command=["squid", "--foreground", "-f", "/etc/squid/squid.conf"], init=True,
        )  # fmt: skip
        _wait()
    clear_log()


def _wait(seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection((settings.PROXY_ADDRESS, 3129), timeout=2).close()
            return
        except OSError as error:
            if time.monotonic() > deadline:
                raise StepFailed(
                    f"the proxy does not answer after {seconds:.0f} s: {error}; see `docker logs {settings.PROXY_NAME}`"
                ) from error
            time.sleep(0.2)


def remove() -> None:
    """Take the proxy away."""
    network.remove(settings.PROXY_NAME)


def clear_log() -> None:
    """Forget the requests so far."""
    if settings.PROXY_LOG.exists():
        # The proxy keeps the file open and appends.
        with settings.PROXY_LOG.open("r+b") as log:
            log.truncate(0)


def log() -> list[Request]:
    """Return the finished requests since the start or clear_log, oldest first."""
    if not settings.PROXY_LOG.exists():
        return []
    return [parse(line) for line in settings.PROXY_LOG.read_text(errors="replace").splitlines()]


def parse(line: str) -> Request:
    """Return the request of one line of the log."""
    moment, client, status, method, target, user = line.lstrip("\0").split()
    return Request(float(moment), client, int(status), method, target, "" if user == "-" else user)
