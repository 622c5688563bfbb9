"""Servers for the tests of settings, and what must be true of a TLS context."""

from __future__ import annotations

import ssl
from ipaddress import IPv6Address

from hypothesis import strategies as st

SECRET = "hunter2"

NAMES = st.from_regex(r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,20}[A-Za-z0-9])?", fullmatch=True)
IPV6 = st.builds(lambda number: str(IPv6Address(number)), st.integers(0, 2**128 - 1))
HOSTS = NAMES | IPV6 | st.builds(lambda host: host + "%eth0", IPV6)
PORTS = st.integers(1, 65535)


def assert_verifies(context: ssl.SSLContext | None) -> None:
    assert context is not None
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2
