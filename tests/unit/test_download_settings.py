"""Proxies and authorities of the inventory → what each program is told, and what is refused."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import pytest

from ansible_collections.pageindex.home.plugins.module_utils.download_settings import (
    plan,
    without_credentials,
)
from tests.unit.certificates import certificate

PROXY = "http://proxy.example:3128"
WITH_LOGIN = "http://me%40home:p%25ss%3A@proxy.example:3128"


def problems(**variables: Any) -> str:
    found = plan(variables)
    assert found.environment == {} and found.certificate_authorities == {} and not found.active
    return "\n".join(found.problems)


def test_nothing_set_is_nothing_to_do() -> None:
    found = plan({"http_proxy": "", "https_proxy": "", "no_proxy": [], "certificate_authorities": {}})
    assert (found.problems, found.active, found.environment, found.apt_direct) == ([], False, {}, [])
    assert found.proxies == {"http": "", "https": "", "no_proxy": ""}


def test_every_program_gets_its_own_form() -> None:
    found = plan(
        {
            "http_proxy": PROXY,
            "https_proxy": PROXY + "/",
            "no_proxy": ["*.corp.example", "mirror.example", "10.0.0.0/8", "10.1.1.1", "host.example:8080"],
            "container_addresses": ["vllm", "172.17.0.0/16"],
        }
    )
    assert found.problems == []
    exceptions = (
        "localhost,127.0.0.1,::1,vllm,172.17.0.0/16,.corp.example,mirror.example,10.0.0.0/8,10.1.1.1,host.example:8080"
    )
    assert found.environment == {
        "http_proxy": PROXY,
        "HTTP_PROXY": PROXY,
        "https_proxy": PROXY + "/",
        "HTTPS_PROXY": PROXY + "/",
        "no_proxy": exceptions,
        "NO_PROXY": exceptions,
    }
    assert found.apt_proxies == {"http": PROXY, "https": PROXY}
    assert found.apt_direct == ["localhost", "127.0.0.1", "vllm", "mirror.example", "10.1.1.1"]
    assert found.apt_logins == []


def test_the_login_reaches_apt_in_clear_and_only_in_its_own_file() -> None:
    found = plan({"http_proxy": WITH_LOGIN, "https_proxy": WITH_LOGIN})
    assert found.environment["http_proxy"] == WITH_LOGIN
    assert found.apt_proxies == {"http": PROXY, "https": PROXY}
    assert found.apt_logins == [{"machine": PROXY, "login": "me@home", "password": "p%ss:"}]


def test_one_protocol_alone() -> None:
    found = plan({"https_proxy": PROXY})
    assert "http_proxy" not in found.environment and found.apt_proxies == {"https": PROXY}
    assert found.proxies == {"http": "", "https": PROXY, "no_proxy": "localhost,127.0.0.1,::1"}


def test_authorities_become_one_file_each() -> None:
    one, two, three = certificate("one"), certificate("two"), certificate("three")
    found = plan({"certificate_authorities": {"corp": "a comment\n" + one + "\n" + two, "lab": three.strip()}})
    assert found.problems == []
    assert found.certificate_authorities == {
        "pageindex-home-corp": one,
        "pageindex-home-corp-2": two,
        "pageindex-home-lab": three,
    }
    assert found.environment == {"SSL_CERT_FILE": "/etc/ssl/certs/ca-certificates.crt"}
    assert found.active and found.apt_proxies == {} and found.apt_direct == []
    other = plan({"certificate_authorities": {"corp": one}})
    assert len(found.certificate_authorities_digest) == 64
    assert other.certificate_authorities_digest != found.certificate_authorities_digest


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("proxy.example:3128", "not the URL of a proxy"),
        ("socks5://proxy.example:1080", "SOCKS"),
        ("https://proxy.example:3128", "speak TLS to a proxy"),
        ("http://proxy.example", "names no port"),
        ("http://proxy.example:0", "names no port"),
        ("http://proxy.example:99999", "not a URL"),
        ("http://[::1:3128", "not a URL"),
        ("http://proxy.example:3128/path", "nothing may follow the port"),
        ("http://proxy.example:3128?x", "nothing may follow the port"),
        ("http://proxy .example:3128", "a blank, a quote"),
        ('http://proxy.example:3128"', "a blank, a quote"),
        ("http://proxy.example:3128\nACQUIRE", "a blank, a quote"),
        ("http://user@proxy.example:3128", "no password before the @"),
        ("http://:pass@proxy.example:3128", "no user before the @"),
        ("http://user:a%20b@proxy.example:3128", "with a blank"),
        ("http://user:%23b@proxy.example:3128", "leading #"),
    ],
)
def test_what_is_no_proxy_is_refused_with_what_was_expected(url: str, words: str) -> None:
    said = problems(http_proxy=url)
    assert words in said and said.startswith("downloads_http_proxy")
    assert "expected http://HOST:PORT" in said or "administrator" in said


@pytest.mark.parametrize(
    "url",
    ["socks5://u:s3cret@p.example:1", "http://u:s3cret@p.example", "http://u:s3cret@p:1/x", "http://u:s3 cret@p:1"],
)
def test_no_problem_shows_a_password(url: str) -> None:
    assert "s3cret" not in problems(http_proxy=url) and "s3 cret" not in problems(https_proxy=url)


@pytest.mark.parametrize("entry", ["*", "http://mirror.example", "a b", "10.0.0.0/99", "a,b", '"', "mirror.example/x"])
def test_an_exception_that_no_program_understands_is_refused(entry: str) -> None:
    assert "downloads_no_proxy" in problems(http_proxy=PROXY, no_proxy=[entry])


@pytest.mark.parametrize(
    ("pem", "words"),
    [
        ("", "holds no certificate"),
        ("-----BEGIN CERTIFICATE-----\nnonsense\n-----END CERTIFICATE-----\n", "not a readable certificate"),
        ("-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n", "not a readable certificate"),
        (certificate("old", days=-10), "CN|commonName=old expired on"),
        (certificate("server", authority=False), "certificate of a server"),
        (certificate() + "-----BEGIN PRIVATE KEY-----\nMHc\n-----END PRIVATE KEY-----\n", "private key"),
    ],
)
def test_what_is_no_authority_is_refused(pem: str, words: str) -> None:
    said = problems(certificate_authorities={"corp": pem})
    assert any(word in said for word in words.split("|")) and "downloads_certificate_authorities: corp" in said
    assert "MHc" not in said


def test_an_authority_needs_a_name_that_can_be_a_file() -> None:
    assert "cannot be the name of a file" in problems(certificate_authorities={"../etc": certificate()})


def test_all_problems_come_together() -> None:
    said = problems(
        http_proxy="socks5://p:1", https_proxy="p", no_proxy=["*"], certificate_authorities={"a": "", "b": "x"}
    )
    assert len(said.splitlines()) == 5


def test_the_same_wrong_proxy_is_named_for_each_variable() -> None:
    assert len(problems(http_proxy="p", https_proxy="p").splitlines()) == 2


@pytest.mark.parametrize(
    ("url", "shown"),
    [(WITH_LOGIN, PROXY), (PROXY, PROXY), ("u:p@host:1", "host:1"), ("", ""), ("http://u:p@q@host:1", "http://host:1")],
)
def test_credentials_are_taken_out(url: str, shown: str) -> None:
    assert without_credentials(url) == shown


def test_the_plan_is_data() -> None:
    assert json.loads(json.dumps(asdict(plan({"http_proxy": PROXY}))))["active"] is True
