"""Other definitions of our package sources: which are found, how they are disabled, what is left alone."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from ansible_collections.pageindex.home.plugins.module_utils import apt_setup, apt_sources
from ansible_collections.pageindex.home.plugins.module_utils.apt_entries import AptEntry, read_entries
from ansible_collections.pageindex.home.plugins.module_utils.apt_foreign import OWN_HEADER, VendorSource
from ansible_collections.pageindex.home.plugins.module_utils.apt_sources import Repository, RepositoryError
from ansible_collections.pageindex.home.plugins.module_utils.files import FileSetResult, apply_file_set
from tests.contract.repository import REPOSITORY
from tests.unit.test_apt_sources import FINGERPRINT, KEY

VENDORS = [
    VendorSource.from_options(entry)
    for entry in yaml.safe_load((REPOSITORY / "catalogue" / "apt_vendors.yml").read_text()).values()
]
TOOLKIT = {
    "name": "toolkit",
    "uris": ["https://nvidia.github.io/libnvidia-container/stable/deb/$(ARCH)"],
    "suites": ["/"],
    "fingerprints": [FINGERPRINT],
    "key": KEY,
}
DOCKER = {
    **TOOLKIT,
    "name": "docker",
    "uris": ["https://download.docker.com/linux/debian"],
    "suites": ["trixie"],
    "components": ["stable"],
}
DEBIAN = "deb http://deb.debian.org/debian trixie main\n"
Run = Callable[..., FileSetResult]


@pytest.fixture
def apt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An /etc/apt with the distribution's own source."""
    (tmp_path / "sources.list.d").mkdir()
    (tmp_path / "keyrings").mkdir()
    (tmp_path / "sources.list").write_text(DEBIAN)
    bundle = tmp_path / "certificates"
    bundle.write_text("")
    for module in (apt_sources, apt_setup):
        monkeypatch.setattr(module, "SOURCES_DIRECTORY", str(tmp_path / "sources.list.d"))
        monkeypatch.setattr(module, "KEYRINGS_DIRECTORY", str(tmp_path / "keyrings"))
    monkeypatch.setattr(apt_setup, "needs_certificates", lambda repositories: False)
    monkeypatch.setattr(apt_setup, "debian_architecture", lambda: "amd64")

    def as_this_user(directories: Any, files: Any, absent: Any, check: bool = False) -> FileSetResult:
        owner = {"owner": str(os.getuid()), "group": str(os.getgid())}
        return apply_file_set(directories, [{**entry, **owner} for entry in files], absent, check)

    monkeypatch.setattr(apt_setup, "apply_file_set", as_this_user)
    return tmp_path


@pytest.fixture
def run(apt: Path) -> Run:
    """Set up repositories, the toolkit's by default."""

    def set_up(*repositories: dict[str, Any], check: bool = False, known: Sequence[str] = ()) -> FileSetResult:
        def read() -> Sequence[AptEntry]:
            return read_entries(str(apt))

        wanted = [Repository.from_options(options) for options in repositories or (TOOLKIT,)]
        result, _ = apt_setup.set_up_repositories(wanted, VENDORS, known, read, lambda url: b"", lambda: None, check)
        return result

    return set_up


def write(apt: Path, name: str, text: str) -> Path:
    path = apt / "sources.list.d" / name
    path.write_text(text)
    return path


def names(apt: Path) -> list[str]:
    return sorted(path.name for path in (apt / "sources.list.d").iterdir())


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (
            "nvidia-container-toolkit.list",
            "deb [arch=amd64] https://nvidia.github.io/libnvidia-container/stable/deb/$(ARCH) /\n"
            "#deb https://nvidia.github.io/libnvidia-container/experimental/deb/$(ARCH) /\n",
        ),
        ("anything.list", "deb http://nvidia.github.io/libnvidia-container/stable/deb/amd64/ /\n"),
        (
            "modern.sources",
            "Types: deb\nURIs: https://nvidia.github.io/libnvidia-container/stable/deb/amd64\nSuites: /\n",
        ),
    ],
)
def test_another_definition_is_found_whatever_its_file_is_called(apt: Path, run: Run, name: str, text: str) -> None:
    write(apt, name, text)
    result = run()
    assert names(apt) == sorted([f"{name}.disabled", "toolkit.sources"])
    assert (apt / "sources.list.d" / f"{name}.disabled").read_text() == text
    difference = next(entry for entry in result.differences if entry["before"] == text)
    assert "toolkit.sources defines this source" in difference["after_header"]
    assert not run().changed


