"""A finished host is disturbed from outside, and the next run of the role puts it right or says why not."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator

import pytest

from staging import host
from staging.depot import run as depot
from tests.scenarios.ansible_run import converge, run_playbook
from tests.scenarios.conftest import StagingHost
from tests.scenarios.waiting import wait_for

KEYRING = "/etc/apt/keyrings/pageindex-home-nvidia-toolkit.asc"
MISSING = "libnvidia-container-tools"
TOOLKIT = ("--tags", "nvidia_toolkit")
DRIVER = ("--tags", "nvidia_driver")
PARAMETER = "cat /var/lib/gpu-simulator/root/sys/module/nvidia_uvm/parameters/uvm_disable_hmm"
SPECIFICATION = "/var/run/cdi/nvidia.yaml"


@pytest.fixture
def without_a_package(finished_host: StagingHost) -> None:
    """One package of the toolkit is gone, so that the next run of its role has to use apt."""
    host.execute(f"apt-mark unhold {MISSING} && dpkg --force-depends --remove {MISSING}", check=True)


@pytest.fixture
def other_keys(finished_host: StagingHost) -> Iterator[None]:
    """Faults of the toolkit's repository may be set in here; the keyring is fetched again afterwards."""
    yield
    depot.repository_faults()
    host.execute(f"rm -f {KEYRING}", check=True)
    converge(*TOOLKIT)


def repository(*fingerprints: str) -> tuple[str, str]:
    """The toolkit's repository with these accepted keys, as an argument of ansible-playbook."""
    source = {
        "uris": ["http://apt.staging.test/toolkit/"],
        "suites": ["./"],
        "key_url": "http://apt.staging.test/toolkit/key.asc",
        "fingerprints": list(fingerprints),
    }
    return "-e", json.dumps({"nvidia_toolkit_repository": source})


def test_a_wrong_key_is_refused_with_both_fingerprints(other_keys: None) -> None:
    host.execute(f"rm {KEYRING}", check=True)
    depot.repository_faults(toolkit={"key": "wrong"})
    run = run_playbook("site.yml", *TOOLKIT)
    assert run.returncode != 0 and run.changed == [], run.explain()
    (failure,) = run.failed
    assert depot.fingerprints("wrong")[0] in failure.message and depot.fingerprints()[0] in failure.message
    assert host.execute(f"test -e {KEYRING}").returncode != 0


def test_keys_rotate_without_a_gap(other_keys: None, without_a_package: None) -> None:
    """The vendor announces a second key, offers both, then signs with the new one alone."""
    accepted = repository(*depot.fingerprints(), *depot.fingerprints("second"))
    depot.repository_faults(toolkit={"key": "both", "signed_by": "both"})
    converge(*TOOLKIT, *accepted)
    depot.repository_faults(toolkit={"key": "second", "signed_by": "second"})
    host.execute("apt-get -q update", check=True)
    assert converge(*TOOLKIT, *accepted).changed == []


def test_the_holder_of_apts_lock_is_named_and_waited_for(without_a_package: None) -> None:
    hold = "import fcntl, time; f = open('/var/lib/dpkg/lock-frontend', 'w'); fcntl.lockf(f, fcntl.LOCK_EX); time.sleep"
    holder = threading.Thread(target=host.execute, args=(f'python3 -c "{hold}(25)"',))
    holder.start()
    run = converge(*TOOLKIT)
    holder.join(60)
    assert "waiting for the lock of apt" in run.output and "held by" in run.output and "python3" in run.output
    assert "nvidia_toolkit : Install the four packages of the toolkit at one version" in run.changed


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(f"sed -i 's,libnvidia-ml,libnvidia-gone,g' {SPECIFICATION}", id="a-library-that-is-gone"),
        pytest.param(f"rm {SPECIFICATION}", id="missing"),
    ],
)
def test_a_stale_cdi_specification_is_made_anew(finished_host: StagingHost, damage: str) -> None:
    before = host.execute(f"cat {SPECIFICATION}", check=True).stdout
    host.execute(damage, check=True)
    assert host.execute(f"cat {SPECIFICATION}").stdout != before, "the damage did nothing"
    assert converge(*TOOLKIT).changed == ["nvidia_toolkit : Keep the CDI specification current"]
    assert host.execute(f"cat {SPECIFICATION}", check=True).stdout == before


def test_drift_is_noticed_by_verify(finished_host: StagingHost) -> None:
    host.execute("apt-mark unhold nvidia-open", check=True)
    run = run_playbook("playbooks/verify.yml", *DRIVER)
    assert run.returncode != 0
    assert "nvidia-open" in run.failed[0].message and "Not held" in run.failed[0].message
    # Ends with the same look.
    looked = [result.title for result in converge(*DRIVER).results if result.status == "ok"]
    assert "nvidia_driver : Prove that the driver works" in looked


def test_options_of_modules_ask_for_one_reboot_and_the_next_run_goes_on(finished_host: StagingHost) -> None:
    workaround = ("-e", json.dumps({"nvidia_driver_workarounds": ["uvm_disable_hmm"]}))
    stopped = run_playbook("site.yml", *DRIVER, *workaround, "-e", "nvidia_driver_reboot=stop")
    assert stopped.returncode != 0
    assert "run the same command again" in " ".join(stopped.failed[0].message.split())
    assert host.execute(PARAMETER, check=True).stdout.strip() == "N"
    host.TRIXIE.reboot()
    assert converge(*DRIVER, *workaround, "-e", "nvidia_driver_reboot=stop").failed == []
    assert host.execute(PARAMETER, check=True).stdout.strip() == "Y"
    # Taken away again, this time with permission to reboot.
    converge(*DRIVER)
    assert host.execute(PARAMETER, check=True).stdout.strip() == "N"
    assert converge(*DRIVER).changed == []
    wait_for(
        "the services after the reboot",
        lambda: host.execute("systemctl is-active 'pageindex-home@*'").stdout.split() == ["active"] * 3,
        240,
    )
