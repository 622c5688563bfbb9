"""What the tests of settings share."""

from __future__ import annotations

from pathlib import Path

import pytest

from .values import SECRET


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    """A CA, and a client's certificate and key, as files."""
    trustme = pytest.importorskip("trustme")
    authority = trustme.CA()
    client = authority.issue_cert("client.example.org")
    paths = {name: str(tmp_path / f"{SECRET}-{name}+file.pem") for name in ("ca", "cert", "key")}
    authority.cert_pem.write_to_path(paths["ca"])
    client.cert_chain_pems[0].write_to_path(paths["cert"])
    client.private_key_pem.write_to_path(paths["key"])
    return paths
