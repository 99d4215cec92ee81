"""Staging hosts: containers that Ansible reaches over SSH like any other machine."""

from __future__ import annotations

import contextlib
import io
import shlex
import subprocess
import tarfile
import time
from dataclasses import dataclass
from pathlib import Path

import docker

from staging import engine, images, network, settings
from staging.depot import run as depot
from staging.steps import StepFailed, run, step

# What systemd, sshd and a Docker Engine inside need; without CAP_SYS_RESOURCE `--privileged` is refused.
_CAPABILITIES = (
    "SYS_ADMIN NET_ADMIN NET_RAW SYS_PTRACE SYS_MODULE MKNOD SYS_CHROOT SETPCAP SETFCAP SYS_NICE IPC_LOCK "
    "AUDIT_WRITE AUDIT_CONTROL DAC_READ_SEARCH SYSLOG LEASE LINUX_IMMUTABLE SYS_RAWIO SYS_BOOT SYS_TIME"
).split()
_CAP_SYS_RESOURCE = 24


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


# Booted means that every service is up: an engine starts in 40 s, on a busy machine in two minutes.
BOOT_SECONDS = 300


@dataclass(frozen=True)
class Host:
    """One staging host. Its container, image, address and files follow from its release."""

    name: str
    release: str
    container: str
    address: str
    known_hosts: Path
    inventory: str
    # Package repositories that the depot has to serve for it, besides those that it always serves.
    repositories: tuple[str, ...] = ()

    @property
    def _docker_volume(self) -> str:
        return f"{self.container}-docker"

    def up(self, *, fresh: bool = False) -> None:
        """Start the host, clean when `fresh`, and make it reachable by SSH with a known host key.

        Raises StepFailed when systemd or sshd do not come up within a minute.
        """
        if self.repositories:
            depot.ensure_repositories(*self.repositories)
        image = images.host(self.release)
        images.build(image)
        network.ensure()
        container = network.find(self.container)
        if container is not None and (fresh or container.attrs["Image"] != _image_id(image)):
            container = None
        with step(f"staging host {self.name}" + (" (clean)" if container is None else "")):
            if container is None:
                # Also where only the volume is left: in it a clean host would find another one's images.
                self.down()
                self._create(image)
            elif container.status != "running":
                container.start()
            self.wait_until_booted()
            self._authorize()

    def _create(self, image: images.Image) -> None:
        client = engine.client()
        client.volumes.create(self._docker_volume, labels={network.LABEL: self.container})
        # The SDK's create_host_config has no parameter for the cgroup namespace; the CLI has.
        run(["docker", "run", "--detach", "--name", self.container, "--hostname", self.name,
             "--label", f"{network.LABEL}={self.container}", "--network", settings.NETWORK,
             "--ip", self.address, "--restart", "always", "--shm-size", "2g",
             "--volume", f"{self._docker_volume}:/var/lib/docker", *_isolation(), image.local_name])

    def execute(
        self, command: str, *, timeout: float = 120, check: bool = False
    ) -> subprocess.CompletedProcess[str]:
        """Run a shell command inside the host, past SSH; raises StepFailed on failure when `check`."""
        result = subprocess.run(
            ["docker", "exec", self.container, "bash", "-c", command],
            capture_output=True, text=True, errors="replace", timeout=timeout, check=False,
        )
        if check and result.returncode != 0:
            output = result.stdout + result.stderr
            raise StepFailed(f"in the staging host `{command}` ended with {result.returncode}:\n{output}")
        return result

    def gpu(self, *arguments: str) -> str:
        """Run the simulator's control.py with these arguments and return what it prints."""
        control = "/usr/bin/python3 /usr/lib/gpu-simulator/control.py"
        result = self.execute(f"{control} {shlex.join(arguments)}")
        if result.returncode != 0:
            raise StepFailed(result.stderr.strip() or "the simulator refused the command")
        return result.stdout

    def reboot(self, seconds: float = BOOT_SECONDS) -> None:
        """Reboot the host and wait until it is up again; raises StepFailed after `seconds`."""
        before = self._started_at()
        self.execute("systemctl reboot")
        deadline = time.monotonic() + seconds
        while self._started_at() == before:
            if time.monotonic() > deadline:
                raise StepFailed(f"the staging host {self.name} did not restart within {seconds:.0f} s")
            time.sleep(0.2)
        self.wait_until_booted(seconds)

    def _started_at(self) -> str:
        container = network.find(self.container)
        return container.attrs["State"]["StartedAt"] if container else ""

    def wait_until_booted(self, seconds: float = BOOT_SECONDS) -> None:
        """Wait until systemd has started everything; raises StepFailed after `seconds`."""
        deadline = time.monotonic() + seconds
        while True:
            # systemd itself waits: to ask again and again takes the processor from what is being started.
            try:
                state = self.execute(
                    "systemctl is-system-running --wait", timeout=max(deadline - time.monotonic(), 1)
                ).stdout.split()
            except subprocess.TimeoutExpired:
                state = ["starting"]
            # `degraded` is up as well: some unit failed that this host does not need.
            if state and state[0] in ("running", "degraded"):
                return
            if time.monotonic() > deadline:
                logs = subprocess.run(["docker", "logs", "--tail", "20", self.container],
                                      capture_output=True, text=True, check=False)
                found = f"systemd says {state}): {logs.stdout}"
                raise StepFailed(f"the staging host {self.name} is not up after {seconds:.0f} s ({found}")
            time.sleep(0.2)

    def _authorize(self) -> None:
        """Make host and checkout know each other: SSH keys, and the archive of simulated kernels."""
        settings.STATE.mkdir(exist_ok=True)
        if not settings.SSH_KEY.exists():
            run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "staging", "-f", str(settings.SSH_KEY)])
        archive = "ubuntu" if self.release == "noble" else "debian"
        key = "etc/apt/keyrings/staging-archive.asc"
        source = (
            f"# The part of the distribution's archive that belongs to simulated kernels.\n"
            f"Types: deb\nURIs: http://apt.staging.test/{archive}/\nSuites: {self.release}\n"
            f"Components: main\nSigned-By: /{key}\n"
        )
        self.write({
            "root/.ssh/authorized_keys": (settings.SSH_KEY.with_suffix(".pub").read_bytes(), 0o600),
            key: ((depot.repository("driver") / "key.asc").read_bytes(), 0o644),
            "etc/apt/sources.list.d/staging-archive.sources": (source.encode(), 0o644),
        })
        host_key = self.execute("cat /etc/ssh/ssh_host_ed25519_key.pub", check=True).stdout.split()
        self.known_hosts.write_text(f"{self.address} {host_key[0]} {host_key[1]}\n")

    def write(self, files: dict[str, tuple[bytes, int]]) -> None:
        """Write files of root into the host: path below / → (content, mode)."""
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w") as tar:
            for path, (content, mode) in files.items():
                entry = tarfile.TarInfo(path)
                entry.size, entry.mode = len(content), mode
                tar.addfile(entry, io.BytesIO(content))
        container = network.find(self.container)
        if container is None or not container.put_archive("/", archive.getvalue()):
            raise StepFailed(f"the staging host {self.name} vanished; run `python -m staging up` again")

    def down(self) -> None:
        """Remove the host and all that is inside."""
        network.remove(self.container)
        with contextlib.suppress(docker.errors.NotFound):
            engine.client().volumes.get(self._docker_volume).remove(force=True)


def _image_id(image: images.Image) -> str:
    return engine.client().images.get(image.local_name).attrs["Id"]


TRIXIE = Host(
    "staging", "trixie", settings.HOST_NAME, settings.HOST_ADDRESS, settings.KNOWN_HOSTS, "inventory/staging"
)
BOOKWORM = Host(
    "staging-bookworm", "bookworm", f"{settings.HOST_NAME}-bookworm", settings.BOOKWORM_ADDRESS,
    settings.STATE / "known_hosts_bookworm", "inventory/staging_bookworm", repositories=("docker",),
)
NOBLE = Host(
    "staging-noble", "noble", f"{settings.HOST_NAME}-noble", settings.NOBLE_ADDRESS,
    settings.STATE / "known_hosts_noble", "inventory/staging_noble",
    repositories=("docker", "driver-ubuntu", "ubuntu"),
)  # fmt: skip
# By release, as `python -m staging --host` names them; the first is what is meant without a name.
HOSTS = {host.release: host for host in (TRIXIE, BOOKWORM, NOBLE)}

# The host of the demo and of most scenarios.
up, down, execute, wait_until_booted = TRIXIE.up, TRIXIE.down, TRIXIE.execute, TRIXIE.wait_until_booted
