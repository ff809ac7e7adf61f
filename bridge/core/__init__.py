"""What the handlers and the three APIs share: operations, access checks, notices, paging."""
