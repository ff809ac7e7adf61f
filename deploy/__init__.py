"""Ways to run several nodes."""
