"""Single values as they stand in a packet. No packets here, and no I/O.

Any thread may call these; none of them changes anything.
"""

from __future__ import annotations

from typing import Any

from .limits import MAX_CLIENT_ID_BYTES, MAX_TASK_BYTES, MAX_UNIQUE_BYTES

__all__ = ["encode_client_id", "encode_name", "encode_task", "encode_unique", "number"]


def encode_name(value: Any, what: str, longest: int) -> bytes:
    """Return a name as UTF-8. Bytes that are no UTF-8 come back from ``surrogateescape`` as they were.

    Args:
        value: The name, str or bytes; an empty one is for the caller to refuse.
        what: What it is, for the errors' text.
        longest: How many bytes it may have.

    Raises:
        TypeError: it is neither str nor bytes.
        ValueError: it holds a NUL byte, has no UTF-8 form, or is too long.
    """
    if isinstance(value, str):
        try:
            encoded = value.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError:
            raise ValueError(f"{what} cannot be written in UTF-8: it holds a lone surrogate") from None
    elif isinstance(value, (bytes, bytearray)):
        encoded = bytes(value)
    else:
        raise TypeError(f"{what} is of type {type(value).__name__}; it must be str or bytes")
    if b"\0" in encoded:
        raise ValueError(f"{what} must not hold a NUL byte: it would shift what follows it")
    if len(encoded) > longest:
        raise ValueError(f"{what} has {len(encoded)} bytes; it may have {longest}")
    return encoded


def encode_task(task: Any, prefix: str = "") -> bytes:
    """Return a task's name for the wire, behind the prefix. Both together may have 512 bytes.

    Raises:
        TypeError, ValueError: it is no name, is empty, or is too long.

    Example::

        encode_task("resize", "staging.")  # b"staging.resize"
    """
    encoded = encode_name(task, "the task's name", MAX_TASK_BYTES)
    if not encoded:
        raise ValueError("the task's name is empty")
    if not prefix:
        return encoded
    encoded = encode_name(prefix, "prefix", MAX_TASK_BYTES) + encoded
    return encode_name(encoded, "the task's name with its prefix", MAX_TASK_BYTES)


def encode_unique(unique: Any) -> bytes:
    """Return a job's unique for the wire.

    Raises:
        TypeError, ValueError: it is none, is empty, or is longer than the 63 bytes that the server keeps.

    Example::

        encode_unique("user-42")  # b"user-42"
    """
    encoded = encode_name(unique, "unique", MAX_UNIQUE_BYTES)
    if not encoded:
        raise ValueError("unique is empty; leave it out to have one made")
    return encoded


def encode_client_id(client_id: Any) -> bytes:
    """Return what a worker is called, for the wire.

    Raises:
        TypeError, ValueError: it is no name, is empty, has control characters, or is longer than the server keeps.
    """
    encoded = encode_name(client_id, "the client id", MAX_CLIENT_ID_BYTES)
    if not encoded or any(byte < 32 or byte == 127 for byte in encoded):
        raise ValueError("the client id is empty or has control characters: the servers' lists have one line for each")
    return encoded


def number(text: bytes) -> int:
    """Read a number of WORK_STATUS or STATUS_RES as gearmand does: what is no number counts as 0.

    Workers may send any text there; it is relayed as it came.
    """
    try:
        return int(text)
    except ValueError:
        try:
            return int(float(text))
        except (ValueError, OverflowError):
            return 0
