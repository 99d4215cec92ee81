"""Set up signed apt repositories in an order in which apt works at every moment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Callable

from ansible_collections.pageindex.home.plugins.module_utils.apt_entries import AptEntry
from ansible_collections.pageindex.home.plugins.module_utils.apt_foreign import (
    Disabling,
    VendorSource,
    conflicting_definitions,
    dead_definitions,
    debian_architecture,
    disable,
    foreign_definitions,
    is_ours,
    keyless_definitions,
)
from ansible_collections.pageindex.home.plugins.module_utils.apt_sources import (
    CERTIFICATE_BUNDLE,
    KEYRINGS_DIRECTORY,
    SOURCES_DIRECTORY,
    Repository,
    RepositoryError,
    needs_certificates,
)
from ansible_collections.pageindex.home.plugins.module_utils.files import (
    FileSetResult,
    apply_file_set,
)


def set_up_repositories(
    repositories: Sequence[Repository],
    vendors: Sequence[VendorSource],
    known_uris: Sequence[str],
    read: Callable[[], Sequence[AptEntry]],
    download: Callable[[str], bytes],
    install_certificates: Callable[[], None],
    check: bool = False,
) -> tuple[FileSetResult, list[str]]:
    """Repair what breaks apt, obtain the keys, disable other definitions, write ours.

    known_uris: sources beside the vendors' that are repaired where they contradict each other or have no key.
    Returns what changed and warnings for people. A key that is refused leaves a source that worked
    before as it is. Raises RepositoryError, OSError and what install_certificates raises.
    """
    result = FileSetResult()
    warnings: list[str] = []
    architecture = debian_architecture()
    own_files = [repository.sources_path for repository in repositories]
    entries = read()
    # What the inventory asks for is obeyed, even a dead source.
    others = [entry for entry in entries if entry.file not in own_files and not is_ours(entry.file)]
    broken = dead_definitions(others, vendors, architecture)
    known = [*vendors, *(VendorSource(uri) for uri in known_uris)]
    broken += keyless_definitions(others, known, architecture)
    gone = [disabling.entry for disabling in broken if len(disabling.entry.uris) == 1]
    broken += conflicting_definitions([entry for entry in entries if entry not in gone], known, architecture)
    disable(broken, check, result)

    if needs_certificates(repositories):
        result.changed_files.append(CERTIFICATE_BUNDLE)
        if not check:
            install_certificates()
    keys, sources = [], []
    for repository in repositories:
        keyring = repository.keyring(download, check)
        warnings += keyring.warnings
        keys.append({"path": repository.key_path, "content": keyring.text})
        sources.append({"path": repository.sources_path, "content": repository.sources_text()})

    foreign: list[Disabling] = []
    already = {disabling.key for disabling in broken} if check else set()
    for repository in repositories:
        found = foreign_definitions(
            read(), repository.sources_path, repository.uris, repository.suites, vendors, architecture
        )
        _refuse_our_own(repository, found)
        foreign += [disabling for disabling in found if disabling.key not in already]
    disable(foreign, check, result)
    written = apply_file_set([], [*keys, *sources], [], check)  # never a source whose key is missing
    result.changed_files += written.changed_files
    result.differences += written.differences
    return result, warnings


def remove_repositories(names: Sequence[str], check: bool = False) -> FileSetResult:
    """Remove the files of repositories. Raises OSError."""
    paths = [f"{SOURCES_DIRECTORY}/{name}.sources" for name in names]
    paths += [f"{KEYRINGS_DIRECTORY}/{name}.asc" for name in names]
    return apply_file_set([], [], paths, check)


def _refuse_our_own(repository: Repository, others: Sequence[Disabling]) -> None:
    """Two of our repositories at one address would disable each other for ever."""
    for disabling in others:
        if is_ours(disabling.entry.file):
            raise RepositoryError(
                f"repository {repository.name} and {disabling.entry.file} define the same source {disabling.uri}. "
                "Give both the same `name` in the inventory, or remove the file when its name is no longer in use."
            )