@pytest.mark.parametrize(
    "uri",
    [
        "https://nvidia.github.io/nvidia-docker/ubuntu20.04/$(ARCH)",
        "https://nvidia.github.io/nvidia-container-runtime/stable/ubuntu18.04/$(ARCH)",
        "https://nvidia.github.io/libnvidia-container/experimental/deb/$(ARCH)",
        "https://nvidia.github.io/libnvidia-container/stable/ubuntu18.04/$(ARCH)",
        "https://nvidia.github.io/libnvidia-container/debian10/amd64",
    ],
)
def test_dead_sources_go_whichever_role_comes_first(apt: Path, run: Run, uri: str) -> None:
    write(apt, "old.list", f"deb {uri} /\n")
    run(DOCKER)
    assert names(apt) == ["docker.sources", "old.list.disabled"]


def test_in_a_file_with_other_sources_only_the_one_is_switched_off(apt: Path, run: Run) -> None:
    own = "deb https://example.org/x ./\n"
    listed = write(apt, "mixed.list", f"{own}deb https://nvidia.github.io/nvidia-docker/debian10/amd64 /\n")
    stanzas = write(
        apt,
        "mixed.sources",
        "# mine\nTypes: deb\nURIs: https://example.org/y\nSuites: ./\n\n"
        "Types: deb\nEnabled: yes\nURIs:\n https://nvidia.github.io/libnvidia-container/stable/deb/amd64\nSuites: /\n",
    )
    run()
    lines = listed.read_text().splitlines()
    assert lines[0] + "\n" == own
    assert lines[1].startswith("# Disabled by PageIndex Home (nvidia-docker was archived")
    assert lines[1].endswith(": deb https://nvidia.github.io/nvidia-docker/debian10/amd64 /")
    entries = [entry for entry in read_entries(str(apt)) if entry.file == str(stanzas)]
    assert [entry.enabled for entry in entries] == [True, False]
    assert entries[1].uris == ("https://nvidia.github.io/libnvidia-container/stable/deb/amd64",)
    assert stanzas.read_text().startswith("# mine\nTypes: deb\nURIs: https://example.org/y\n")
    assert not run().changed


def test_of_several_addresses_in_one_stanza_only_ours_goes(apt: Path, run: Run) -> None:
    path = write(
        apt,
        "two.sources",
        "Types: deb\nURIs: https://nvidia.github.io/libnvidia-container/stable/deb/amd64\n https://example.org/z\n"
        "Suites: /\n",
    )
    run()
    (entry,) = [entry for entry in read_entries(str(apt)) if entry.file == str(path)]
    assert (entry.enabled, entry.uris, entry.suites) == (True, ("https://example.org/z",), ("/",))
    assert not run().changed


def test_the_main_file_is_never_renamed(apt: Path, run: Run) -> None:
    (apt / "sources.list").write_text("deb [arch=amd64] https://download.docker.com/linux/debian trixie stable\n")
    run(DOCKER)
    assert (apt / "sources.list").read_text().startswith("# Disabled by PageIndex Home (")
    assert names(apt) == ["docker.sources"]


def test_two_foreign_definitions_with_different_keys_are_reduced_to_one(apt: Path, run: Run) -> None:
    """Otherwise the first `apt update` fails, whoever makes it."""
    key = apt / "keyrings" / "here.gpg"
    key.write_text("")
    source = "https://download.docker.com/linux/debian trixie stable"
    write(apt, "a.list", f"deb [signed-by={apt}/keyrings/gone.gpg] {source}\n")
    write(apt, "b.list", f"deb [signed-by={key}] {source}\n")
    run(TOOLKIT)
    assert names(apt) == ["a.list.disabled", "b.list", "toolkit.sources"]
    assert not run(TOOLKIT).changed


@pytest.mark.parametrize(("known", "left"), [(["http://mirror.test/deb/"], 1), ([], 2)], ids=["ours", "not-ours"])
def test_a_conflict_on_a_mirror_is_repaired_where_the_mirror_is_ours(
    apt: Path, run: Run, known: list[str], left: int
) -> None:
    for number in range(2):
        key = apt / "keyrings" / f"{number}.gpg"
        key.write_text("")
        write(apt, f"mirror{number}.list", f"deb [signed-by={key}] http://mirror.test/deb ./\n")
    run(known=known)
    assert len([name for name in names(apt) if name.startswith("mirror") and name.endswith(".list")]) == left


