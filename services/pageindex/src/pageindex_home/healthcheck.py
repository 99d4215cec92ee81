"""Probe from inside the container: ``python -m pageindex_home.healthcheck [/readyz]``; exit 0 on 200."""

from __future__ import annotations

import http.client
import os
import sys


def main() -> int:
    """Print the answer and tell whether it was 200; gives up after 10 s."""
    path = sys.argv[1] if len(sys.argv) > 1 else "/healthz"
    connection = http.client.HTTPConnection(
        "127.0.0.1", int(os.environ.get("PAGEINDEX_LISTEN_PORT", "3000")), timeout=10
    )
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        print(response.read().decode("utf-8", "replace"))
        return 0 if response.status == 200 else 1
    except OSError as error:
        print(f"{path}: {error}", file=sys.stderr)
        return 1
    finally:
        connection.close()


if __name__ == "__main__":
    sys.exit(main())
