"""What Docker says about the containers of the stack, and commands inside them."""

from __future__ import annotations

import json
from typing import Any

# A shell is not in every image and Python not in the gateway's, so a program names its interpreter.
CONNECT = r"""
import json, socket, sys
results = {}
for target in json.loads(sys.argv[1]):
    try:
        socket.create_connection(tuple(target), timeout=4).close()
        results["%s:%d" % tuple(target)] = "connected"
    except OSError as error:
        results["%s:%d" % tuple(target)] = "%s: %s" % (type(error).__name__, error)
print(json.dumps(results))
"""

# On the host: a service on all addresses for as long as it is asked, by the host itself and from a container.
LISTEN = r"""
import json, socket, subprocess, sys
container, addresses, connect = sys.argv[1], json.loads(sys.argv[2]), sys.argv[3]
with socket.create_server(("0.0.0.0", 0)) as server:
    targets = json.dumps([[address, server.getsockname()[1]] for address in addresses])
    for inside in ([], ["docker", "exec", container]):
        tried = [*inside, "python3", "-c", connect, targets]
        print(subprocess.run(tried, stdout=subprocess.PIPE, text=True, check=True).stdout.strip())
"""


class Containers:
    """The running containers of one host, inspected once, by the names that the suite has for them.

    `services` has the name on the host of each: the model server runs in one of two services.
    """

    def __init__(self, host: Any, services: dict[str, str]) -> None:
        self._host = host
        self.services = services
        self.names = tuple(services)
        found = host.run("docker inspect" + " %s" * len(services), *services.values())
        self.inspected: dict[str, dict[str, Any]] = {
            entry["Name"].removeprefix("/"): entry for entry in json.loads(found.stdout or "[]")
        }

    def __getitem__(self, name: str) -> dict[str, Any]:
        service = self.services[name]
        assert service in self.inspected, (
            f"there is no container {service}; see: systemctl status pageindex-home@{service}.service"
        )
        return self.inspected[service]

    def python(self, name: str, program: str, *arguments: str) -> str:
        """Run a Python program inside the container; an assertion with its output when it fails."""
        command = "docker exec %s python3 -c %s" + " %s" * len(arguments)
        result = self._host.run(command, self.services[name], program, *arguments)
        assert result.rc == 0, f"in container {self.services[name]}: {result.stdout}{result.stderr}"
        return result.stdout

    def connections(self, name: str, targets: list[tuple[str, int]]) -> dict[str, str]:
        """Try TCP connections from inside; returns "HOST:PORT" → "connected" or the error."""
        return json.loads(self.python(name, CONNECT, json.dumps(targets)))
