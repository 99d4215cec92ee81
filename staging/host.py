"""The staging host: a container that Ansible reaches over SSH like any other Debian machine."""

from __future__ import annotations

import contextlib
import io
import subprocess
import tarfile
import time
from pathlib import Path

import docker

from staging import engine, images, network, settings
from staging.steps import StepFailed, run, step

# What systemd, sshd and a Docker Engine inside need; without CAP_SYS_RESOURCE `--privileged` is refused.
_CAPABILITIES = (
    "SYS_ADMIN NET_ADMIN NET_RAW SYS_PTRACE SYS_MODULE MKNOD SYS_CHROOT SETPCAP SETFCAP SYS_NICE IPC_LOCK "
    "AUDIT_WRITE AUDIT_CONTROL DAC_READ_SEARCH SYSLOG LEASE LINUX_IMMUTABLE SYS_RAWIO SYS_BOOT SYS_TIME"
).split()
_CAP_SYS_RESOURCE = 24
_DOCKER_VOLUME = f"{settings.HOST_NAME}-docker"


def _isolation() -> list[str]:
    """Return the `docker run` options that let systemd run inside, chosen by looking at this machine."""
    arguments = ["--tmpfs", "/run:exec,size=512m", "--tmpfs", "/run/lock", "--tmpfs", "/tmp:exec,size=1g"]
    if Path("/sys/fs/cgroup/cgroup.controllers").exists():  # cgroup version 2
        arguments += ["--cgroupns", "private"]
    else:
        arguments += ["--cgroupns", "host", "--volume", "/sys/fs/cgroup:/sys/fs/cgroup:rw"]
    status = Path("/proc/self/status").read_text()
    effective = int(next(line.split()[1] for line in status.splitlines() if line.startswith("CapEff")), 16)
    if effective & (1 << _CAP_SYS_RESOURCE):
        return [*arguments, "--privileged"]
    for name in _CAPABILITIES:
        arguments += ["--cap-add", name]
    for option in ("seccomp=unconfined", "apparmor=unconfined", "systempaths=unconfined"):
        arguments += ["--security-opt", option]
    return arguments


def up(*, fresh: bool = False) -> None:
    """Start the host, clean when `fresh`, and make it reachable by SSH with a known host key.

    Raises StepFailed when systemd or sshd do not come up within a minute.
    """
    image = images.host()
    images.build(image)
    network.ensure()
    container = network.find(settings.HOST_NAME)
    if container is not None and (fresh or container.attrs["Image"] != _image_id(image)):
        down()
        container = None
    with step("staging host" + (" (clean)" if container is None else "")):
        if container is None:
            _create(image)
        elif container.status != "running":
            container.start()
        wait_until_booted()
        _authorize()


def _image_id(image: images.Image) -> str:
    return engine.client().images.get(image.local_name).attrs["Id"]


def _create(image: images.Image) -> None:
    client = engine.client()
    client.volumes.create(_DOCKER_VOLUME, labels={network.LABEL: settings.HOST_NAME})
    # The SDK's create_host_config has no parameter for the cgroup namespace; the CLI has.
    run(["docker", "run", "--detach", "--name", settings.HOST_NAME, "--hostname", "staging",
         "--label", f"{network.LABEL}={settings.HOST_NAME}", "--network", settings.NETWORK,
         "--ip", settings.HOST_ADDRESS, "--restart", "always", "--shm-size", "2g",
         "--volume", f"{_DOCKER_VOLUME}:/var/lib/docker", *_isolation(), image.local_name])


def execute(command: str, *, timeout: float = 120, check: bool = False) -> subprocess.CompletedProcess[str]:
    """Run a shell command inside the host, past SSH; raises StepFailed on failure when `check`."""
    result = subprocess.run(
        ["docker", "exec", settings.HOST_NAME, "bash", "-c", command],
        capture_output=True, text=True, errors="replace", timeout=timeout, check=False,
    )
    if check and result.returncode != 0:
        output = result.stdout + result.stderr
        raise StepFailed(f"in the staging host `{command}` ended with {result.returncode}:\n{output}")
    return result


def wait_until_booted(seconds: float = 60) -> None:
    """Wait until systemd has started everything; raises StepFailed after `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        # `degraded` is up as well: some unit failed that this host does not need.
        state = execute("systemctl is-system-running && systemctl is-active ssh").stdout.split()
        if state and state[0] in ("running", "degraded"):
            return
        if time.monotonic() > deadline:
            logs = subprocess.run(["docker", "logs", "--tail", "20", settings.HOST_NAME],
                                  capture_output=True, text=True, check=False)
            raise StepFailed(f"the staging host is not up after {seconds:.0f} s (systemd says {state}): {logs.stdout}")
        time.sleep(0.2)


def _authorize() -> None:
    """Put this checkout's SSH key into the host, and the host's key into this checkout's known hosts."""
    settings.STATE.mkdir(exist_ok=True)
    if not settings.SSH_KEY.exists():
        run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "staging", "-f", str(settings.SSH_KEY)])
    public = settings.SSH_KEY.with_suffix(".pub").read_bytes()
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        entry = tarfile.TarInfo("authorized_keys")
        entry.size, entry.mode = len(public), 0o600
        tar.addfile(entry, io.BytesIO(public))
    container = network.find(settings.HOST_NAME)
    if container is None or not container.put_archive("/root/.ssh", archive.getvalue()):
        raise StepFailed(f"the staging host {settings.HOST_NAME} vanished; run `python -m staging up` again")
    key = execute("cat /etc/ssh/ssh_host_ed25519_key.pub", check=True).stdout.split()
    settings.KNOWN_HOSTS.write_text(f"{settings.HOST_ADDRESS} {key[0]} {key[1]}\n")


def down() -> None:
    """Remove the host and all that is inside."""
    network.remove(settings.HOST_NAME)
    with contextlib.suppress(docker.errors.NotFound):
        engine.client().volumes.get(_DOCKER_VOLUME).remove(force=True)
