"""Sockets, connections and their deadlines: the I/O of the broker."""
