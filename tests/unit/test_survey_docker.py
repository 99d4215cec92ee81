"""What is read about Docker, from a made-up host and a made-up daemon."""

from __future__ import annotations

import json
import socketserver
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from ansible_collections.pageindex.home.plugins.module_utils.commands import CommandResult, Runner
from ansible_collections.pageindex.home.plugins.module_utils.survey import docker
from ansible_collections.pageindex.home.plugins.module_utils.survey.request import SurveyRequest

UNIT = """\
ActiveState=active
ExecStart={ path=/sbin/dockerd ; argv[]=/sbin/dockerd -H fd:// --log-driver journald $DOCKER_OPTS ; ignore_errors=no ; }
FragmentPath=/usr/lib/systemd/system/docker.service
DropInPaths=/etc/systemd/system/docker.service.d/a.conf
Environment=
EnvironmentFiles=/etc/default/docker (ignore_errors=yes)
"""


def shown(text: str) -> Runner:
    return lambda arguments, timeout=0: CommandResult(0, text, "")


class Daemon(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """Answers like dockerd."""

    daemon_threads = True
    documents: ClassVar[dict[str, Any]] = {
        "/info": {
            "ServerVersion": "29.1.3",
            "Driver": "overlayfs",
            "DockerRootDir": "/var/lib/docker",
            "CDISpecDirs": ["/etc/cdi"],
            "LiveRestoreEnabled": True,
            "SecurityOptions": ["name=seccomp"],
        },
        "/containers/json": [
            {
                "Id": "a" * 64,
                "Names": ["/gateway"],
                "Image": "pageindex-home/gateway:1",
                "Labels": {"com.docker.compose.project": "gateway", "pageindex-home.config-hash": "1"},
                "Ports": [{"PublicPort": 8000, "PrivatePort": 8000}, {"PrivatePort": 9000}],
            }
        ],
        "/images/json": [{"RepoTags": ["pageindex-home/vllm:1"], "Size": 3 << 30}, {"RepoTags": None, "Size": 1}],
    }


class Handler(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        path = self.rfile.readline().decode().split()[1]
        body = json.dumps(Daemon.documents[path]).encode()
        self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s" % (len(body), body))


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Path]:
    """A host whose daemon answers."""
    (tmp_path / "run").mkdir()
    (tmp_path / "etc/docker").mkdir(parents=True)
    with Daemon(str(tmp_path / "run/docker.sock"), Handler) as daemon:
        threading.Thread(target=daemon.serve_forever, daemon=True).start()
        yield tmp_path
        daemon.shutdown()


def test_the_daemon_is_asked_itself(host: Path) -> None:
    seen = docker.survey(SurveyRequest(), str(host), shown(UNIT))
    assert seen["engine"]["version"] == "29.1.3"
    assert seen["engine"]["live_restore"] is True
    assert seen["containers"] == [
        {
            "id": "a" * 64,
            "name": "gateway",
            "image": "pageindex-home/gateway:1",
            "project": "gateway",
            "ours": True,
            "ports": [8000],
        }
    ]
    assert seen["images"] == [{"names": ["pageindex-home/vllm:1"], "size_mib": 3072}]


def test_a_stopped_daemon_is_not_started_by_asking(host: Path) -> None:
    seen = docker.survey(SurveyRequest(), str(host), shown(UNIT.replace("=active", "=inactive")))
    assert (seen["engine"], seen["containers"], seen["images"]) == (None, None, None)


def test_options_of_the_command_line(host: Path) -> None:
    (host / "etc/default").mkdir()
    (host / "etc/default/docker").write_text(
        '# comment\nDOCKER_OPTS="--dns 9.9.9.9 -H tcp://0.0.0.0:2375 --http-proxy=http://me:secret@proxy:3128"\n'
    )
    unit = docker.survey(SurveyRequest(), str(host), shown(UNIT))["unit"]
    assert unit == {
        "active": True,
        "path": "/usr/lib/systemd/system/docker.service",
        "drop_ins": ["/etc/systemd/system/docker.service.d/a.conf"],
        "environment_files": ["/etc/default/docker"],
        "options": ["dns", "hosts", "http-proxy", "log-driver"],
        "hosts": ["fd://", "tcp://0.0.0.0:2375"],
    }


def test_names_of_options_in_the_file() -> None:
    words = (
        "--debug --log-opt max-size=1m --log-opt=max-file=2 --insecure-registry a:5000 -g /srv --iptables=false".split()
    )
    assert docker.daemon_options(words) == {
        "debug": [""],
        "log-opts": ["max-size=1m", "max-file=2"],
        "insecure-registries": ["a:5000"],
        "data-root": ["/srv"],
        "iptables": ["false"],
    }


@pytest.mark.parametrize(
    ("text", "error", "keys"),
    [
        ('{"log-driver": "journald", "runtimes": {"nvidia": {}}}', None, ["log-driver", "runtimes"]),
        ("", None, []),
        ('{"a": 1,}', "Expecting property name", []),
        ("[]", "a JSON list", []),
    ],
)
def test_daemon_file(tmp_path: Path, text: str, error: str | None, keys: list[str]) -> None:
    assert docker.daemon_file(str(tmp_path)) == {"present": False, "error": None, "keys": [], "settings": {}}
    (tmp_path / "etc/docker").mkdir(parents=True)
    (tmp_path / "etc/docker/daemon.json").write_text(text)
    found = docker.daemon_file(str(tmp_path))
    assert (found["present"], found["keys"]) == (True, keys)
    assert (found["error"] is None) == (error is None)
    assert error is None or error in found["error"] or "Illegal trailing comma" in found["error"]
    assert found["settings"].get("runtimes", ["nvidia"]) == ["nvidia"]


def test_a_host_without_docker(tmp_path: Path) -> None:
    seen = docker.survey(SurveyRequest(), str(tmp_path), shown("FragmentPath=\nActiveState=inactive\n"))
    assert (seen["unit"], seen["engine"], seen["containers"], seen["rootless_sockets"]) == (None, None, None, [])
