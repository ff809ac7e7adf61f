"""The connected sessions of a node: attach, take-over, detach, and saving their cursors."""

from broker.registry.registry import Registry
from broker.registry.roles import Arriving, Client, Elsewhere, RegistryClock, RegistryLimits

__all__ = ["Arriving", "Client", "Elsewhere", "Registry", "RegistryClock", "RegistryLimits"]
