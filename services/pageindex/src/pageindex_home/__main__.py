"""Start the service: ``python -m pageindex_home``."""

from __future__ import annotations

import logging
import os
import sys
import tempfile

import uvicorn

from .api import create_app
from .settings import Settings, SettingsError
from .store import incoming_directory


def main() -> int:
    """Serve until SIGTERM; exit status 2 when the settings are wrong."""
    try:
        settings = Settings.from_environment(os.environ)
    except SettingsError as error:
        print(f"pageindex-home: {error}", file=sys.stderr)
        return 2
    logging.basicConfig(
        level=settings.log_level.upper(), format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr
    )
    logging.getLogger("httpx").setLevel(logging.WARNING)
    # Starlette spools uploads to the temporary directory; a container's /tmp is memory.
    tempfile.tempdir = str(incoming_directory(settings.data_directory))
    uvicorn.run(
        create_app(settings),
        host=settings.listen_address,
        port=settings.listen_port,
        log_level=settings.log_level.lower(),
        access_log=False,  # paths hold document ids; counts are in /metrics
        timeout_graceful_shutdown=8,
        server_header=False,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
