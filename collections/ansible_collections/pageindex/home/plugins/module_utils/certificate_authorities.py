"""Additional certificate authorities in the system's own bundle, through update-ca-certificates."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ansible_collections.pageindex.home.plugins.module_utils.commands import Runner, run_command

PREFIX = "pageindex-home-"
UPDATE_SECONDS = 120


class AuthorityError(Exception):
    """The bundle could not be renewed; the message says what the program answered."""


@dataclass
class SystemAuthorities:
    """Where Debian and Ubuntu keep certificate authorities. Names are files without their ending."""

    runner: Runner = run_command
    sources: str = "/usr/local/share/ca-certificates"
    links: str = "/etc/ssl/certs"
    bundle: str = "/etc/ssl/certs/ca-certificates.crt"
    program: str = "/usr/sbin/update-ca-certificates"

    def path(self, name: str) -> str:
        """Where the source of one authority is."""
        return f"{self.sources}/{name}.crt"

    def files(self, wanted: Mapping[str, str]) -> list[dict[str, Any]]:
        """The sources of the wanted authorities, as `apply_file_set` takes them."""
        return [{"path": self.path(name), "content": pem, "mode": "0644"} for name, pem in sorted(wanted.items())]

    def stale_files(self, wanted: Mapping[str, str]) -> list[str]:
        """Sources of ours that are not wanted (any more)."""
        return [self.path(name) for name in self._ours(self.sources, ".crt") if name not in wanted]

    def missing(self, wanted: Mapping[str, str]) -> list[str]:
        """Wanted authorities that are not in the bundle."""
        try:
            with open(self.bundle, encoding="utf-8") as stream:
                text = stream.read()
        except FileNotFoundError:
            text = ""
        return [name for name, pem in sorted(wanted.items()) if pem.strip() not in text]

    def is_current(self, wanted: Mapping[str, str]) -> bool:
        """Whether the bundle holds the wanted authorities, and none of ours that is not wanted."""
        linked = self._ours(self.links, ".pem")
        return not self.missing(wanted) and linked == sorted(wanted)

    def renew(self, wanted: Mapping[str, str]) -> None:
        """Build the bundle anew. Raises AuthorityError when the wanted are not in it afterwards."""
        # Where a link of ours exists, the program would keep it, also when its file is gone or another one.
        fresh = ["--fresh"] if self._ours(self.links, ".pem") else []
        done = self.runner([self.program, *fresh], timeout=UPDATE_SECONDS)
        if done.returncode != 0:
            raise AuthorityError(f"update-ca-certificates failed: {done.explanation()}. Run it on the host to see why.")
        missing = self.missing(wanted)
        if missing:
            raise AuthorityError(
                f"update-ca-certificates ended well, but {', '.join(missing)} is not in {self.bundle}. "
                "Look for it in /etc/ca-certificates.conf (a line with ! leaves it out)."
            )

    @staticmethod
    def _ours(directory: str, ending: str) -> Sequence[str]:
        try:
            names = os.listdir(directory)
        except FileNotFoundError:
            return []
        return sorted(name.removesuffix(ending) for name in names if name.startswith(PREFIX) and name.endswith(ending))
