"""The worker's engine: from a job that a server assigns to the packet that ends it."""
