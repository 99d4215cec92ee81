#!/bin/sh
# The machine beside the staging host: package repository, model hub, Python index, image registry.
set -eu
export DEBIAN_FRONTEND=noninteractive
apt-get update -q
apt-get install -y -q --no-install-recommends python3 docker-registry ca-certificates
apt-get clean
rm -rf /var/lib/apt/lists/*
