"""A session: its packet ids, its places in the logs, its queue. Sans-IO."""
