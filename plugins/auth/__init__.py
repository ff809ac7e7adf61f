"""Who a client is and what it may do: passwords, tokens, and the topic rules of the contract."""

from plugins.auth.plugin import TopicRulesPlugin, UserAuthPlugin

__all__ = ["TopicRulesPlugin", "UserAuthPlugin"]
