"""What preflight thinks of a survey: one file a topic, with checks that are plain functions."""
