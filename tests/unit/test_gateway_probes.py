"""What verify asks the gateway."""

from __future__ import annotations

from ansible_collections.pageindex.home.plugins.module_utils.gateway_probes import gateway_probes

LLM = {
    "name": "llm",
    "bind_address": "0.0.0.0",
    "bind_port": 8000,
    "health_path": "/health",
    "paths": ["/v1/models", "/v1/completions", "/health"],
    "outside_port": 8443,
    "open_paths": ["/health"],
}


def test_on_loopback_only_how_the_services_are() -> None:
    assert gateway_probes([LLM]) == [
        {"name": "llm", "url": "http://127.0.0.1:8000/health", "headers": {}, "expected": 200}
    ]


def test_from_outside_also_what_nobody_may_without_a_key() -> None:
    found = gateway_probes([LLM, {**LLM, "bind_address": "::1", "open_paths": []}], "fd00::2")
    assert [(probe["url"], probe["expected"]) for probe in found] == [
        ("http://127.0.0.1:8000/health", 200),
        ("https://[fd00::2]:8443/health", 200),
        ("https://[fd00::2]:8443/v1/models", 401),
        ("http://[::1]:8000/health", 200),
        ("https://[fd00::2]:8443/health", 401),
        ("https://[fd00::2]:8443/v1/models", 401),
    ]


def test_a_frontend_of_loopback_alone_and_plain_http() -> None:
    inside = {name: value for name, value in LLM.items() if name != "outside_port"}
    assert len(gateway_probes([inside], "0.0.0.0")) == 1
    assert gateway_probes([LLM], "0.0.0.0", tls=False)[1]["url"] == "http://127.0.0.1:8443/health"


def test_a_made_up_session_has_to_be_refused_by_the_service() -> None:
    found = gateway_probes([{**LLM, "session_cookie": "session"}], "0.0.0.0")
    assert [(probe["headers"], probe["expected"]) for probe in found[2:]] == [
        ({}, 401),
        ({"Cookie": "session=none"}, 401),
    ]
