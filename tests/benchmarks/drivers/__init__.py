"""Who does the work: one module for each client, each with the dict ``WORKS`` from a work's name to its function.

A work takes a `tests.benchmarks.works.Load` and returns a dict of numbers. The modules import their client at the top:
a client that is not installed shows as an ImportError.
"""
