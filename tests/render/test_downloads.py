"""What a host is told about proxies and authorities: nothing by default, everything once when they are set."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.render.rendering import CASES, Rendered, render

PASSWORD = "not-a-real-password"
ALL_CASES = [
    pytest.param(inventory, name, id=f"{inventory}-{name}") for inventory in CASES for name in CASES[inventory]
]


def settings(case: Rendered) -> dict[str, Any]:
    """The arguments of the one call that configures downloads."""
    [arguments] = case.arguments("download_settings")
    return arguments


@pytest.fixture(scope="module")
def everything() -> Rendered:
    return render("home")[0]["every_option"]


def text(case: Rendered, ending: str) -> str:
    [content] = [file["content"] for file in settings(case)["files"] if file["path"].endswith(ending)]
    return str(content)


@pytest.mark.parametrize(("inventory", "name"), ALL_CASES)
def test_without_settings_nothing_is_written(inventory: str, name: str) -> None:
    if name == "every_option":
        return
    found = settings(render(inventory)[0][name])
    assert [file["path"] for file in found["files"] if file["wanted"]] == []
    assert found["certificate_authorities"] == {}


def test_the_password_is_only_in_files_that_only_root_reads(everything: Rendered) -> None:
    holders = [file for file in settings(everything)["files"] if PASSWORD in file["content"]]
    assert len(holders) == 2
    assert all((file["mode"], file["secret"]) == ("0600", True) for file in holders)
    others = [(name, arguments) for name, arguments in everything.calls if name != "download_settings"]
    assert PASSWORD not in json.dumps([call for call in others if call[0] != "host_survey"])


def test_apt_is_told_of_the_proxy_and_its_login_apart(everything: Rendered) -> None:
    proxy = "http://proxy.example.test:3128"
    lines = text(everything, "apt.conf.d/90pageindex-home-downloads").splitlines()
    assert f'Acquire::http::Proxy "{proxy}";' in lines and f'Acquire::https::Proxy "{proxy}";' in lines
    assert 'Acquire::https::Proxy::mirror.example.test "DIRECT";' in lines
    login = text(everything, "auth.conf.d/90pageindex-home-downloads.conf")
    assert f"machine {proxy} login me@home password {PASSWORD}\n" in login


def test_docker_reads_the_file_that_only_root_reads(everything: Rendered) -> None:
    drop_in = text(everything, "docker.service.d/pageindex-home-downloads.conf").splitlines()
    assert drop_in[-2:] == ["[Service]", "EnvironmentFile=-/etc/pageindex-home/downloads.env"]
    environment = text(everything, "downloads.env")
    assert f'HTTPS_PROXY="http://me%40home:{PASSWORD}@proxy.example.test:3128"\n' in environment
    assert 'SSL_CERT_FILE="/etc/ssl/certs/ca-certificates.crt"\n' in environment
    [exceptions] = [line for line in environment.splitlines() if line.startswith("no_proxy=")]
    for entry in ("localhost", "vllm", "pageindex", "gateway", "172.17.0.0/16", ".corp.example.test", "10.0.0.0/8"):
        assert entry in exceptions


def test_docker_restarts_when_its_proxy_changes(everything: Rendered) -> None:
    [docker] = everything.arguments("docker_service")
    for file in settings(everything)["files"]:
        if "docker.service.d" in file["path"] or file["path"].endswith(".env"):
            assert file["path"] in docker["newer_than"] or file["path"].rpartition("/")[0] in docker["newer_than"]


def test_the_authority_is_one_file(everything: Rendered) -> None:
    assert list(settings(everything)["certificate_authorities"]) == ["pageindex-home-example"]


def test_containers_that_run_know_no_proxy(everything: Rendered) -> None:
    for path, content in everything.files.items():
        if path.endswith("/compose.yml"):
            assert "proxy.example.test" not in content and "_PROXY" not in content.upper().replace("NO_PROXY", "")
