"""In which services a deployment runs, and in which order its servers take the place of those before.

A deployment is one server, or several replicas, each in a service and on cards of its own. Standard library only: the
program on the host reads it too.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

# Tells Compose which cards a server has; everything else is the same for all replicas.
CARDS_FILE = ".env"


@dataclass(frozen=True)
class Server:
    """A service (unit, folder and container have its name) and the cards of its server; none on a processor."""

    service: str
    gpus: tuple[int, ...] = ()

    def shares_cards_with(self, gpus: Sequence[int]) -> bool:
        """Whether both cannot run at once; on a processor they would share it."""
        return not gpus or not self.gpus or bool(set(gpus) & set(self.gpus))

    def files(self, files: Mapping[str, str]) -> dict[str, str]:
        """A deployment's files as they lie in the folder of this server."""
        cards = "".join(f"CARD_{number}={gpu}\n" for number, gpu in enumerate(self.gpus))
        return {**files, CARDS_FILE: f"# The cards of this server.\n{cards}"}

    def as_dict(self) -> dict[str, Any]:
        """For the state."""
        return {"service": self.service, "gpus": list(self.gpus)}


@dataclass(frozen=True)
class Step:
    """One server of the new deployment: the services that are stopped for it, and where it starts."""

    server: Server
    stops: tuple[str, ...] = field(default=())

    def as_dict(self) -> dict[str, Any]:
        """For the state."""
        return asdict(self)

    @staticmethod
    def from_dict(found: Mapping[str, Any]) -> Step:
        """From the state."""
        return Step(_server(found["server"]), tuple(found["stops"]))


def _server(found: Mapping[str, Any]) -> Server:
    return Server(str(found["service"]), tuple(found.get("gpus") or ()))


def servers_of(deployment: Mapping[str, Any] | None, slots: Sequence[str]) -> list[Server]:
    """The servers of a deployment of the state, none where there is no deployment.

    States from before there were replicas name one service, or none where there was but one.
    """
    if deployment is None:
        return []
    if deployment.get("servers"):
        return [_server(found) for found in deployment["servers"]]
    return [Server(str(deployment.get("service") or slots[0]), tuple(deployment["record"].get("gpus") or ()))]


def replicas_of(record: Mapping[str, Any]) -> list[tuple[int, ...]]:
    """The cards of each replica that a record asks for."""
    replicas = record.get("replicas") or [record.get("gpus") or []]
    return [tuple(gpus) for gpus in replicas]


def rollout(
    record: Mapping[str, Any],
    before: Sequence[Server],
    slots: Sequence[str],
    beside: bool = True,
    down: Collection[str] = (),
) -> list[Step]:
    """The steps that bring the replicas of a record about, where the servers of `before` run.

    Each new server waits for no more than it has to: those with which it shares a card are stopped for it, and it takes
    the place of the first of them. One that shares no card starts in a free service, while the others serve, unless
    `beside` is false or there is no free service: then one of them is stopped for it all the same. So replicas are
    exchanged one at a time, and a single server on a free card starts beside the one that serves. Services that are
    `down` have nobody to lose; those that are in `before` and in no slot were taken out of the inventory, and are left.
    """
    serving = [server for server in before if server.service not in down]
    # Those that stop nobody who serves come first: then somebody serves while the others take their turn.
    replicas = sorted(replicas_of(record), key=lambda gpus: any(server.shares_cards_with(gpus) for server in serving))
    left = list(before)
    free = [slot for slot in slots if slot not in {server.service for server in before}]
    steps = []
    for gpus in replicas:
        stopped = [server for server in left if server.shares_cards_with(gpus)]
        if not stopped and left and not (beside and free):
            stopped = sorted(left, key=lambda server: server in serving)[:1]
        if not free and not any(server.service in slots for server in stopped):
            # What is stopped runs where nothing may run any more.
            stopped += [server for server in left if server not in stopped and server.service in slots][:1]
        left = [server for server in left if server not in stopped]
        names = [server.service for server in stopped]
        free = [name for name in names if name in slots] + free
        steps.append(Step(Server(free.pop(0), gpus), tuple(names)))
    return steps
