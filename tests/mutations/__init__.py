"""Small ways to break the package on purpose, and which tests must notice: ``python -m tests.mutations``."""
