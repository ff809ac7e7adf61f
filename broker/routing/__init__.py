"""Who gets a message: exact topics in a dict, wildcards in a trie. Sans-IO."""
