#!/bin/sh
# The HTTP proxy of the staging network.
set -eu
export DEBIAN_FRONTEND=noninteractive
apt-get update -q
apt-get install -y -q --no-install-recommends squid
apt-get clean
rm -rf /var/lib/apt/lists/*
