"""A worker and a client of one gearmand."""

from __future__ import annotations

import pytest

from gearman_pool import GearmanClient, GearmanWorker


@pytest.fixture
def client(gearmand):
    with GearmanClient([gearmand.address]) as client:
        yield client


@pytest.fixture
def worker(gearmand):
    return GearmanWorker([gearmand.address])
