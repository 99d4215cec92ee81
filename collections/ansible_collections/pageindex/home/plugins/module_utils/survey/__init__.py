"""What preflight reads on the host: one file a topic, each with `survey(request)`."""
