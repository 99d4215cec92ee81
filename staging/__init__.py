"""The embedded staging host: a systemd container with simulated GPUs that Ansible reaches over SSH."""
