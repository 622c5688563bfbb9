"""`FaultProxy`: each fault, between raw sockets and between a client and a real server."""

from __future__ import annotations

import socket
import struct
import threading
import time

import pytest

from gearman_pool import GearmanClient
from gearman_pool.errors import ConnectionLost, ProtocolError, ServerUnavailable
from gearman_pool.testing import FaultProxy

from ..support.outcomes import wait_up
from ..support.raw import ECHO_REQ, ECHO_RES, OPTION_REQ, Closed, RawConnection, pack, pack_response
from ..support.waiting import wait_until


@pytest.fixture
def proxy(gearmand):
    with FaultProxy(gearmand.address) as proxy:
        yield proxy


@pytest.fixture
def raw(proxy):
    with _connect(proxy) as connection:
        yield connection


def _connect(proxy: FaultProxy, timeout: float = 10.0) -> RawConnection:
    host, _, port = proxy.address.rpartition(":")
    return RawConnection((host, int(port)), timeout)


def _echo(connection: RawConnection, data: bytes = b"x") -> None:
    assert connection.request(ECHO_REQ, data).body == data


class _Pair:
    """A server of the test's own behind a proxy: both ends as plain sockets."""

    def __init__(self, **options) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.proxy = FaultProxy(listener.getsockname()[:2], **options).start()
            host, _, port = self.proxy.address.rpartition(":")
            self.client = socket.create_connection((host, int(port)), 10)
            listener.settimeout(10)
            self.server, _ = listener.accept()
        self.server.settimeout(10)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.client.close()
        self.server.close()
        self.proxy.stop()


@pytest.fixture
def pair():
    with _Pair() as pair:
        yield pair


