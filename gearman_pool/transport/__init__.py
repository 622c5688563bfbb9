"""Everything that touches a socket: the I/O thread, connections and the pool."""
