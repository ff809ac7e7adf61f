"""Backplanes: what the nodes of a cluster tell each other."""
