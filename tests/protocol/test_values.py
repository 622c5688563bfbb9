"""Names on the wire: what is taken, what is refused, and what the refusal says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gearman_pool.protocol.limits import MAX_TASK_BYTES, MAX_UNIQUE_BYTES
from gearman_pool.protocol.values import encode_name, encode_task, encode_unique

ENCODERS: list[tuple[Callable[[Any], bytes], int]] = [(encode_task, MAX_TASK_BYTES), (encode_unique, MAX_UNIQUE_BYTES)]


@pytest.mark.parametrize(("encode", "longest"), ENCODERS)
@given(data=st.data())
def test_name_goes_to_the_wire_as_it_is_or_is_refused(
    encode: Callable[[Any], bytes], longest: int, data: st.DataObject
) -> None:
    name = data.draw(st.binary(max_size=longest + 10))
    if 0 < len(name) <= longest and b"\0" not in name:
        assert encode(name) == name
        # What the wire brought as text that was no UTF-8 goes back unchanged.
        assert encode(name.decode("utf-8", "surrogateescape")) == name
    else:
        with pytest.raises(ValueError):
            encode(name)


@pytest.mark.parametrize(("encode", "longest"), ENCODERS)
def test_longest_name_is_counted_in_bytes(encode: Callable[[Any], bytes], longest: int) -> None:
    assert len(encode("x" * longest)) == longest
    for name in ("x" * (longest + 1), "ü" * (longest // 2 + 1)):
        with pytest.raises(ValueError, match=f"it may have {longest}"):
            encode(name)


@pytest.mark.parametrize(("encode", "longest"), [(encode_task, 512), (encode_unique, 63)])
def test_longest_names_are_those_that_the_documents_promise(encode: Callable[[Any], bytes], longest: int) -> None:
    assert encode("x" * longest) == b"x" * longest
    with pytest.raises(ValueError, match=f"has {longest + 1} bytes"):
        encode("x" * (longest + 1))


@pytest.mark.parametrize("encode", [encode_task, encode_unique])
@pytest.mark.parametrize("name", ["", b"", "a\0b", b"\0", "\ud800"])
def test_name_that_would_break_the_packet_is_refused(encode: Callable[[Any], bytes], name: Any) -> None:
    with pytest.raises(ValueError):
        encode(name)


@pytest.mark.parametrize("encode", [encode_task, encode_unique])
@pytest.mark.parametrize("name", [None, 5, ["a"], object()])
def test_name_of_the_wrong_type_is_refused(encode: Callable[[Any], bytes], name: Any) -> None:
    with pytest.raises(TypeError, match=type(name).__name__):
        encode(name)


def test_prefix_and_task_share_the_limit() -> None:
    assert encode_task("resize", "staging.") == b"staging.resize"
    assert encode_task(b"x" * 500, "p" * 12) == b"p" * 12 + b"x" * 500
    with pytest.raises(ValueError, match="prefix"):
        encode_task("x" * 500, "p" * 13)


def test_empty_name_is_left_to_the_caller_of_encode_name() -> None:
    assert encode_name("", "the client id", 127) == b""
