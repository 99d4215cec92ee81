"""Taking things of the project off a host. Every part works whatever of the others is gone already."""
