"""The peers meet on the real gearmand, and on the embedded server: what others expect of a server, it must do too."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ..conformance.servers import KINDS, ConformanceServer, missing
from ..support.processes import REQUIRE_REAL


@pytest.fixture(params=list(KINDS))
def gearmand(request: pytest.FixtureRequest) -> Iterator[ConformanceServer]:
    """A fresh server of each kind."""
    if what := missing(request.param):
        if REQUIRE_REAL:
            pytest.fail(f"{what} is missing, and GEARMAN_POOL_REQUIRE_REAL forbids skipping", pytrace=False)
        pytest.skip(f"{what} is missing")
    server = KINDS[request.param]()
    yield server
    server.close()
