#!/bin/sh
# Stands in for python:3.13-slim: Debian's Python 3.13 where the official image has its own.
set -eu
export DEBIAN_FRONTEND=noninteractive
apt-get update -q
apt-get install -y -q --no-install-recommends ca-certificates python3 python3-pip python3-venv
rm -f /usr/lib/python3*/EXTERNALLY-MANAGED
for name in python python3; do ln -sf /usr/bin/python3 "/usr/local/bin/$name"; done
for name in pip pip3; do ln -sf /usr/bin/pip3 "/usr/local/bin/$name"; done
apt-get clean
rm -rf /var/lib/apt/lists/*
