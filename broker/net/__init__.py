"""Sockets: the thin, impure edge of the data plane."""
