#!/bin/sh
# Stands in for haproxy:3.0: Debian 13's HAProxy 3.0 with the official image's paths and user id.
set -eu
export DEBIAN_FRONTEND=noninteractive
apt-get update -q
apt-get install -y -q --no-install-recommends haproxy
groupmod --gid 99 haproxy
usermod --uid 99 haproxy
mkdir -p /usr/local/etc/haproxy
ln -sf /usr/sbin/haproxy /usr/local/sbin/haproxy
apt-get clean
rm -rf /var/lib/apt/lists/*
