"""The host's settings file, and how our own downloads follow it."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.pageindex.home.plugins.module_utils import download_environment, host_job

SETTINGS = {"http_proxy": "http://u:p$w%25@proxy.example:3128", "no_proxy": "localhost,10.0.0.0/8,.corp.example"}


class _Answer(http.server.BaseHTTPRequestHandler):
    asked: list[tuple[str, str | None]]

    def do_GET(self) -> None:
        self.asked.append((self.path, self.headers.get("Proxy-Authorization")))
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, format: str, *arguments: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[tuple[str, list[tuple[str, str | None]]]]:
    """A server that answers everything, also as a proxy: its host:port, and what it was asked."""
    asked: list[tuple[str, str | None]] = []
    handler = type("Handler", (_Answer,), {"asked": asked})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{running.server_port}", asked
        running.shutdown()


@pytest.fixture(autouse=True)
def no_other_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in host_job.NETWORK_VARIABLES:
        monkeypatch.delenv(name, raising=False)


def test_the_file_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "downloads.env"
    path.write_text("# comment\n" + "".join(f'{name}="{value}"\n' for name, value in SETTINGS.items()) + "broken\n")
    assert download_environment.read(str(path)) == SETTINGS
    assert download_environment.read(str(tmp_path / "none")) == {}


def test_addresses_in_a_network_are_named_for_programs_that_know_no_networks() -> None:
    urls = ["http://10.2.3.4:8080/x", "https://hub.example", "http://192.168.0.1/", "http://10.2.3.4/again"]
    result = download_environment.with_exceptions({**SETTINGS, "NO_PROXY": SETTINGS["no_proxy"]}, urls)
    assert result["no_proxy"] == result["NO_PROXY"] == SETTINGS["no_proxy"] + ",10.2.3.4"
    assert download_environment.with_exceptions({}, urls) == {}


def test_an_opener_goes_through_the_proxy_with_its_login(server: tuple[str, list[tuple[str, str | None]]]) -> None:
    address, asked = server
    settings = {"http_proxy": f"http://u:p%25@{address}", "no_proxy": "localhost"}
    url = "http://keys.example/key.asc"
    assert download_environment.opener(url, settings).open(url, timeout=5).read() == b"ok"
    assert asked == [(url, "Basic dTpwJQ==")]


@pytest.mark.parametrize("entry", ["127.0.0.0/8", "127.0.0.1", "other,127.0.0.1"])
def test_an_opener_goes_past_the_proxy_for_an_exception(
    server: tuple[str, list[tuple[str, str | None]]], entry: str
) -> None:
    address, asked = server
    settings = {"http_proxy": "http://127.0.0.1:1", "no_proxy": entry}
    url = f"http://{address}/key.asc"
    assert download_environment.opener(url, settings).open(url, timeout=5).read() == b"ok"
    assert asked == [("/key.asc", None)]


@pytest.mark.parametrize(
    ("host", "matches"),
    [("a.corp.example", True), ("corp.example", True), ("xcorp.example", False), ("localhost", True), ("other", False)],
)
def test_names_match_whole_parts(host: str, matches: bool) -> None:
    assert download_environment._matches(host, f"{host}:80", SETTINGS["no_proxy"].split(",")) is matches


def test_a_job_gets_the_hosts_settings_in_its_secret_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "downloads.env"
    path.write_text("".join(f'{name}="{value}"\n' for name, value in SETTINGS.items()))
    monkeypatch.setattr(download_environment, "read", lambda: json.loads(json.dumps(SETTINGS)))
    monkeypatch.setenv("https_proxy", "http://from-the-environment:1")
    found = host_job._network_environment({"endpoint": "http://10.9.9.9", "patience": 3})
    assert found["http_proxy"] == SETTINGS["http_proxy"] and found["no_proxy"].endswith(",10.9.9.9")
    assert "https_proxy" not in found
    monkeypatch.setattr(download_environment, "read", dict)
    assert host_job._network_environment({})["https_proxy"] == "http://from-the-environment:1"
