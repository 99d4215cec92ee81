"""Ports for servers of tests, which other tests may run beside."""

from __future__ import annotations

import random
import socket


def free_port(kind: socket.SocketKind = socket.SOCK_STREAM) -> int:
    """A port that nobody uses just now, at none of the machine's addresses, and that the kernel gives to no client.

    One that the kernel chose could be given to somebody else before the server takes it.
    """
    for _ in range(100):
        port = random.SystemRandom().randrange(20_000, 32_000)  # below Linux's range for clients
        with socket.socket(socket.AF_INET, kind) as probe:
            try:
                probe.bind(("", port))
            except OSError:
                continue
            return port
    raise AssertionError("no free port between 20000 and 32000")
