"""Who waits how, what runs on which thread, and what a fork or the exit does. Knows no jobs and no sockets."""