def _read(sock: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        piece = sock.recv(count - len(data))
        if not piece:
            break
        data += piece
    return data


# ---- without faults -------------------------------------------------------------------------------------------------


def test_client_and_server_talk_through_it(proxy, echo_worker):
    with GearmanClient([proxy.address]) as client:
        assert client.submit("reverse", b"abc").result(10) == b"cba"
    assert proxy.accepted == 1
    wait_until(lambda: proxy.connections == 0, message="the connection's end is passed on")
    assert proxy.forwarded("to_server") > 0
    assert proxy.forwarded("to_client") > 0


def test_large_payloads_pass_both_ways_unchanged(pair):
    data = bytes(range(256)) * 4096 * 20  # 20 MiB
    for source, sink in ((pair.client, pair.server), (pair.server, pair.client)):
        sender = threading.Thread(target=source.sendall, args=(data,))
        sender.start()
        assert _read(sink, len(data)) == data
        sender.join(10)


def test_sender_is_held_up_when_the_receiver_reads_nothing(pair):
    pair.client.setblocking(False)
    sent = 0
    deadline = time.monotonic() + 3
    while time.monotonic() < deadline:
        try:
            sent += pair.client.send(bytes(1 << 20))
        except BlockingIOError:
            break_at = sent
            # Still full a moment later: the proxy does not take it all into its memory.
            if not threading.Event().wait(0.2) and sent == break_at:
                try:
                    sent += pair.client.send(b"x")
                except BlockingIOError:
                    break
    assert sent < 64 * 1024 * 1024


def test_end_of_one_direction_is_passed_on_and_the_other_goes_on(pair):
    pair.client.sendall(b"question")
    pair.client.shutdown(socket.SHUT_WR)
    assert _read(pair.server, 100) == b"question"
    pair.server.sendall(b"answer")
    pair.server.close()
    assert _read(pair.client, 100) == b"answer"
    wait_until(lambda: pair.proxy.connections == 0)


def test_server_that_is_down_closes_the_connection():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()[:2]
    with FaultProxy(address) as proxy, _connect(proxy) as connection, pytest.raises(Closed):
        connection.receive()


def test_start_and_stop_may_be_repeated_and_keep_the_port(gearmand):
    proxy = FaultProxy(gearmand.address)
    with pytest.raises(RuntimeError, match="start"):
        _ = proxy.address
    proxy.stop()
    assert proxy.start() is proxy
    address = proxy.address
    assert proxy.start().address == address
    proxy.stop()
    proxy.stop()
    with proxy, _connect(proxy) as connection:
        assert proxy.address == address
        _echo(connection)
        assert repr(proxy) == f"<FaultProxy {address} -> {gearmand.address}, 1 connections>"


def test_record_keeps_what_passed():
    with _Pair(record=True) as pair:
        pair.client.sendall(b"to the server")
        assert _read(pair.server, 13) == b"to the server"
        pair.server.sendall(b"and back")
        assert _read(pair.client, 8) == b"and back"
        assert pair.proxy.recorded("to_server") == b"to the server"
        assert pair.proxy.recorded("to_client") == b"and back"
        with pytest.raises(ValueError, match="one direction"):
            pair.proxy.recorded("both")


# ---- faults that last -----------------------------------------------------------------------------------------------


def test_delay_holds_bytes_back_in_both_directions(proxy, raw):
    _echo(raw)
    proxy.delay(0.15)
    started = time.monotonic()
    _echo(raw)
    assert 0.3 <= time.monotonic() - started < 5
    proxy.delay(0.15, "to_server")
    proxy.delay(0, "to_client")
    started = time.monotonic()
    _echo(raw)
    assert 0.15 <= time.monotonic() - started < 5


def test_lifting_a_delay_lets_go_of_what_was_held_back(proxy, raw):
    proxy.delay(600)
    raw.send(ECHO_REQ, b"held")
    threading.Timer(0.1, proxy.pass_through).start()
    assert raw.expect(ECHO_RES).body == b"held"


def test_swallowed_bytes_never_arrive_and_later_ones_do(proxy, raw):
    proxy.swallow()
    raw.send(ECHO_REQ, b"lost")
    with pytest.raises(TimeoutError):
        raw.receive(timeout=0.2)
    proxy.pass_through()
    raw.sock.settimeout(10)
    _echo(raw, b"found")


def test_swallow_takes_effect_in_one_direction(pair):
    pair.proxy.swallow("to_client")
    pair.client.sendall(b"there")
    assert _read(pair.server, 5) == b"there"
    pair.server.sendall(b"and back")
    pair.client.settimeout(0.2)
    with pytest.raises(TimeoutError):
        pair.client.recv(1)


def test_black_hole_hides_the_end_of_a_connection(pair):
    pair.proxy.swallow()
    pair.client.close()
    pair.server.settimeout(0.2)
    with pytest.raises(TimeoutError):
        pair.server.recv(1)
    pair.server.settimeout(10)
    pair.proxy.pass_through()
    assert pair.server.recv(1) == b""


def test_black_hole_accepts_even_where_the_server_is_down():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()[:2]
    with FaultProxy(address) as proxy:
        proxy.swallow()
        with _connect(proxy) as connection:
            connection.send(ECHO_REQ, b"lost")
            with pytest.raises(TimeoutError):
                connection.receive(timeout=0.2)
            proxy.pass_through()
            with pytest.raises(Closed):
                connection.receive(timeout=10)


def test_throttle_limits_the_rate_and_can_be_lifted(pair):
    pair.proxy.throttle(20_000)
    started = time.monotonic()
    pair.client.sendall(bytes(6_000))
    assert len(_read(pair.server, 6_000)) == 6_000
    assert 0.25 <= time.monotonic() - started < 5
    pair.proxy.throttle(None)
    started = time.monotonic()
    sender = threading.Thread(target=pair.client.sendall, args=(bytes(1_000_000),))
    sender.start()
    assert len(_read(pair.server, 1_000_000)) == 1_000_000
    assert time.monotonic() - started < 5
    sender.join(10)


def test_refused_connections_are_refused_and_live_ones_go_on(proxy, raw):
    _echo(raw)
    proxy.refuse()
    proxy.refuse()
    with pytest.raises(ConnectionRefusedError):
        _connect(proxy)
    _echo(raw)
    proxy.accept()
    proxy.accept()
    with _connect(proxy) as other:
        _echo(other)


def test_client_finds_the_server_again_after_refusals(proxy, echo_worker):
    with GearmanClient([proxy.address], submit_timeout=0.3, reconnect_backoff=(0.05, 0.1)) as client:
        wait_up(client)
        proxy.refuse()
        assert proxy.cut() == 1
        with pytest.raises((ServerUnavailable, ConnectionLost)):
            client.submit("echo", b"x").result(10)
        proxy.accept()
        wait_up(client)
        assert client.submit("echo", b"x").result(10) == b"x"


# ---- faults that strike once ----------------------------------------------------------------------------------------


def test_cut_closes_both_sides(pair):
    assert pair.proxy.cut() == 1
    assert pair.client.recv(1) == b""
    assert pair.server.recv(1) == b""
    assert pair.proxy.cut() == 0


def test_reset_resets_both_sides(pair):
    assert pair.proxy.reset() == 1
    for sock in (pair.client, pair.server):
        with pytest.raises(ConnectionResetError):
            sock.recv(1)


def test_reset_by_one_side_resets_the_other(pair):
    pair.server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    pair.server.close()
    with pytest.raises(ConnectionResetError):
        pair.client.recv(1)


@pytest.mark.parametrize("count", [0, 1, 11, 12, 500])
def test_cut_after_lets_exactly_so_many_bytes_pass(pair, count):
    pair.server.sendall(b"before")
    assert _read(pair.client, 6) == b"before"
    pair.proxy.cut_after(count)
    pair.server.sendall(bytes(1000))
    assert len(_read(pair.client, 1000)) == count
    assert pair.client.recv(1) == b""


def test_cut_after_strikes_once(proxy):
    proxy.cut_after(5)
    with _connect(proxy) as first:
        first.send(ECHO_REQ, b"x")
        with pytest.raises(Closed):
            first.receive()
    with _connect(proxy) as second:
        _echo(second)


def test_corrupt_flips_the_bytes_that_were_named(pair):
    pair.proxy.corrupt(2, skip=3)
    pair.server.sendall(b"ab")
    assert _read(pair.client, 2) == b"ab"
    pair.server.sendall(b"cdefgh")
    assert _read(pair.client, 6) == b"c" + bytes([ord("d") ^ 0xFF, ord("e") ^ 0xFF]) + b"fgh"


def test_corrupted_stream_closes_the_clients_connection_with_protocol_error(proxy):
    with GearmanClient([proxy.address], health_check_interval=0.05, reconnect_backoff=(0.05, 0.1)) as client:
        wait_up(client)
        proxy.corrupt(2)
        wait_until(lambda: client.stats().connections_lost == 1)
        wait_up(client)


@pytest.mark.parametrize("step", [1, 7, 12, 1000])
def test_drop_next_leaves_out_one_packet_wherever_the_stream_is_split(pair, step):
    pair.proxy.drop_next("WORK_STATUS")
    pair.proxy.drop_next("WORK_DATA", 2)
    status, data, echo = pack_response(12, b"H", b"1", b"2"), pack_response(28, b"H", b"x" * 50), pack_response(17, b"")
    stream = echo + status + b"OK some text\n" + data + status + data + data
    for start in range(0, len(stream), step):
        pair.server.sendall(stream[start : start + step])
    expected = echo + b"OK some text\n" + status + data
    assert _read(pair.client, len(expected)) == expected
    pair.server.close()
    assert pair.client.recv(1) == b""


def test_drop_next_works_toward_the_server_too(proxy, raw):
    proxy.drop_next("ECHO_REQ", direction="to_server")
    raw.send(ECHO_REQ, b"dropped")
    _echo(raw, b"second")


def test_packet_that_has_begun_to_pass_is_not_dropped(pair):
    packet = pack_response(17, b"hello")
    pair.server.sendall(packet[:5])
    assert _read(pair.client, 5) == packet[:5]
    pair.proxy.drop_next("ECHO_RES")
    pair.server.sendall(packet[5:] + packet + packet)
    pair.server.close()
    assert _read(pair.client, 1000) == packet[5:] + packet


def test_dropped_acceptance_is_found_out_by_the_order_of_replies(proxy):
    with GearmanClient([proxy.address], health_check_interval=0.2) as client:
        wait_up(client)
        proxy.drop_next("JOB_CREATED")
        error = client.submit("nobody").exception(10)
    assert isinstance(error, ConnectionLost)
    assert error.maybe_sent
    assert isinstance(error.__cause__, ProtocolError)


def test_replace_next_passes_other_bytes_in_place_of_the_packet(pair):
    packet = pack_response(17, b"real")
    pair.proxy.replace_next("ECHO_RES", b"whatever")
    pair.server.sendall(packet + packet)
    assert _read(pair.client, 8 + len(packet)) == b"whatever" + packet


def test_injected_bytes_come_between_packets(pair):
    packet = pack_response(17, b"real")
    assert pair.proxy.inject(b"at once") == 1
    assert _read(pair.client, 7) == b"at once"
    pair.server.sendall(packet[:15])
    assert _read(pair.client, 15) == packet[:15]
    pair.proxy.inject(b"later")
    pair.server.sendall(packet[15:] + packet)
    assert _read(pair.client, 1 + 5 + len(packet)) == packet[15:] + b"later" + packet


def test_injection_toward_the_server(pair):
    pair.proxy.inject(pack(OPTION_REQ, b"x"), "to_server")
    assert _read(pair.server, 13) == pack(OPTION_REQ, b"x")


def test_stream_that_is_not_gearman_passes_untouched(pair):
    pair.proxy.drop_next("ECHO_RES")
    data = b"\0\1\2" + pack_response(17, b"no packet any more")
    pair.server.sendall(data)
    assert _read(pair.client, len(data)) == data


def test_pass_through_disarms_what_has_not_struck(pair):
    proxy = pair.proxy
    proxy.delay(600)
    proxy.throttle(1)
    proxy.swallow()
    proxy.refuse()
    proxy.cut_after(3)
    proxy.corrupt()
    proxy.drop_next("ECHO_RES")
    proxy.pass_through()
    packet = pack_response(17, b"x")
    pair.server.sendall(packet)
    assert _read(pair.client, len(packet)) == packet
    with _connect(proxy):
        wait_until(lambda: proxy.accepted == 2)


@pytest.mark.parametrize(
    "call",
    [
        lambda proxy: proxy.delay(-1),
        lambda proxy: proxy.throttle(0),
        lambda proxy: proxy.delay(1, "sideways"),
        lambda proxy: proxy.cut_after(-1),
        lambda proxy: proxy.corrupt(0),
        lambda proxy: proxy.corrupt(1, skip=-1),
        lambda proxy: proxy.drop_next("NO_SUCH"),
        lambda proxy: proxy.drop_next("TEXT"),
        lambda proxy: proxy.drop_next("NOOP", 0),
        lambda proxy: proxy.recorded("to_client"),
    ],
)
def test_arguments_that_mean_nothing_are_refused(call):
    with pytest.raises(ValueError):
        call(FaultProxy("127.0.0.1:1"))


def test_faults_may_be_set_before_the_start(gearmand):
    proxy = FaultProxy(gearmand.address)
    proxy.delay(0.2, "to_client")
    with proxy, _connect(proxy) as connection:
        started = time.monotonic()
        _echo(connection)
        assert time.monotonic() - started >= 0.2


def test_several_connections_each_keep_their_own_stream(proxy):
    connections = [_connect(proxy) for _ in range(20)]
    try:
        for number, connection in enumerate(connections):
            connection.send(ECHO_REQ, b"%d" % number)
        for number, connection in enumerate(connections):
            assert connection.expect(ECHO_RES).body == b"%d" % number
        assert proxy.connections == 20
    finally:
        for connection in connections:
            connection.close()
    wait_until(lambda: proxy.connections == 0)
