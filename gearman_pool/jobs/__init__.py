"""What a job is, for whoever holds one: `gearman_pool.job` and `gearman_pool.future` are the doors for users."""
