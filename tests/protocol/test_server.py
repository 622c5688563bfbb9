"""The server's state machine, without sockets and without a clock."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from gearman_pool.protocol.commands import COMMANDS, Command
from gearman_pool.protocol.packets import COPY_LIMIT, REQ, Decoder, pack, split_arguments
from gearman_pool.protocol.server import JobServer, Peer
from gearman_pool.protocol.server.queues import JobState


def request(command: Command, *arguments: bytes) -> bytes:
    packet = pack(command, *arguments, magic=REQ)
    return packet if isinstance(packet, bytes) else b"".join(packet)


class World:
    """A server, and peers by name; ``now`` is the time it is told."""

    def __init__(self, step: int = 1_000_000, **options) -> None:
        self.server = JobServer("s", **options)
        self.now = 1000.0
        self.step = step
        self.decoders: dict[Peer, Decoder] = {}

    def connect(self) -> Peer:
        peer = self.server.connect(len(self.decoders) + 3, "127.0.0.1")
        self.decoders[peer] = Decoder()
        return peer

    def send(self, peer: Peer, command: Command, *arguments: bytes) -> list[tuple]:
        return self.send_bytes(peer, request(command, *arguments))

    def send_bytes(self, peer: Peer, data: bytes) -> list[tuple]:
        for start in range(0, len(data), self.step):
            self.server.receive(peer, data[start : start + self.step], self.now)
        return self.got(peer)

    def got(self, peer: Peer) -> list[tuple]:
        """What the peer has been sent since the last look: (command's name, arguments...), or (line,)."""
        data = b"".join(peer.out)
        peer.out.clear()
        peer.out_size = 0
        decoder = self.decoders[peer]
        decoder.feed(data)
        return [
            (Command(number).name, *split_arguments(number, body)) if number else (body,)
            for number, body in decoder.packets()
        ]

    def worker(self, *tasks: bytes) -> Peer:
        peer = self.connect()
        for task in tasks:
            assert self.send(peer, Command.CAN_DO, task) == []
        return peer

    def leave(self, peer: Peer) -> None:
        self.server.disconnect(peer)


@pytest.fixture(params=[1_000_000, 1, 7], ids=["whole", "byte by byte", "by sevens"])
def world(request):
    return World(request.param)


def created(world, peer, command=Command.SUBMIT_JOB, task=b"f", unique=b"u", data=b"d", *middle) -> bytes:
    ((name, handle),) = world.send(peer, command, task, unique, *middle, data)
    assert name == "JOB_CREATED"
    return handle


def test_foreground_job_goes_to_a_worker_and_its_result_back(world):
    client, worker = world.connect(), world.worker(b"f")
    assert world.send(worker, Command.GRAB_JOB_UNIQ) == [("NO_JOB",)]
    assert world.send(worker, Command.PRE_SLEEP) == []
    handle = created(world, client, data=b"da\0ta")
    assert handle == b"H:s:1"
    assert world.got(worker) == [("NOOP",)]
    assert world.send(worker, Command.GRAB_JOB_UNIQ) == [("JOB_ASSIGN_UNIQ", handle, b"f", b"u", b"da\0ta")]
    world.send(worker, Command.WORK_DATA, handle, b"part")
    world.send(worker, Command.WORK_WARNING, handle, b"careful")
    world.send(worker, Command.WORK_STATUS, handle, b"1", b"2")
    world.send(worker, Command.WORK_COMPLETE, handle, b"res\0ult")
    assert world.got(client) == [
        ("WORK_DATA", handle, b"part"),
        ("WORK_WARNING", handle, b"careful"),
        ("WORK_STATUS", handle, b"1", b"2"),
        ("WORK_COMPLETE", handle, b"res\0ult"),
    ]
    assert not world.server.table.jobs


def test_pre_sleep_is_answered_at_once_if_there_is_a_job(world):
    client, worker = world.connect(), world.worker(b"f")
    created(world, client)
    assert world.send(worker, Command.PRE_SLEEP) == [("NOOP",)]


def test_sleeping_worker_is_woken_once_and_awake_ones_are_not(world):
    client, asleep, awake = world.connect(), world.worker(b"f"), world.worker(b"f")
    world.send(asleep, Command.PRE_SLEEP)
    created(world, client, unique=b"1")
    created(world, client, unique=b"2")
    assert world.got(asleep) == [("NOOP",)]
    assert world.got(awake) == []


def test_priorities_come_before_functions_and_functions_take_turns(world):
    client, worker = world.connect(), world.worker(b"a", b"b")
    for task in (b"a", b"b"):
        created(world, client, Command.SUBMIT_JOB_LOW_BG, task, b"low " + task)
        created(world, client, Command.SUBMIT_JOB_BG, task, b"1 " + task)
        created(world, client, Command.SUBMIT_JOB_BG, task, b"2 " + task)
    created(world, client, Command.SUBMIT_JOB_HIGH_BG, b"b", b"high b")
    order = [world.send(worker, Command.GRAB_JOB_UNIQ)[0][3] for _ in range(7)]
    assert order == [b"high b", b"1 a", b"1 b", b"2 a", b"2 b", b"low a", b"low b"]


def test_worker_that_goes_gives_its_jobs_to_the_next_and_status_starts_anew(world):
    client, first, second = world.connect(), world.worker(b"f"), world.worker(b"f")
    handle = created(world, client)
    later = created(world, client, unique=b"later")
    world.send(first, Command.GRAB_JOB_UNIQ)
    world.send(first, Command.WORK_STATUS, handle, b"1", b"2")
    world.got(client)
    assert world.send(client, Command.GET_STATUS, handle) == [("STATUS_RES", handle, b"1", b"1", b"1", b"2")]
    world.leave(first)
    assert world.send(client, Command.GET_STATUS, handle) == [("STATUS_RES", handle, b"1", b"0", b"0", b"0")]
    assert world.send(second, Command.GRAB_JOB)[0][1] == handle
    assert world.send(second, Command.GRAB_JOB)[0][1] == later


def test_job_retries_are_bounded_if_asked_for():
    world = World(job_retries=2)
    client = world.connect()
    handle = created(world, client)
    for _ in range(2):
        worker = world.worker(b"f")
        assert world.send(worker, Command.GRAB_JOB)[0][1] == handle
        world.leave(worker)
    assert world.got(client) == [("WORK_FAIL", handle)]


def test_several_submits_of_one_unique_share_a_job_and_each_gets_every_packet(world):
    one, two, worker = world.connect(), world.connect(), world.worker(b"f")
    handle = created(world, one)
    assert created(world, one, data=b"other") == handle
    assert created(world, two, Command.SUBMIT_JOB_HIGH) == handle
    assert world.send(two, Command.GET_STATUS_UNIQUE, b"u") == [
        ("STATUS_RES_UNIQUE", b"u", b"1", b"0", b"0", b"0", b"3")
    ]
    assert world.send(worker, Command.GRAB_JOB)[0] == ("JOB_ASSIGN", handle, b"f", b"d")
    world.send(worker, Command.WORK_COMPLETE, handle, b"r")
    assert world.got(one) == [("WORK_COMPLETE", handle, b"r")] * 2
    assert world.got(two) == [("WORK_COMPLETE", handle, b"r")]


def test_job_of_a_worker_that_goes_wakes_one_that_sleeps(world):
    client, first, asleep = world.connect(), world.worker(b"f"), world.worker(b"f")
    handle = created(world, client)
    assert world.send(first, Command.GRAB_JOB)[0][1] == handle
    world.send(asleep, Command.PRE_SLEEP)
    world.leave(first)
    assert world.got(asleep) == [("NOOP",)]
    assert world.send(asleep, Command.GRAB_JOB)[0][1] == handle


@pytest.mark.parametrize(
    ("unique", "data", "same"), [(b"", b"d", False), (b"-", b"d", True), (b"-", b"", False), (b"#", b"", True)]
)
def test_special_uniques(world, unique, data, same):
    client = world.connect()
    first = created(world, client, unique=unique, data=data)
    assert (created(world, client, unique=unique, data=data) == first) is same
    assert created(world, client, task=b"g", unique=unique, data=data) != first


def test_last_client_that_leaves_takes_a_waiting_job_along_and_leaves_no_zombie(world):
    client, worker = world.connect(), world.worker(b"f")
    first = created(world, client)
    world.leave(client)
    assert not world.server.table.jobs
    again = world.connect()
    second = created(world, again)
    assert second != first
    assert world.send(worker, Command.GRAB_JOB)[0][1] == second


def test_background_job_outlives_a_foreground_client_that_joined_it(world):
    background, foreground, worker = world.connect(), world.connect(), world.worker(b"f")
    for first, second in ((Command.SUBMIT_JOB_BG, Command.SUBMIT_JOB), (Command.SUBMIT_JOB, Command.SUBMIT_JOB_BG)):
        foreground = world.connect()
        who = {Command.SUBMIT_JOB: foreground, Command.SUBMIT_JOB_BG: background}
        handle = created(world, who[first], first)
        assert created(world, who[second], second) == handle
        world.leave(foreground)
        assert world.send(worker, Command.GRAB_JOB)[0][1] == handle
        world.send(worker, Command.WORK_COMPLETE, handle, b"")


def test_exception_is_final_and_a_failure_for_clients_that_did_not_ask_for_it(world):
    plain, asking, worker = world.connect(), world.connect(), world.worker(b"f")
    assert world.send(asking, Command.OPTION_REQ, b"Exceptions") == [("OPTION_RES", b"Exceptions")]
    handle = created(world, plain)
    created(world, asking)
    world.send(worker, Command.GRAB_JOB)
    world.send(worker, Command.WORK_EXCEPTION, handle, b"why")
    assert world.got(plain) == [("WORK_FAIL", handle)]
    assert world.got(asking) == [("WORK_EXCEPTION", handle, b"why")]
    assert world.send(worker, Command.WORK_FAIL, handle)[0][:2] == ("ERROR", b"JOB_NOT_FOUND")


def test_delayed_job_wakes_a_sleeping_worker_when_it_is_due(world):
    client, worker = world.connect(), world.worker(b"f")
    world.send(worker, Command.PRE_SLEEP)
    handle = created(world, client, Command.SUBMIT_JOB_EPOCH, b"f", b"u", b"d", b"1010")
    assert world.server.tick(world.now) == 1010
    assert world.send(worker, Command.GRAB_JOB) == [("NO_JOB",)]
    world.send(worker, Command.PRE_SLEEP)
    assert world.server.tick(1010.0) is None
    assert world.got(worker) == [("NOOP",)]
    assert world.send(worker, Command.GRAB_JOB)[0][1] == handle


@pytest.mark.parametrize("epoch", [b"0", b"-5", b"abc", b"999", b"1000"])
def test_delayed_job_of_the_past_is_queued_at_once(world, epoch):
    client, worker = world.connect(), world.worker(b"f")
    handle = created(world, client, Command.SUBMIT_JOB_EPOCH, b"f", b"u", b"d", epoch)
    assert world.send(worker, Command.GRAB_JOB)[0][1] == handle


def test_time_limit_gives_the_job_to_another_worker(world):
    client, slow, other = world.connect(), world.connect(), world.worker(b"f")
    world.send(slow, Command.CAN_DO_TIMEOUT, b"f", b"2500")
    handle = created(world, client)
    world.send(slow, Command.GRAB_JOB)
    assert world.server.tick(world.now) == world.now + 2.5
    world.server.tick(world.now + 2.4)
    assert world.send(other, Command.GRAB_JOB) == [("NO_JOB",)]
    world.server.tick(world.now + 2.6)
    assert world.send(other, Command.GRAB_JOB)[0][1] == handle
    assert world.send(slow, Command.WORK_COMPLETE, handle, b"late")[0][:2] == ("ERROR", b"JOB_NOT_FOUND")
    world.send(other, Command.WORK_COMPLETE, handle, b"in time")
    assert world.got(client) == [("WORK_COMPLETE", handle, b"in time")]


@pytest.mark.parametrize("limit", [b"9" * 18, b"9" * 400, b"1e300", b"-" + b"9" * 400, b"no number"])
def test_time_limit_of_any_size_is_taken(world, limit):
    client, worker = world.connect(), world.connect()
    assert world.send(worker, Command.CAN_DO_TIMEOUT, b"f", limit) == []
    handle = created(world, client)
    assert world.send(worker, Command.GRAB_JOB)[0][1] == handle
    due = world.server.tick(world.now)
    assert due is None or due > world.now + 1e9


def test_time_limit_of_a_job_that_is_done_does_nothing(world):
    client, worker = world.connect(), world.connect()
    world.send(worker, Command.CAN_DO_TIMEOUT, b"f", b"1")
    handle = created(world, client)
    world.send(worker, Command.GRAB_JOB)
    world.send(worker, Command.WORK_COMPLETE, handle, b"")
    assert world.server.tick(world.now + 100) is None


@pytest.mark.parametrize("command", [Command.CANT_DO, Command.RESET_ABILITIES])
def test_task_that_is_taken_back_goes_to_others_with_its_running_jobs(world, command):
    client, worker, other = world.connect(), world.worker(b"f"), world.worker(b"f")
    handle = created(world, client)
    world.send(worker, Command.GRAB_JOB)
    world.send(worker, command, *([b"f"] if command is Command.CANT_DO else []))
    assert world.send(other, Command.GRAB_JOB)[0][1] == handle
    assert world.send(worker, Command.GRAB_JOB) == [("NO_JOB",)]


def test_reduce_job_brings_its_reducer_to_who_asks_for_all(world):
    client, worker = world.connect(), world.worker(b"f")
    packet = request(Command.SUBMIT_REDUCE_JOB, b"f", b"u", b"reducer", b"", b"data")
    assert world.send_bytes(client, packet) == [("JOB_CREATED", b"H:s:1")]
    assert world.send(worker, Command.GRAB_JOB_ALL) == [("JOB_ASSIGN_ALL", b"H:s:1", b"f", b"u", b"reducer", b"data")]


def test_queue_limits_refuse_new_jobs_and_not_those_that_join(world):
    client = world.connect()
    created(world, client, unique=b"1")
    assert world.send_bytes(client, b"maxqueue f 2 1 0\n") == [(b"OK",)]
    assert world.send(client, Command.SUBMIT_JOB, b"f", b"2", b"")[0][:2] == ("ERROR", b"QUEUE_ERROR")
    assert created(world, client, unique=b"1") == b"H:s:1"
    created(world, client, Command.SUBMIT_JOB_HIGH, unique=b"3")
    assert world.send(client, Command.SUBMIT_JOB_HIGH, b"f", b"4", b"")[0][0] == "ERROR"
    created(world, client, Command.SUBMIT_JOB_LOW, unique=b"5")


def test_number_of_jobs_is_bounded():
    world = World(max_jobs=2)
    client = world.connect()
    created(world, client, unique=b"1")
    created(world, client, unique=b"2")
    assert world.send(client, Command.SUBMIT_JOB_BG, b"g", b"3", b"")[0][:2] == ("ERROR", b"QUEUE_ERROR")


def test_peer_that_does_not_read_is_given_up():
    world = World(max_out_bytes=1000)
    peer = world.connect()
    for _ in range(3):
        world.server.receive(peer, request(Command.ECHO_REQ, b"x" * 400), world.now)
    assert peer.closing == "it does not read what it is sent"
    assert peer.out == []


@pytest.mark.parametrize("step", [1, 5000, 1_000_000])
@pytest.mark.parametrize(("length", "refused"), [(8190, False), (8191, True)])
def test_line_that_is_too_long_ends_its_connection_whatever_the_pieces(step, length, refused):
    world = World(step)
    peer = world.connect()
    assert bool(world.send_bytes(peer, b"x" * length + b"\r\n")) is not refused
    assert bool(peer.closing) is refused


@pytest.mark.parametrize(
    "data",
    [
        b"\0XYZ" + bytes(8),
        b"\0REQ" + (99).to_bytes(4, "big") + bytes(4),
        b"\0REQ" + (7).to_bytes(4, "big") + (3).to_bytes(4, "big") + b"abc",
        b"\0REQ" + (7).to_bytes(4, "big") + b"\xff\xff\xff\xff",
        b"one two three four five six\n",
        b"x" * 9000,
        b"x" * 9000 + b"\n",
    ],
)
def test_what_breaks_the_protocol_ends_the_connection_and_no_other(world, data):
    bad, good = world.connect(), world.connect()
    world.send_bytes(bad, data)
    assert bad.closing
    assert world.send(good, Command.ECHO_REQ, b"x") == [("ECHO_RES", b"x")]


@pytest.mark.parametrize("command", [Command.NOOP, Command.JOB_CREATED, Command.ALL_YOURS, Command.ECHO_RES])
def test_commands_of_others_are_refused(world, command):
    peer = world.connect()
    assert world.send(peer, command)[0][:2] == ("ERROR", b"INVALID_COMMAND")
    assert world.send(peer, Command.ECHO_REQ, b"x") == [("ECHO_RES", b"x")]


def test_command_that_is_none_any_more_is_refused_whatever_its_size(world):
    """The numbers that are no commands but are answered: their arguments are not known."""
    peer = world.connect()
    for size in (3, COPY_LIMIT + 1):
        packet = REQ + (5).to_bytes(4, "big") + size.to_bytes(4, "big") + bytes(size)
        answers = world.send_bytes(peer, packet[:1000]) + world.send_bytes(peer, packet[1000:])
        assert [answer[:2] for answer in answers] == [("ERROR", b"INVALID_COMMAND")]
    assert world.send(peer, Command.ECHO_REQ, b"x") == [("ECHO_RES", b"x")]


@pytest.mark.parametrize("body", [b"", b"abc", b"x" * 300_000])
def test_packet_with_the_magic_of_an_answer_is_refused_and_the_connection_goes_on(world, body):
    if world.step == 1:
        body = body[:1000]
    peer = world.connect()
    packet = b"\0RES" + (16).to_bytes(4, "big") + len(body).to_bytes(4, "big") + body
    answers = world.send_bytes(peer, packet + packet + request(Command.ECHO_REQ, b"x"))
    assert [answer[:2] for answer in answers] == [("ERROR", b"INVALID_MAGIC")] * 2 + [("ECHO_RES", b"x")]


@pytest.mark.parametrize(("unique", "task"), [(b"u" * 64, b"f"), (b"u" * 100, b"f"), (b"u", b"f" * 8001)])
def test_too_long_names_are_refused(world, unique, task):
    assert world.send(world.connect(), Command.SUBMIT_JOB, task, unique, b"")[0][:2] == ("ERROR", b"ARGUMENT_TOO_LARGE")


def test_cancelled_job_fails_at_its_clients_once_and_late_results_go_nowhere(world):
    client, worker = world.connect(), world.worker(b"f")
    queued, running = created(world, client, unique=b"1"), created(world, client, unique=b"2")
    assert world.send(worker, Command.GRAB_JOB)[0][1] == queued
    for handle in (queued, running):
        assert world.send_bytes(worker, b"cancel job " + handle + b"\r\n") == [(b"OK",)]
        assert world.got(client) == [("WORK_FAIL", handle)]
    assert world.send(worker, Command.WORK_COMPLETE, queued, b"late") == []
    assert world.got(client) == []
    assert not world.server.table.jobs
    assert world.send_bytes(worker, b"cancel job H:s:9\n") == [(b"ERR UNKNOWN_JOB Unknown+job",)]


def test_drop_function_refuses_while_it_is_in_use(world):
    client, worker = world.connect(), world.worker(b"f")
    busy = (b"ERR there are still connected workers or executing clients",)
    assert world.send_bytes(client, b"drop function f\n") == [busy]
    world.leave(worker)
    created(world, client)
    assert world.send_bytes(client, b"drop function f\n") == [busy]
    assert world.send_bytes(client, b"create function g\n" + b"drop function g\n") == [(b"OK",), (b"OK",)]
    assert world.send_bytes(client, b"drop function g\n") == [(b"ERR function not found",)]


def test_dropped_packets_are_dropped_as_often_as_asked(world):
    client = world.connect()
    world.server.drops[Command.ECHO_RES] = 2
    answers = [world.send(client, Command.ECHO_REQ, b"%d" % number) for number in range(3)]
    assert answers == [[], [], [("ECHO_RES", b"2")]]


def test_nothing_gathers_behind_a_job_that_waits():
    world = World()
    created(world, world.connect(), unique=b"waits")
    queue = world.server.table.functions[b"f"].queues[1]
    for number in range(2000):
        client = world.connect()
        created(world, client, unique=b"%d" % number)
        world.leave(client)
        assert len(queue) < 100
    worker = world.worker(b"f")
    assert world.send(worker, Command.GRAB_JOB_UNIQ)[0][3] == b"waits"
    assert world.send(worker, Command.GRAB_JOB_UNIQ) == [("NO_JOB",)]


def test_nothing_gathers_behind_a_job_that_is_due_some_day():
    world = World()
    client = world.connect()
    created(world, client, Command.SUBMIT_JOB_EPOCH, b"f", b"first", b"", b"5000")
    for number in range(2000):
        handle = created(world, client, Command.SUBMIT_JOB_EPOCH, b"f", b"%d" % number, b"", b"%d" % (6000 + number))
        world.send_bytes(client, b"cancel job " + handle + b"\n")
        assert len(world.server.table.delayed) < 100
    assert world.server.tick(world.now) == 5000
    assert world.server.tick(5000.0) is None


def test_nothing_gathers_behind_a_job_whose_time_limit_is_far_away():
    world = World()
    client, slow, quick, other = world.connect(), world.connect(), world.connect(), world.worker(b"f")
    world.send(slow, Command.CAN_DO_TIMEOUT, b"f", b"1000000")
    world.send(quick, Command.CAN_DO_TIMEOUT, b"f", b"2000000")
    slow_handle = created(world, client, unique=b"slow")
    world.send(slow, Command.GRAB_JOB)
    for number in range(2000):
        handle = created(world, client, Command.SUBMIT_JOB_BG, unique=b"%d" % number)
        world.send(quick, Command.GRAB_JOB)
        world.send(quick, Command.WORK_COMPLETE, handle, b"")
        assert len(world.server.limits) < 100
    assert world.server.tick(world.now) == world.now + 1000
    world.server.tick(world.now + 1001)
    assert world.send(other, Command.GRAB_JOB)[0][1] == slow_handle


def test_nothing_that_a_peer_sends_is_kept_once_its_connection_is_to_be_closed():
    world = World(max_packet_size=1000)
    peer = world.connect()
    world.send_bytes(peer, b"\0REQ" + (16).to_bytes(4, "big") + (1001).to_bytes(4, "big"))
    assert peer.closing
    for _ in range(100):
        world.server.receive(peer, b"x" * 1000, world.now)
    assert peer.decoder.pending < 100


@pytest.mark.slow
@pytest.mark.parametrize(("size", "kept"), [(0, 50), (1_000_000, 16), (20_000_000, 1)])
def test_no_more_than_some_of_the_jobs_that_have_ended_are_remembered(size, kept):
    world = World(history=50)
    client, worker = world.connect(), world.worker(b"f")
    handles = [created(world, client, Command.SUBMIT_JOB_BG, unique=b"%d" % n, data=b"") for n in range(60)]
    for handle in handles:
        world.send(worker, Command.GRAB_JOB)
        world.send(worker, Command.WORK_COMPLETE, handle, bytes(size))
    assert [ended.job.handle for ended in world.server.history] == handles[-kept:]
    assert world.server.history.find(handles[-1]).result == bytes(size)
    assert world.server.history.find(handles[0]) is None


def test_nothing_is_remembered_unless_asked_for():
    world = World()
    client, worker = world.connect(), world.worker(b"f")
    handle = created(world, client)
    world.send(worker, Command.GRAB_JOB)
    world.send(worker, Command.WORK_COMPLETE, handle, b"")
    assert list(world.server.history) == []


def test_nothing_gathers_when_jobs_are_abandoned():
    world = World()
    for number in range(2000):
        client = world.connect()
        created(world, client, unique=b"%d" % number, data=b"x" * 100)
        world.leave(client)
    table = world.server.table
    assert (len(table.jobs), len(table._keys), len(table._uniques)) == (0, 0, 0)
    assert sum(map(len, table.functions[b"f"].queues)) == 0


#: What stands where a number, a name or a payload is expected.
_ARGUMENTS = st.one_of(
    st.sampled_from([b"f", b"g", b"", b"-", b"H:s:1", b"exceptions"]),
    st.integers().map(lambda number: b"%d" % number),
    st.integers(0, 5000).map(lambda digits: b"9" * digits),
    st.binary(max_size=80),
)


@given(st.lists(st.tuples(st.sampled_from(sorted(COMMANDS)), st.lists(_ARGUMENTS, max_size=5)), max_size=30))
def test_any_arguments_are_answered_or_end_the_connection(packets):
    world = World()
    peer = world.connect()
    for command, arguments in packets:
        if peer.closing is None:
            world.server.receive(peer, request(Command(command), *arguments), world.now)
            world.server.tick(world.now)
    world.server.tick(world.now + 1e6)
    world.leave(peer)
    assert not world.server.peers


@given(
    st.lists(
        st.binary(max_size=60) | st.sampled_from([request(Command.GRAB_JOB), b"status\n", b"\0REQ\0\0\0"]), max_size=10
    )
)
def test_any_bytes_are_answered_or_end_the_connection(pieces):
    world = World()
    peer = world.connect()
    for piece in pieces:
        world.server.receive(peer, piece, world.now)
    world.server.tick(world.now + 1e6)
    world.leave(peer)
    assert not world.server.peers


class Life(RuleBasedStateMachine):
    """Clients, workers and jobs come and go in any order."""

    peers = Bundle("peers")

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.expected: dict[Peer, dict[bytes, int]] = {}

    @rule(target=peers)
    def connect(self):
        peer = self.world.connect()
        self.expected[peer] = {}
        return peer

    @rule(peer=peers, task=st.sampled_from([b"a", b"b"]))
    def can_do(self, peer, task):
        self.world.send(peer, Command.CAN_DO, task)

    @rule(peer=peers, task=st.sampled_from([b"a", b"b"]))
    def cant_do(self, peer, task):
        self.take(peer, self.world.send(peer, Command.CANT_DO, task))

    @rule(
        peer=peers,
        command=st.sampled_from([Command.SUBMIT_JOB, Command.SUBMIT_JOB_BG, Command.SUBMIT_JOB_LOW]),
        task=st.sampled_from([b"a", b"b"]),
        unique=st.sampled_from([b"", b"1", b"2"]),
    )
    def submit(self, peer, command, task, unique):
        answers = self.world.send(peer, command, task, unique, b"data")
        ((_, handle),) = [answer for answer in answers if answer[0] == "JOB_CREATED"]
        if command != Command.SUBMIT_JOB_BG:
            self.expected[peer][handle] = self.expected[peer].get(handle, 0) + 1

    @rule(peer=peers, seconds=st.integers(1, 20))
    def submit_delayed(self, peer, seconds):
        moment = b"%d" % (self.world.now + seconds)
        self.take(peer, self.world.send(peer, Command.SUBMIT_JOB_EPOCH, b"a", b"", moment, b"data"))

    @rule(peer=peers)
    def grab(self, peer):
        self.take(peer, self.world.send(peer, Command.GRAB_JOB_UNIQ))

    @rule(peer=peers, command=st.sampled_from([Command.WORK_COMPLETE, Command.WORK_EXCEPTION]))
    def finish(self, peer, command):
        if peer.held:
            self.take(peer, self.world.send(peer, command, next(iter(peer.held)), b""))

    @rule(peer=peers)
    def sleep(self, peer):
        self.take(peer, self.world.send(peer, Command.PRE_SLEEP))

    @rule(peer=consumes(peers))
    def leave(self, peer):
        self.world.leave(peer)
        del self.expected[peer]

    @rule()
    def clear(self):
        self.world.server.clear()

    @rule(seconds=st.integers(1, 30))
    def wait(self, seconds):
        self.world.now += seconds
        self.world.server.tick(self.world.now)

    def take(self, peer, packets):
        """Final packets are expected ones: one for each foreground submit, and none twice."""
        for name, *arguments in packets:
            if name in ("WORK_COMPLETE", "WORK_FAIL", "WORK_EXCEPTION"):
                handle = arguments[0]
                assert self.expected[peer][handle] > 0
                self.expected[peer][handle] -= 1
                if not self.expected[peer][handle]:
                    del self.expected[peer][handle]

    @invariant()
    def books_agree(self):
        table = self.world.server.table
        for peer in list(self.expected):
            self.take(peer, self.world.got(peer))
            # Each foreground job is at the server, or has had its final packet.
            assert {job.handle: count for job, count in peer.watched.items()} == self.expected[peer]
        states = [job.state for job in table.jobs.values()]
        held = [job for peer in self.world.server.peers.values() for job in peer.held.values()]
        assert states.count(JobState.RUNNING) == len(held) == sum(f.running for f in table.functions.values())
        assert states.count(JobState.DELAYED) == len(table.delayed._live)
        assert states.count(JobState.QUEUED) == sum(sum(f.waiting) for f in table.functions.values())
        assert len(states) == sum(f.total for f in table.functions.values())
        for peer in self.world.server.peers.values():
            # No worker sleeps while there is a job for it.
            assert not (peer.sleeping and table.runnable(peer.abilities))


Life.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestLife = Life.TestCase
