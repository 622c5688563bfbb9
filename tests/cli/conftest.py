"""Fixtures for the tests of several rooms of the command line."""

from __future__ import annotations

import pytest

from .running import run


@pytest.fixture
def background_job(gearmand):
    """A background job that nobody does: its reference."""
    done = run("submit", "nobody", "x", "--background", "--unique", "mine", server=gearmand)
    assert done.returncode == 0
    return done.stdout.decode().strip()
