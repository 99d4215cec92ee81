"""Renders everything that site.yml would put on a host, through Ansible itself, without a host.

The playbooks, roles, templates and filters are the real ones; the collection's modules are replaced by an
action that records its arguments. Facts come from a cache, so the same run can be made for any distribution.
An undefined variable anywhere fails the run: that is Ansible's own rule.
"""

from __future__ import annotations

import fcntl
import functools
import json
import os
import pickle
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ansible_collections.pageindex.home.plugins.module_utils.llm_switch.rollout import Server, replicas_of

REPOSITORY = Path(__file__).resolve().parents[2]
RECORDER = Path(__file__).with_name("recording_action.py")
PLUGINS = REPOSITORY / "collections" / "ansible_collections" / "pageindex" / "home" / "plugins"

DISTRIBUTIONS: dict[str, dict[str, str]] = {
    "trixie": {"distribution": "Debian", "distribution_major_version": "13", "distribution_version": "13"},
    "bookworm": {"distribution": "Debian", "distribution_major_version": "12", "distribution_version": "12"},
    "resolute": {"distribution": "Ubuntu", "distribution_major_version": "26", "distribution_version": "26.04"},
    "noble": {"distribution": "Ubuntu", "distribution_major_version": "24", "distribution_version": "24.04"},
    "jammy": {"distribution": "Ubuntu", "distribution_major_version": "22", "distribution_version": "22.04"},
}


@dataclass(frozen=True)
class Case:
    """One host to render for: its distribution, and a file of variables over the inventory's."""

    distribution: str
    variables: Path | None = None


EXAMPLES = sorted((REPOSITORY / "inventory" / "examples").glob("*.yml"))
CASES: dict[str, dict[str, Case]] = {
    "home": {
        **{name: Case(name) for name in DISTRIBUTIONS},
        **{path.stem: Case("trixie", path) for path in EXAMPLES},
        "every_option": Case("noble", Path(__file__).with_name("every_option.yml")),
        "acme": Case("bookworm", Path(__file__).with_name("acme.yml")),
        "signed_modules": Case("jammy", Path(__file__).with_name("signed_modules.yml")),
    },
    "staging": {"staging": Case("trixie")},
}
# What `staging up` writes beside the checkout's inventory; contents do not matter for rendering.
STAGING_FILES = {"registry-ca.crt": "certificate\n", "apt-key-fingerprint": "0" * 40}


@dataclass(frozen=True)
class Rendered:
    """What one host would have been sent."""

    calls: tuple[tuple[str, dict[str, Any]], ...]

    def arguments(self, module: str) -> list[dict[str, Any]]:
        """The arguments of every call of one module, in order."""
        return [arguments for name, arguments in self.calls if name == module]

    @property
    def files(self) -> dict[str, str]:
        """Path on the host → content."""
        written = {
            file["path"]: file["content"]
            for arguments in self.arguments("file_set")
            for file in arguments.get("files", [])
        }
        deployed = {
            f"{arguments['services_directory']}/{arguments['settings']['slots'][0]}/{name}": content
            for arguments in self.arguments("llm_deployment")
            # As the first server's folder has them.
            for name, content in Server("", replicas_of(arguments["record"])[0]).files(arguments["files"]).items()
        }
        gateway = {arguments["path"]: arguments["content"] for arguments in self.arguments("gateway_configuration")}
        return written | deployed | gateway

    @property
    def build_contexts(self) -> dict[str, dict[str, str]]:
        """Image repository → files of its build context, for images whose context is rendered."""
        return {
            entry["repository"]: entry["context"] for entry in self.arguments("container_image") if "context" in entry
        }


