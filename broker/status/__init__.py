"""Topics that tell how things are: presence, typing, `$SYS`."""
