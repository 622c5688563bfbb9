"""Fixtures of the tests of faults."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ..support.gearmand import Gearmand
from ..support.stunnel import Stunnel
from .tls import TLSFiles


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> TLSFiles:
    """An authority that the tests trust, with a certificate for a server on loopback and one for a client."""
    return TLSFiles.issue(Path(tmp_path_factory.mktemp("tls")))


@pytest.fixture
def stunnel(gearmand: Gearmand, stunnels: Callable[..., Stunnel], tls: TLSFiles) -> Stunnel:
    """A TLS port in front of ``gearmand`` with a certificate that is in order."""
    return stunnels(gearmand.address, tls.server)
