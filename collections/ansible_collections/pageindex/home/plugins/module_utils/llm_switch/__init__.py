"""The model switch on the host: a transaction under systemd's supervision, apart from the controller."""
