"""The store on MongoDB: messages, conversations, sessions and retained messages of several nodes."""

from plugins.persistence.mongodb.plugin import MongoPersistencePlugin

__all__ = ["MongoPersistencePlugin"]
