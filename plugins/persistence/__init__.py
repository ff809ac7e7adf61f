"""Implementations of the storage ports of `broker.ports`: one package per store."""