def test_a_definition_without_its_key_would_stop_apt(apt: Path, run: Run) -> None:
    write(apt, "docker.list", "deb [signed-by=/gone.gpg] https://download.docker.com/linux/debian trixie stable\n")
    write(apt, "own.list", "deb [signed-by=/gone.gpg] https://example.org/x ./\n")
    run(TOOLKIT)
    assert names(apt) == ["docker.list.disabled", "own.list", "toolkit.sources"]


def test_our_own_definition_stays_when_another_role_repairs(apt: Path, run: Run) -> None:
    run(DOCKER)
    newer = f"deb [signed-by={apt}/keyrings/docker.asc,x] https://download.docker.com/linux/debian trixie stable\n"
    write(apt, "zz.list", newer)
    run(TOOLKIT)
    assert names(apt) == ["docker.sources", "toolkit.sources", "zz.list.disabled"]


def test_healthy_sources_of_others_are_left_alone(apt: Path, run: Run) -> None:
    key = apt / "keyrings" / "docker.gpg"
    key.write_text("")
    docker = f"deb [signed-by={key}] https://download.docker.com/linux/debian trixie stable\n"
    write(apt, "docker.list", docker)
    # Two with different keys, but nobody whom we know: a matter for the owner.
    write(apt, "own-1.list", "deb [signed-by=/a] https://example.org/x ./\n")
    write(apt, "own-2.list", "deb [signed-by=/b] https://example.org/x ./\n")
    write(apt, "broken.list", "deb only-one-word\n")
    run(TOOLKIT)
    assert names(apt) == ["broken.list", "docker.list", "own-1.list", "own-2.list", "toolkit.sources"]
    assert (apt / "sources.list").read_text() == DEBIAN


def test_a_mirror_of_a_whole_distribution_is_not_switched_off(apt: Path, run: Run) -> None:
    ours = {**DOCKER, "name": "ours", "uris": ["http://deb.debian.org/debian"], "suites": ["docker"]}
    run(ours)
    assert (apt / "sources.list").read_text() == DEBIAN
    run({**ours, "suites": ["docker", "trixie"]})
    assert (apt / "sources.list").read_text().startswith("# Disabled")


def test_an_address_that_the_inventory_asks_for_is_obeyed(apt: Path, run: Run) -> None:
    experimental = {**TOOLKIT, "uris": ["https://nvidia.github.io/libnvidia-container/experimental/deb/amd64"]}
    assert run(experimental).changed
    assert not run(experimental).changed
    assert run(DOCKER, experimental).changed_files != [], "Docker's is new"
    assert "toolkit.sources" in names(apt)


def test_two_of_ours_at_one_address_are_refused(apt: Path, run: Run) -> None:
    run(TOOLKIT)
    with pytest.raises(RepositoryError, match=r"both the same `name`"):
        run({**TOOLKIT, "name": "other"})


def test_an_earlier_disabled_file_is_not_overwritten(apt: Path, run: Run) -> None:
    uri = "https://nvidia.github.io/libnvidia-container/stable/deb/amd64"
    write(apt, "x.list.disabled", "something else\n")
    write(apt, "x.list", f"deb {uri} /\n")
    run()
    assert names(apt) == ["toolkit.sources", "x.list.2.disabled", "x.list.disabled"]
    assert (apt / "sources.list.d" / "x.list.disabled").read_text() == "something else\n"


def test_check_mode_says_the_same_and_changes_nothing(apt: Path, run: Run) -> None:
    write(apt, "old.list", "deb https://nvidia.github.io/nvidia-docker/debian10/amd64 /\n")
    write(apt, "other.list", "deb https://nvidia.github.io/libnvidia-container/stable/deb/amd64 /\n")
    before = names(apt)
    predicted = run(check=True).changed_files
    assert names(apt) == before
    assert run().changed_files == predicted


def test_a_refused_key_leaves_a_working_source_alone(apt: Path, run: Run) -> None:
    write(apt, "other.list", "deb https://nvidia.github.io/libnvidia-container/stable/deb/amd64 /\n")
    with pytest.raises(RepositoryError, match="not the expected one"):
        run({**TOOLKIT, "fingerprints": ["A" * 40]})
    assert names(apt) == ["other.list"]


def test_our_files_say_who_wrote_them(apt: Path, run: Run) -> None:
    run()
    assert (apt / "sources.list.d" / "toolkit.sources").read_text().startswith(OWN_HEADER)
