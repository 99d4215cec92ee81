#!/bin/sh
# Stands in for ollama/ollama: a program of the same name, command line and API, which answers without a model.
set -eu
export DEBIAN_FRONTEND=noninteractive
apt-get update -q
apt-get install -y -q --no-install-recommends ca-certificates python3
install -m 0755 /images/ollama.py /usr/bin/ollama
apt-get clean
rm -rf /var/lib/apt/lists/*
