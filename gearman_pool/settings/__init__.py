"""Servers and options: read once, checked once. `gearman_pool.options` is the door for users."""
