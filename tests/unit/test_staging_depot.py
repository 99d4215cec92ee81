"""The depot's server: package repositories, their faults and keys, with and without TLS; and the proxy's log."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from staging import proxy, settings
from tests.ports import free_port

SERVER = settings.REPOSITORY / "staging" / "depot" / "server.py"


class Depot:
    """A running server over a small cache."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port, self.tls_port = free_port(), free_port()

    def get(self, path: str, token: str = "") -> requests.Response:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        with requests.Session() as session:
            session.trust_env = False
            return session.get(f"http://127.0.0.1:{self.port}{path}", headers=headers, timeout=10)

    def faults(self, **repositories: dict[str, object]) -> None:
        (self.folder / "repository_faults.json").write_text(json.dumps(repositories))


@pytest.fixture(scope="module")
def depot(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Depot]:
    folder = tmp_path_factory.mktemp("depot")
    depot = Depot(folder)
    for repository in ("apt-driver-1", "apt-docker-1/dists/bookworm"):
        (folder / "cache" / repository).mkdir(parents=True)
        for signer in ("", ".second", ".both", ".expired"):
            (folder / "cache" / repository / f"InRelease{signer}").write_text(f"signed{signer}")
    for repository in ("apt-driver-1", "apt-docker-1"):
        for key in ("key", "second", "wrong"):
            (folder / "cache" / repository / f"{key}.asc").write_text(key)
    (folder / "cache" / "secret.key").write_text("secret")
    (folder / "repositories.json").write_text(json.dumps({"driver": "apt-driver-1", "docker": "apt-docker-1"}))
    for name in ("wheels", "hub", "certificates"):
        (folder / name).mkdir()
    certificates = folder / "certificates"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "1",
         "-keyout", str(certificates / "server.key"), "-out", str(certificates / "server.crt")],
        check=True, capture_output=True,
    )  # fmt: skip
    paths = [certificates, folder / "cache", folder / "repositories.json", folder / "repository_faults.json",
             folder / "wheels", folder / "hub", folder / "log", folder / "faults.json"]  # fmt: skip
    command = [sys.executable, str(SERVER), str(depot.port), str(depot.tls_port), *map(str, paths)]
    process = subprocess.Popen(command)
    try:
        deadline = time.monotonic() + 20
        while True:
            try:
                depot.get("/healthz")
                break
            except requests.ConnectionError:
                assert time.monotonic() < deadline and process.poll() is None
                time.sleep(0.05)
        yield depot
    finally:
        process.terminate()
        process.wait(10)


def test_repositories_and_their_other_addresses(depot: Depot) -> None:
    depot.faults()
    assert depot.get("/driver/InRelease").text == depot.get("/toolkit/InRelease").text == "signed"
    assert depot.get("/docker/gpg").text == depot.get("/docker/key.asc").text == "key"
    assert depot.get("/docker/dists/bookworm/InRelease").text == "signed"
    assert [depot.get(path).status_code for path in ("/driver/none", "/ubuntu/key.asc")] == [404, 404]
    assert depot.get("/driver/..%2Fsecret.key").status_code == 404


def test_faults_belong_to_one_repository(depot: Depot) -> None:
    depot.faults(docker={"signed_by": "second", "key": "wrong"}, toolkit={"down": True})
    assert depot.get("/docker/dists/bookworm/InRelease").text == "signed.second"
    assert depot.get("/docker/gpg").text == "wrong"
    assert depot.get("/toolkit/InRelease").status_code == 503
    assert depot.get("/driver/InRelease").text == "signed"


def test_a_changed_file_is_not_continued(depot: Depot) -> None:
    def ask(headers: dict[str, str]) -> tuple[int, str]:
        url = f"http://127.0.0.1:{depot.port}/driver/key.asc"
        with requests.Session() as session:
            session.trust_env = False
            answer = session.get(url, headers=headers, timeout=10)
            return answer.status_code, answer.text

    assert ask({"Range": "bytes=1-"}) == (206, "ey")
    assert ask({"Range": "bytes=1-", "If-Range": "Sat, 21 Nov 2026 10:00:00 GMT"}) == (200, "key")


def test_a_gated_repository_needs_its_token(depot: Depot) -> None:
    for repository in ("us/open", "us/gated"):
        (depot.folder / "hub" / repository).mkdir(parents=True)
        (depot.folder / "hub" / repository / "config.json").write_text("{}")
    (depot.folder / "hub" / "gated.json").write_text('{"us/gated": "hf_right"}')
    page = "/us/gated/resolve/main/config.json"
    assert depot.get("/us/open/resolve/main/config.json").text == "{}"
    assert (depot.get(page).status_code, depot.get(page, "hf_other").status_code) == (401, 403)
    assert depot.get(page).headers["X-Error-Code"] == "GatedRepo"
    assert depot.get(page, "hf_right").text == "{}"
    # As on the real hub, everybody may see what it consists of, and that it is gated.
    described = {name: depot.get(f"/api/models/us/{name}/revision/main").json()["gated"] for name in ("open", "gated")}
    assert described == {"open": False, "gated": "manual"}
    assert depot.get("/api/models/us/gated/tree/main").status_code == 200


def test_tls_needs_the_authority(depot: Depot) -> None:
    depot.faults()
    url = f"https://127.0.0.1:{depot.tls_port}/driver/key.asc"
    with requests.Session() as session:
        session.trust_env = False
        with pytest.raises(requests.exceptions.SSLError):
            session.get(url, timeout=10)
        authority = depot.folder / "certificates" / "server.crt"
        assert session.get(url, timeout=10, verify=str(authority)).text == "key"


def test_the_proxy_log() -> None:
    request = proxy.parse("1795258734.531 172.31.250.12 200 CONNECT apt.staging.test:443 staging")
    assert (request.status, request.method, request.target) == (200, "CONNECT", "apt.staging.test:443")
    assert request.user == "staging" and proxy.parse("1.0 - 407 GET http://a/ -").user == ""
    assert proxy.PASSWORD not in proxy.URL_WITH_PASSWORD, "it needs characters that a URL has to escape"
