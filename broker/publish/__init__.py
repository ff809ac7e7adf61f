"""From a packet to a stored message."""
