"""What a server and the clients owe each other: one suite for every kind of server; see `servers`."""
