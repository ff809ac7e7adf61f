"""From a stored message to the sessions that are subscribed to it."""
