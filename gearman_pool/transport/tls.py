"""What went wrong in TLS, in words that say what to do.

Threads: any may call these functions, which keep nothing. No handshake is made here.
"""

from __future__ import annotations

import ssl

from ..errors import TLSError
from ..settings.addresses import ServerAddress

__all__ = ["looks_like_tls", "tls_error"]

_NOT_TLS = (
    "does the server speak TLS on this port? A gearmand that was built without it takes --ssl and serves plain TCP"
)
_VERSIONS = "the server and the SSLContext have no TLS version in common; TLS 1.2 and 1.3 are the usual ones"
_WANTS_CERTIFICATE = "the server wants a certificate of its clients: give cert and key, or an SSLContext that has them"
_REFUSES_CERTIFICATE = "the server does not accept the client's certificate: check that its authority is known there"

#: What to do about the reasons that OpenSSL gives.
_ADVICE = {
    "WRONG_VERSION_NUMBER": _NOT_TLS,
    "UNEXPECTED_EOF_WHILE_READING": _NOT_TLS,
    "HTTP_REQUEST": _NOT_TLS,
    "UNSUPPORTED_PROTOCOL": _VERSIONS,
    "TLSV1_ALERT_PROTOCOL_VERSION": _VERSIONS,
    "NO_PROTOCOLS_AVAILABLE": _VERSIONS,
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": _WANTS_CERTIFICATE,
    "SSLV3_ALERT_HANDSHAKE_FAILURE": f"{_WANTS_CERTIFICATE}; or they agree on no cipher",
    "TLSV1_ALERT_UNKNOWN_CA": _REFUSES_CERTIFICATE,
    "SSLV3_ALERT_BAD_CERTIFICATE": _REFUSES_CERTIFICATE,
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "the client's certificate has expired",
    "SSLV3_ALERT_CERTIFICATE_REVOKED": "the client's certificate was revoked",
}

# OpenSSL's X509_V_ERR_* numbers.
_NOT_YET_VALID, _EXPIRED = 9, 10
_WRONG_NAME = (62, 63, 64)
_UNKNOWN_ISSUER = (2, 18, 19, 20, 21)


def tls_error(address: ServerAddress, error: Exception) -> TLSError:
    """Return the error for a handshake that failed, or for a server that broke it off."""
    text = _refusal(address, error) if isinstance(error, ssl.SSLCertVerificationError) else _failure(error)
    found = TLSError(f"{address}: {text}", server=str(address))
    found.__cause__ = error
    return found


def _refusal(address: ServerAddress, error: ssl.SSLCertVerificationError) -> str:
    text = f"the server's certificate was refused: {error.verify_message.rstrip('.')}"
    if error.verify_code in _WRONG_NAME:
        name = address.server_hostname or address.host
        return (
            f"{text}; connect by a name that it has, or give ServerAddress(..., server_hostname=) in place of {name!r}"
        )
    if error.verify_code in _UNKNOWN_ISSUER:
        return f"{text}; if it is the right server, give the file of its authority as ca"
    if error.verify_code == _EXPIRED:
        return f"{text}; it must be renewed, unless this machine's clock is wrong"
    if error.verify_code == _NOT_YET_VALID:
        return f"{text}; check this machine's clock"
    return text


def _failure(error: Exception) -> str:
    reason = getattr(error, "reason", None)
    if reason in _ADVICE:
        return f"the TLS handshake failed: {reason}; {_ADVICE[reason]}"
    # Some Pythons, such as Debian 12's 3.11.2, say of the same end that the connection has been closed.
    if isinstance(error, ssl.SSLError) and not isinstance(error, (ssl.SSLEOFError, ssl.SSLZeroReturnError)):
        return f"the TLS handshake failed: {reason or error}"
    return f"the server closed the connection during the TLS handshake; {_NOT_TLS}"


def looks_like_tls(data: bytes) -> bool:
    """Whether a plain TCP connection's first bytes are an alert of TLS."""
    return data[:2] == b"\x15\x03"
