"""Names, addresses and paths of the staging environment, each in this one place."""

from __future__ import annotations

import os
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent

# Build products, keyed by content hash, shared by all checkouts of one user.
CACHE = Path(
    os.environ.get("PAGEINDEX_HOME_STAGING_CACHE", Path.home() / ".cache" / "pageindex-home" / "staging")
)
# What belongs to this checkout's running staging host: SSH key, known hosts, logs.
STATE = REPOSITORY / ".staging"

SSH_KEY = STATE / "id_ed25519"
KNOWN_HOSTS = STATE / "known_hosts"
HUB_LOG = STATE / "hub" / "requests.jsonl"
HUB_FAULTS = STATE / "hub" / "faults.json"
# Which folder of the cache the depot serves under which name, and how those repositories misbehave.
REPOSITORIES = STATE / "hub" / "repositories.json"
REPOSITORY_FAULTS = STATE / "hub" / "repository_faults.json"
# The authority of the depot's https addresses, which no system trusts by itself.
DEPOT_AUTHORITY = STATE / "depot-ca.crt"
PROXY_LOG = STATE / "proxy" / "access.log"

NETWORK = "pageindex-home-staging"
SUBNET = "172.31.250.0/24"
# This machine, as the staging network sees it.
CONTROLLER_ADDRESS = "172.31.250.1"
HOST_NAME = "pageindex-home-staging-host"
HOST_ADDRESS = "172.31.250.10"
BOOKWORM_ADDRESS = "172.31.250.11"
NOBLE_ADDRESS = "172.31.250.12"
DEPOT_NAME = "pageindex-home-staging-depot"
DEPOT_ADDRESS = "172.31.250.20"
DEPOT_NAMES = ("apt.staging.test", "pypi.staging.test", "hub.staging.test")
REGISTRY_NAME = "pageindex-home-staging-registry"
REGISTRY_ADDRESS = "172.31.250.21"
PROXY_NAME = "pageindex-home-staging-proxy"
PROXY_ADDRESS = "172.31.250.22"
REGISTRY_DOMAIN = "registry.staging.test"
# The outer engine pushes through loopback, which Docker trusts without a certificate authority.
REGISTRY_PUSH = "127.0.0.1:5443"

IMAGE_PREFIX = "pageindex-home-staging"
DEPOT_SUITE = "trixie"

DEBIAN_MIRROR = os.environ.get("PAGEINDEX_HOME_STAGING_DEBIAN_MIRROR", "http://deb.debian.org/debian")
# Where pip finds the CPU build of PyTorch when its configured indexes do not have it.
TORCH_INDEX = os.environ.get("PAGEINDEX_HOME_STAGING_TORCH_INDEX", "https://download.pytorch.org/whl/cpu")

SMOLLM2_REPOSITORY = "HuggingFaceTB/SmolLM2-135M-Instruct"
TINY_QWEN3_REPOSITORY = "pageindex-home/tiny-qwen3"
# Staging's own names: the weights of SmolLM2 a second time, a model that talks nonsense, and one that asks for a token.
SECOND_REPOSITORY = "pageindex-home/smollm2-135m-second"
GARBAGE_REPOSITORY = "pageindex-home/garbage-model"
GATED_REPOSITORY = "pageindex-home/gated-model"
# Opens the gated one; any other token is known and not allowed in.
GATED_TOKEN = "hf_staging_token_that_opens_the_gated_model"
