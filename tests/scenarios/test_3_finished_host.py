"""A finished host: nothing left to change, everything accepted, and a broken one is noticed."""

from __future__ import annotations

import base64
import json

import pytest

from staging import host, images, settings, steps
from tests.render.host_checks import checks
from tests.render.rendering import render
from tests.scenarios.acceptance_run import run_acceptance
from tests.scenarios.ansible_run import converge, run_playbook
from tests.scenarios.conftest import StagingHost


def test_second_run_changes_nothing(finished_host: StagingHost) -> None:
    assert converge().changed == []


def test_check_mode_on_a_finished_host_announces_nothing(finished_host: StagingHost) -> None:
    run = run_playbook("site.yml", "--check", "--diff", timeout=300)
    assert run.returncode == 0, run.explain()
    assert run.changed == []


def test_acceptance_suite_passes(finished_host: StagingHost) -> None:
    run = run_acceptance()
    assert run.returncode == 0, run.output
    assert len(run.passed) >= 40, "the suite has shrunk: " + run.output


def test_acceptance_suite_notices_a_broken_host(finished_host: StagingHost) -> None:
    gpu = "/usr/bin/python3 /usr/lib/gpu-simulator/control.py"
    documents = "/srv/pageindex-home/data/pageindex"
    secret = "/opt/pageindex-home/pageindex/llm_api_key"
    gateway = "pageindex-home@gateway.service"
    # What breaks, what mends it, the test that has to notice.
    breakage = [
        (f"{gpu} set 0 temperature=91", f"{gpu} set 0 temperature=35", "test_gpus::test_temperature"),
        (f"{gpu} set 1 persistence_mode=0", f"{gpu} set 1 persistence_mode=1", "test_gpus::test_persistence_mode"),
        (
            f"{gpu} set 1 pcie_width=4",
            f"{gpu} set 1 pcie_width=16",
            "test_gpus::test_pcie_link_is_as_wide_as_card_and_slot_allow",
        ),
        (
            "apt-mark unhold nvidia-container-toolkit",
            "apt-mark hold nvidia-container-toolkit",
            "test_packages::test_packages_are_held",
        ),
        (
            f"chmod 0755 {documents}",
            f"chmod 0700 {documents}",
            "test_exposure::test_documents_are_readable_by_their_service_alone",
        ),
        (
            f"install -m 0644 /dev/null {secret}",
            f"rm {secret}",
            "test_exposure::test_no_secret_is_readable_by_others",
        ),
        (
            f"systemctl disable {gateway}",
            f"systemctl enable {gateway}",
            "test_services::test_units_are_enabled_and_active",
        ),
    ]
    files = sorted({f"tests/acceptance/{test.split('::')[0]}.py" for _, _, test in breakage})
    try:
        for command, _, _ in breakage:
            host.execute(command, check=True)
        broken = run_acceptance(*files)
    finally:
        for _, command, _ in breakage:
            host.execute(command, check=True)
    assert broken.failed == {test for _, _, test in breakage}, broken.output


# As a machine beside the host does it: a route to the containers, past the addresses that the host publishes ports on.
_NEIGHBOUR = """
import json, socket, sys
reached = []
for port in map(int, sys.argv[2:]):
    with socket.socket() as tried:
        tried.settimeout(10)
        try:
            tried.connect((sys.argv[1], port))
            tried.sendall(b"GET /health HTTP/1.0\\r\\nHost: gateway\\r\\n\\r\\n")
            if tried.recv(1) or port == 8443:
                reached.append(port)
        except OSError:
            pass
print(json.dumps(reached))
"""


def test_a_neighbour_that_routes_to_the_containers_gets_no_answer(finished_host: StagingHost) -> None:
    """Docker before 28, as on this host, lets it through to every published port (moby#45610)."""
    shown = host.execute("docker inspect gateway", check=True).stdout
    networks = json.loads(shown)[0]["NetworkSettings"]["Networks"]
    addresses = [networks[f"pageindex-home-{name}"]["IPAddress"] for name in ("edge", "internal")]
    start = ["docker", "run", "--rm", "--network", settings.NETWORK, "--cap-add", "NET_ADMIN", "--entrypoint", "sh"]
    reached = {}
    for address in addresses:
        ports = "8000 3000 8400 8401 8443"
        program = (
            f"ip route add {address}/32 via {settings.HOST_ADDRESS} && exec python3 -c '{_NEIGHBOUR}' {address} {ports}"
        )
        done = steps.run([*start, images.host().local_name, "-c", program])
        reached[address] = json.loads(done)
    # The port for other machines shows that the way is there; it asks for a key.
    assert reached[addresses[0]] == [8443], reached
    assert set(reached[addresses[1]]) <= {8443}, reached


@pytest.mark.parametrize("case", ["trixie", "every_option"])
def test_owners_files_are_accepted_by_the_programs_that_read_them(finished_host: StagingHost, case: str) -> None:
    """Compose, systemd and HAProxy of the staging host judge what inventory/home would write."""
    image = host.execute("docker inspect --format '{{.Image}}' gateway", check=True).stdout.strip()
    found = checks(render("home")[0][case])
    assert {check.name.split()[0] for check in found} == {"compose", "unit", "haproxy", "script"}
    for check in found:
        lay_out = "".join(
            f"echo {base64.b64encode(content.encode()).decode()} | base64 -d > {name};"
            for name, content in check.files.items()
        )
        command = check.command
        if check.name == "haproxy":
            start = 'docker run --rm --volume "$PWD:/rendered:ro" --workdir /rendered --entrypoint sh'
            command = f'{start} {image} -c "{command}"'
        judged = host.execute(f"set -e; cd $(mktemp -d); chmod 755 .; {lay_out} {command}")
        assert judged.returncode == 0, f"{check.name}: {judged.stdout}{judged.stderr}"
