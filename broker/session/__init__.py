"""A session: its windows, its readers' places in the logs, its queue. Sans-IO."""
