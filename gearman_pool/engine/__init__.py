"""What each role does with what its connections tell it: a client, a worker, an admin client."""