def run_playbook(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run ansible-playbook in `folder` with this repository's settings, roles and collection; returns how it ended."""
    return subprocess.run(
        [str(Path(sys.executable).with_name("ansible-playbook")), *arguments],
        cwd=folder,
        env=os.environ
        | {
            "ANSIBLE_CONFIG": str(REPOSITORY / "ansible.cfg"),
            "ANSIBLE_COLLECTIONS_PATH": str(REPOSITORY / "collections"),
            "ANSIBLE_ROLES_PATH": str(REPOSITORY / "roles"),
            "LC_ALL": "C.UTF-8",
            **environment,
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def _write_facts(folder: Path, host: str, distribution: str) -> None:
    """Put facts where Ansible's cache looks for them; with other names or keys it gathers this machine's own."""
    facts = {
        **DISTRIBUTIONS[distribution],
        "distribution_release": distribution,
        "os_family": "Debian",
        "architecture": "x86_64",
        "system": "Linux",
    }
    cached: dict[str, Any] = {"_ansible_facts_gathered": True, "module_setup": True}
    cached |= {f"ansible_{name}": value for name, value in facts.items()}
    (folder / f"s1_{host}").write_text(json.dumps({"__payload__": json.dumps(cached)}), encoding="utf-8")


def _recording_collection(folder: Path) -> None:
    """A copy of the collection in which every module is the recorder; everything else is linked."""
    plugins = folder / "ansible_collections" / "pageindex" / "home" / "plugins"
    (plugins / "action").mkdir(parents=True)
    for part in PLUGINS.iterdir():
        if part.is_dir() and part.name != "action":
            (plugins / part.name).symlink_to(part)
    for module in (PLUGINS / "modules").glob("*.py"):
        shutil.copy(RECORDER, plugins / "action" / module.name)


def _inventory(folder: Path, inventory: str, cases: dict[str, Case]) -> None:
    """The inventory with its one host once for each case, a file of variables as host_vars."""
    source = REPOSITORY / "inventory" / inventory
    shutil.copytree(source / "group_vars", folder / "group_vars")
    hosts = yaml.safe_load((source / "hosts.yml").read_text(encoding="utf-8"))
    groups = {group: {"hosts": dict.fromkeys(cases)} for group in hosts["all"]["children"]}
    (folder / "hosts.yml").write_text(yaml.safe_dump({"all": {"children": groups}}), encoding="utf-8")
    (folder / "host_vars").mkdir()
    for name, case in cases.items():
        if case.variables is not None:
            shutil.copy(case.variables, folder / "host_vars" / f"{name}.yml")


@functools.cache
def render(inventory: str) -> tuple[dict[str, Rendered], frozenset[Path]]:
    """Render site.yml for every case of an inventory: results by case, and the templates that were read.

    Once for all processes of one run of tests/run, which says where the results are kept for as long.
    Raises AssertionError with Ansible's words when it fails, as it does on an undefined variable.
    """
    folder = os.environ.get("PAGEINDEX_HOME_RENDERED")
    if not folder:
        return _render(inventory)
    kept = Path(folder, f"{inventory}.pickle")
    with Path(folder, f"{inventory}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not kept.exists():
            kept.write_bytes(pickle.dumps(_render(inventory)))
        found: tuple[dict[str, Rendered], frozenset[Path]] = pickle.loads(kept.read_bytes())
    return found


def _render(inventory: str) -> tuple[dict[str, Rendered], frozenset[Path]]:
    cases = CASES[inventory]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _recording_collection(folder / "collections")
        # Ansible looks for collections beside a playbook first: the playbooks move, the roles stay.
        shutil.copy(REPOSITORY / "site.yml", folder)
        shutil.copytree(REPOSITORY / "playbooks", folder / "playbooks")
        (folder / "inventory" / inventory).mkdir(parents=True)
        _inventory(folder / "inventory" / inventory, inventory, cases)
        for subfolder in (".staging", "facts", "calls"):
            (folder / subfolder).mkdir()
        for file, content in STAGING_FILES.items():
            (folder / ".staging" / file).write_text(content, encoding="utf-8")
        for host, case in cases.items():
            _write_facts(folder / "facts", host, case.distribution)
        finished = run_playbook(
            folder,
            "site.yml", "-vvvv", "--check",
            "-i", f"inventory/{inventory}",
            "-e", json.dumps({"ansible_connection": "local", "ansible_become": False}),
            ANSIBLE_COLLECTIONS_PATH=str(folder / "collections"),
            ANSIBLE_GATHERING="smart",
            ANSIBLE_CACHE_PLUGIN="jsonfile",
            ANSIBLE_CACHE_PLUGIN_CONNECTION=str(folder / "facts"),
            ANSIBLE_CACHE_PLUGIN_TIMEOUT="0",
            ANSIBLE_NOCOLOR="1",
            RENDER_LOG=str(folder / "calls"),
        )  # fmt: skip
        output = finished.stdout + finished.stderr
        errors = [line for line in output.splitlines() if re.match(r"\[ERROR\]|fatal:|ERROR", line)]
        assert finished.returncode == 0, "\n".join([*errors, output[-6000:]])
        assert "TASK [Gathering Facts]" not in output, "the hosts were rendered with this machine's facts"
        calls = {
            host: [json.loads(line) for line in (folder / "calls" / host).read_text(encoding="utf-8").splitlines()]
            for host in cases
        }
    read = {Path(path).resolve() for path in re.findall(r"File lookup using (\S+) as file", output)}
    rendered = {
        host: Rendered(tuple((call["module"], call["arguments"]) for call in made)) for host, made in calls.items()
    }
    return rendered, frozenset(path for path in read if path.is_relative_to(REPOSITORY / "templates"))
