"""The client's engine: from a submitted job to the end of its future."""
