"""Authentication by password or token, and the topic rules of docs/topics.md."""

from plugins.auth.plugin import TopicRulesPlugin, UserAuthPlugin

__all__ = ["TopicRulesPlugin", "UserAuthPlugin"]
