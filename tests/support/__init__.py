"""What the tests share: real servers, workers that are not ours, raw sockets and waiting with deadlines."""
