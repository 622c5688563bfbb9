"""send and recv, in the form that keeps the interpreter's lock and in the plain one."""

from __future__ import annotations

import socket
import sys

import pytest

from gearman_pool.transport import syscalls

_FORMS = [
    pytest.param(syscalls.send, syscalls.receiver, id="chosen"),
    pytest.param(syscalls.send_plain, lambda: syscalls.receive_plain, id="plain"),
]


@pytest.fixture
def pair():
    left, right = socket.socketpair()
    left.setblocking(False)
    right.setblocking(False)
    yield left, right
    left.close()
    right.close()


def test_interpreter_lock_is_kept_where_there_is_one():
    has_lock = getattr(sys, "_is_gil_enabled", lambda: True)()
    assert has_lock == syscalls.KEEPS_GIL or sys.platform == "win32"


@pytest.mark.parametrize(("send", "receiver"), _FORMS)
@pytest.mark.parametrize("data", [b"x", b"\0" * 1000, bytes(range(256)) * 100])
def test_what_is_sent_is_received(pair, send, receiver, data):
    left, right = pair
    assert send(left, data) == len(data)
    receive, got = receiver(), b""
    while len(got) < len(data):
        got += receive(right)
    assert got == data


@pytest.mark.parametrize(("send", "receiver"), _FORMS)
def test_nothing_to_read_is_none_and_the_end_is_empty(pair, send, receiver):
    left, right = pair
    assert receiver()(right) is None
    left.close()
    assert receiver()(right) == b""


@pytest.mark.parametrize(("send", "receiver"), _FORMS)
def test_full_buffer_takes_a_part_and_then_nothing(pair, send, receiver):
    left, _ = pair
    while sent := send(left, bytes(60_000)):
        assert 0 < sent <= 60_000
    assert send(left, b"x") == 0


@pytest.mark.parametrize(("send", "receiver"), _FORMS)
def test_broken_connection_raises(pair, send, receiver):
    left, right = pair
    right.close()
    with pytest.raises(OSError, match="Broken pipe"):
        send(left, b"x")
    left.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        send(left, b"x")
    with pytest.raises(OSError, match="Bad file descriptor"):
        receiver()(left)


def test_views_and_large_buffers_are_sent_too(pair):
    left, right = pair
    assert syscalls.send(left, memoryview(b"abc")[1:]) == 2
    assert syscalls.receiver()(right) == b"bc"
    assert syscalls.send(left, bytes(syscalls.KEEP_LIMIT + 1)) > 0
