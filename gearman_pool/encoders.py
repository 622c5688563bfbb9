"""Payloads to bytes and back.

An encoder is anything with ``encode(object)`` and ``decode(bytes)``: a class with class methods, as python-gearman has
it, or an instance. None of those shipped can execute code that a payload holds.

Threads: an encoder is called by those that submit, that ask for a result, and that run tasks, several at a time; never
by the I/O thread.
"""

from __future__ import annotations

import json
from typing import Any, Protocol

from .errors import EncodeError

__all__ = ["DataEncoder", "BytesEncoder", "NoopEncoder", "JSONEncoder", "Encoder", "encode_payload"]


class Encoder(Protocol):
    """What an encoder must have. Both methods are called from several threads at once."""

    def encode(self, encodable_object: Any, /) -> Any:
        """Return the bytes of a payload; a str is taken as UTF-8."""

    def decode(self, decodable_string: Any, /) -> Any:
        """Return the object that the bytes of a payload stand for."""


class DataEncoder:
    """Base for encoders: passes through what it is given. Both methods are called from several threads at once.

    Example::

        class PickleEncoder(DataEncoder):  # only where everyone who can reach the server is trusted: pickle runs code
            @classmethod
            def encode(cls, encodable_object):
                return pickle.dumps(encodable_object)

            @classmethod
            def decode(cls, decodable_string):
                return pickle.loads(decodable_string)

        client = GearmanClient(["localhost"], data_encoder=PickleEncoder)
    """

    @classmethod
    def encode(cls, encodable_object: Any) -> Any:
        """Return the bytes (or text, taken as UTF-8) of a payload."""
        return encodable_object

    @classmethod
    def decode(cls, decodable_string: Any) -> Any:
        """Return the object that the bytes of a payload stand for."""
        return decodable_string


class BytesEncoder(DataEncoder):
    """The default: bytes-like objects as they are, and text as UTF-8; what comes back is always bytes.

    Example::

        BytesEncoder.encode("naïve")  # b"na\\xc3\\xafve"
    """

    @classmethod
    def encode(cls, encodable_object: Any) -> bytes:
        """Return the payload as bytes.

        Raises:
            EncodeError: it is neither bytes-like nor str, or a str that has no UTF-8 form.
        """
        if type(encodable_object) is bytes:
            return encodable_object
        if isinstance(encodable_object, str):
            return _utf8(encodable_object)
        try:
            # Not bytes(object), which takes an int as a length and any iterable of ints.
            return bytes(memoryview(encodable_object))
        except TypeError:
            raise EncodeError(
                f"a payload of type {type(encodable_object).__name__} is not bytes: give bytes or str, or choose an "
                "encoder that takes it, such as data_encoder=JSONEncoder"
            ) from None

    @classmethod
    def _enforce_byte_string(cls, given_object: Any) -> None:
        # Called by encoders that were derived from python-gearman's NoopEncoder.
        if not isinstance(given_object, (bytes, bytearray, memoryview, str)):
            raise EncodeError(f"a payload of type {type(given_object).__name__} is neither bytes nor str")

    @classmethod
    def decode(cls, decodable_string: Any) -> bytes:
        """Return the payload as bytes."""
        return decodable_string if type(decodable_string) is bytes else bytes(decodable_string)


#: python-gearman's name for the encoder that is used when none is chosen.
NoopEncoder = BytesEncoder


class JSONEncoder(DataEncoder):
    """Objects as JSON in UTF-8, without spaces.

    An empty payload is no JSON, yet it is what a job has that was given no data, and a result has that was None: so
    ``b""`` is sent as it is, and an empty payload is read as None.

    Example::

        client = GearmanClient(["localhost"], data_encoder=JSONEncoder)
        client.submit("resize", {"width": 100}).result(timeout=5)
    """

    @classmethod
    def encode(cls, encodable_object: Any) -> bytes:
        """Return the object as JSON.

        Raises:
            TypeError, ValueError: it has no JSON form; NaN and the infinities have none.
        """
        if type(encodable_object) is bytes and not encodable_object:
            return b""
        return _utf8(json.dumps(encodable_object, allow_nan=False, ensure_ascii=False, separators=(",", ":")))

    @classmethod
    def decode(cls, decodable_string: Any) -> Any:
        """Return the object that the JSON stands for.

        Raises:
            ValueError: it is no JSON.
        """
        return json.loads(decodable_string) if decodable_string else None


def encode_payload(encoder: Encoder, payload: Any) -> bytes:
    """Return a payload's bytes, made by any encoder a user may choose.

    Raises:
        EncodeError: the encoder raised, or gave neither bytes nor text. Its text does not hold the payload.
    """
    if encoder is BytesEncoder and type(payload) is bytes:
        return payload
    try:
        encoded = encoder.encode(payload)
    except EncodeError:
        raise
    except Exception as error:
        what = f"a payload of type {type(payload).__name__}"
        raise EncodeError(f"{_name(encoder)} cannot encode {what}: it raised {type(error).__name__}") from error
    if type(encoded) is bytes:
        return encoded
    if isinstance(encoded, str):
        return _utf8(encoded)
    try:
        return bytes(memoryview(encoded))
    except TypeError:
        raise EncodeError(
            f"{_name(encoder)}.encode() returned {type(encoded).__name__} for a payload of type "
            f"{type(payload).__name__}; it must return bytes or str"
        ) from None


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        # Not chained: that error holds the whole payload.
        raise EncodeError(
            f"a text payload has no UTF-8 form: a lone surrogate stands at index {error.start}; give bytes instead"
        ) from None


def _name(encoder: Encoder) -> str:
    return encoder.__name__ if isinstance(encoder, type) else type(encoder).__name__
