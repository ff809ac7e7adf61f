"""From committed messages to sockets: coalesced writes, live pushes, catching up."""
