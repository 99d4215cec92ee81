"""The addresses that a host downloads from."""

from __future__ import annotations

from ansible_collections.pageindex.home.plugins.module_utils.download_sources import download_sources


def test_one_several_or_no_addresses() -> None:
    found = download_sources(
        [
            {"name": "driver", "needed_by": "nvidia_driver", "urls": ["https://a.test/x", "https://b.test/"]},
            {"name": "hub", "needed_by": "vllm", "urls": "https://hub.test"},
            {"name": "docker", "needed_by": "docker_engine", "urls": None},
            {"name": "index", "needed_by": "vllm", "urls": ""},
        ]
    )
    assert [(entry["name"], entry["url"]) for entry in found] == [
        ("driver", "https://a.test/x"),
        ("driver", "https://b.test/"),
        ("hub", "https://hub.test"),
    ]


def test_an_address_is_asked_once_and_without_apts_variables() -> None:
    twice = [{"name": name, "needed_by": name, "urls": ["https://a.test/$(ARCH)"]} for name in ("one", "two")]
    assert download_sources(twice, ["first", "second"]) == [
        {
            "name": "one",
            "url": "https://a.test/amd64",
            "needed_by": "one",
            "certificate_authorities": "first\nsecond",
        }
    ]
