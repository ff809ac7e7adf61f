"""Implementations of the storage ports (broker.ports)."""
