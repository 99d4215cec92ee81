#!/bin/sh
# Debian's certbot, for tests of the gateway's certificate by ACME.
set -eu
export DEBIAN_FRONTEND=noninteractive
apt-get update -q
apt-get install -y -q --no-install-recommends ca-certificates certbot python3
apt-get clean
rm -rf /var/lib/apt/lists/*
