"""Fixtures for the tests of ``gearman-pool work``."""

from __future__ import annotations

import pytest

from gearman_pool import GearmanClient

from .working import APP


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "jobs_app.py").write_text(APP)
    return tmp_path


@pytest.fixture
def client(gearmand):
    with GearmanClient([gearmand.address]) as client:
        yield client
        client.close(0)
