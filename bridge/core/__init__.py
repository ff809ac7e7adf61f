"""What the handlers and the ways in share: operations, rights, notices, pages."""
