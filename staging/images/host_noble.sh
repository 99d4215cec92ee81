#!/bin/sh
# A host that says it is Ubuntu 24.04, from Debian 13's packages: Ubuntu's archive cannot be had everywhere.
set -eu
KERNEL=6.8.0-90-generic
export KERNEL
sh /images/host.sh
# No further word in it: Ansible takes the distribution's name from any line of this file.
cat > /usr/lib/os-release <<'END'
PRETTY_NAME="Ubuntu 24.04.3 LTS"
NAME="Ubuntu"
VERSION_ID="24.04"
VERSION="24.04.3 LTS (Noble Numbat)"
VERSION_CODENAME=noble
ID=ubuntu
ID_LIKE=debian
UBUNTU_CODENAME=noble
END
echo trixie/sid > /etc/debian_version
cat > /etc/lsb-release <<'END'
DISTRIB_ID=Ubuntu
DISTRIB_RELEASE=24.04
DISTRIB_CODENAME=noble
DISTRIB_DESCRIPTION="Ubuntu 24.04.3 LTS"
END
