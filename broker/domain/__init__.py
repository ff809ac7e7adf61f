"""The types everyone shares: ids, topics, messages, refusals. Pure values, no I/O."""
