"""Texts and files as a whole: changelog, links, words that do not belong here, borders between the parts."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.contract.repository import REPOSITORY, lines_of, read_yaml, versioned_files
from tests.skip_list import read_skip_list

# Split, so that this file does not find itself.
LEFTOVERS = re.compile("|".join(["TO" + "DO", "FIX" + "ME", "\\bXX" + "X\\b", "<<" + "<<<<<", ">>" + ">>>>>"]))
# What a deployment must not do behind its owner's back.
FORBIDDEN = {
    "apt-" + "key ": "use a keyring file and Signed-By",
    ":lat" + "est": "pin a version",
    "trusted" + "=yes": "sign the repository",
    "--allow-" + "unauthenticated": "sign the repository",
    "StrictHostKeyChecking" + "=no": "know the host key",
    "curl -" + "k ": "verify the certificate",
}
MACHINERY = ("roles", "templates", "services", "collections", "playbooks")


def relative(path: Path) -> str:
    return str(path.relative_to(REPOSITORY))


def test_no_leftovers() -> None:
    found = [
        f"{relative(path)}:{number}: {line.strip()[:80]}"
        for path in versioned_files()
        for number, line in enumerate(lines_of(path), start=1)
        if LEFTOVERS.search(line)
    ]
    assert found == []


@pytest.mark.parametrize("word", sorted(FORBIDDEN))
def test_forbidden_words(word: str) -> None:
    found = [relative(path) for path in versioned_files() if word in path.read_text(encoding="utf-8")]
    assert found == [], FORBIDDEN[word]


def test_what_is_deployed_does_not_know_that_staging_exists() -> None:
    found = [
        relative(path)
        for path in versioned_files()
        if path.relative_to(REPOSITORY).parts[0] in MACHINERY
        and re.search(r"\bstaging\b|simulat", path.read_text(encoding="utf-8"), re.IGNORECASE)
    ]
    assert found == []


def test_changelog_keeps_its_format() -> None:
    lines = lines_of(REPOSITORY / "CHANGELOG.md")
    assert lines[0] == "# Changelog"
    releases = [line for line in lines if line.startswith("## ")]
    assert releases[0] == "## [Unreleased]"
    assert [line for line in releases[1:] if not re.fullmatch(r"## \[\d+\.\d+\.\d+\] - \d{4}-\d{2}-\d{2}", line)] == []
    kinds = {line for line in lines if line.startswith("### ")}
    assert kinds <= {f"### {kind}" for kind in ("Added", "Changed", "Deprecated", "Removed", "Fixed", "Security")}


def test_links_in_the_documentation_lead_somewhere() -> None:
    broken = []
    for path in versioned_files():
        if path.suffix != ".md":
            continue
        for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text(encoding="utf-8")):
            if "://" in target or target.startswith("#"):
                continue
            if not (path.parent / target.split("#")[0]).exists():
                broken.append(f"{relative(path)}: {target}")
    assert broken == []


def test_every_page_of_the_documentation_is_listed() -> None:
    index = (REPOSITORY / "docs" / "index.md").read_text(encoding="utf-8")
    pages = {path.name for path in (REPOSITORY / "docs").glob("*.md")} - {"index.md"}
    assert {name for name in pages if f"({name})" not in index} == set()


def test_readme_names_commands_that_exist() -> None:
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z][a-z-]*):", (REPOSITORY / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert set(re.findall(r"\bmake ([a-z-]+)", text)) <= targets
    models = read_yaml(REPOSITORY / "catalogue" / "models.yml")
    assert set(re.findall(r"vllm_model=([\w.-]+)", text)) <= set(models)


def test_python_requirements_are_pinned() -> None:
    files = [REPOSITORY / "requirements.txt", REPOSITORY / "requirements-dev.txt"]
    files += sorted((REPOSITORY / "services" / "pageindex").glob("requirements*.in"))
    lines = [line.split("#")[0].split(";")[0].strip() for path in files for line in lines_of(path)]
    pins = [line for line in lines if line and not line.startswith(("-r ", "-c "))]
    assert [pin for pin in pins if not re.fullmatch(r"[\w.-]+==[\w.]+", pin)] == []


def test_what_the_service_needs_is_the_same_in_its_lock() -> None:
    folder = REPOSITORY / "services" / "pageindex"
    locked = (folder / "requirements.lock").read_text(encoding="utf-8")
    pins = [line for line in lines_of(folder / "requirements.in") if re.match(r"\w", line)]
    assert pins and [pin for pin in pins if not re.search(rf"^{re.escape(pin)}\b", locked, re.MULTILINE)] == []


def test_the_image_with_two_engines_has_the_same_packages_and_more() -> None:
    folder = REPOSITORY / "services" / "pageindex"
    ours, both = (
        set(re.findall(r"^[\w.-]+==[\w.]+", (folder / name).read_text(encoding="utf-8"), re.MULTILINE))
        for name in ("requirements.lock", "requirements-upstream.lock")
    )
    assert ours < both and "pageindex==0.4.7" in both


def test_skip_list_names_tests_that_exist() -> None:
    missing = []
    for entry in read_skip_list().values():
        for test in entry.tests:
            file, _, name = test.partition("::")
            path = REPOSITORY / file
            if not path.is_file() or f"def {name}(" not in path.read_text(encoding="utf-8"):
                missing.append(test)
    assert missing == []
