"""The shared types: ids, topics, messages, permissions, refusals. Pure values, no I/O."""
