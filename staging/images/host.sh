#!/bin/sh
# The staging host before anything was provisioned: what a Debian server installation has.
set -eu
export DEBIAN_FRONTEND=noninteractive
printf '#!/bin/sh\nexit 101\n' > /usr/sbin/policy-rc.d
chmod 0755 /usr/sbin/policy-rc.d
apt-get update -q
apt-get install -y -q --no-install-recommends systemd systemd-sysv dbus openssh-server sudo python3 \
    python3-apt ca-certificates curl iproute2 iptables procps kmod pciutils less
rm /usr/sbin/policy-rc.d
# Kernel modules, consoles and udev belong to the machine that the container runs on.
systemctl mask systemd-modules-load.service getty.target console-getty.service systemd-udevd.service \
    systemd-udev-trigger.service systemd-udevd-kernel.socket systemd-udevd-control.socket \
    systemd-networkd-wait-online.service apt-daily.timer apt-daily-upgrade.timer
systemctl enable ssh.service
install -d -m 0700 /root/.ssh
printf 'PermitRootLogin prohibit-password\nPasswordAuthentication no\n' > /etc/ssh/sshd_config.d/staging.conf
# The cards are in their slots before any driver is installed.
install -d /usr/lib/gpu-simulator
install -m 0755 /gpu_simulator/control.py /usr/lib/gpu-simulator/
install -m 0644 /gpu_simulator/machine.py /gpu_simulator/module_file.py /usr/lib/gpu-simulator/
install -m 0644 /images/gpu-simulator-boot.service /etc/systemd/system/
systemctl enable gpu-simulator-boot.service
python3 /usr/lib/gpu-simulator/control.py init-hardware ${KERNEL:+--kernel "$KERNEL"}
rm -f /etc/machine-id /var/lib/dbus/machine-id
: > /etc/machine-id
apt-get clean
