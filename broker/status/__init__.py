"""Status topics: presence, typing and `$SYS`."""
