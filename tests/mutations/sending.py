"""Mutations of sending: who sends, who is woken for it, and what a lost connection has sent."""

from __future__ import annotations

from .mutation import Mutation

_CONNECTION = "gearman_pool/transport/connection.py"
_SENDING_TESTS = "tests/transport/test_sending.py::"
_CONNECTION_TESTS = "tests/transport/test_connection.py::"

_TLS_TESTS = "tests/faults/test_tls.py::"

_ANY_MOMENT = _SENDING_TESTS + "test_job_that_comes_at_any_moment_of_anothers_sending_needs_no_io_thread"
_CUT_OFF = _SENDING_TESTS + "test_jobs_of_which_no_byte_has_left_a_lost_connection_go_on_in_their_order_and_no_others"

MUTATIONS = [
    Mutation(
        name="caller-behind-the-lock-wakes-nobody",
        file=_CONNECTION,
        old="""\
                # The holder looks again before it leaves; the I/O thread sees to it that it does leave.
                self._io.wake()
                return
""",
        new="""\
                return
""",
        tests=(
            _CONNECTION_TESTS
            + "test_job_behind_an_interrupted_sender_does_not_wait_for_the_next_health_check[_drain-after]",
        ),
        breaks="After a caller was interrupted while it sent, others' jobs wait for the next health check.",
    ),
    Mutation(
        name="interrupted-sender-tells-nobody",
        file=_CONNECTION,
        old="""\
                self._io.post(self.pump)
                raise
""",
        new="""\
                raise
""",
        tests=(
            _CONNECTION_TESTS
            + "test_job_behind_an_interrupted_sender_does_not_wait_for_the_next_health_check[_send-before]",
        ),
        breaks="After a caller was interrupted while it sent, others' jobs wait for the next health check.",
    ),
    Mutation(
        name="callers-wait-for-the-lock",
        file=_CONNECTION,
        old="            if not lock.acquire(False):",
        new="            if not lock.acquire():",
        tests=(_ANY_MOMENT,),
        breaks="Callers queue up behind one that sends, and behind one that was interrupted for ever.",
    ),
    Mutation(
        name="holder-does-not-look-again",
        file=_CONNECTION,
        old="""\
        while self.queue and not self._rest and not self.closed:
            if not lock""",
        new="""\
        if self.queue and not self._rest and not self.closed:
            if not lock""",
        tests=(_ANY_MOMENT,),
        breaks="A job that comes when another caller is about to let go of the lock waits for the I/O thread.",
    ),
    Mutation(
        name="holder-looks-again-only-once",
        file=_CONNECTION,
        old="""\
        while self.queue and not self._rest and not self.closed:
            if not lock""",
        new="""\
        for _ in range(2):
            if not self.queue or self._rest or self.closed:
                return
            if not lock""",
        tests=(_ANY_MOMENT,),
        breaks="As if it did not look again, where jobs come in quick succession.",
    ),
    Mutation(
        name="wholly-unsent-entry-counts-as-sent",
        file=_CONNECTION,
        old="while order and unsent_bytes >= packet_size(order[-1][0]) > 0:",
        new="while order and unsent_bytes > packet_size(order[-1][0]) > 0:",
        tests=(_CUT_OFF,),
        breaks="A job that never left fails with a lost connection, which says that it may have run.",
    ),
    Mutation(
        name="partly-sent-entry-counts-as-unsent",
        file=_CONNECTION,
        old="while order and unsent_bytes >= packet_size(order[-1][0]) > 0:",
        new="while order and unsent_bytes > 0:",
        tests=(_CUT_OFF,),
        breaks="A job of which bytes have left is sent elsewhere without having been allowed to run twice.",
    ),
    Mutation(
        name="unsent-entries-in-reverse",
        file=_CONNECTION,
        old="""\
        unsent.reverse()
""",
        new="",
        tests=(_CUT_OFF,),
        breaks="Jobs that a lost connection had not sent arrive elsewhere in reverse.",
    ),
    Mutation(
        name="queued-entries-overtake-unsent-ones",
        file=_CONNECTION,
        old="return LostEntries(unsent + queued, order, accepted)",
        new="return LostEntries(queued + unsent, order, accepted)",
        tests=(_CUT_OFF,),
        breaks="When a connection is lost, later jobs arrive elsewhere before earlier ones.",
    ),
    Mutation(
        name="bytes-of-a-struck-sender-count-as-unsent",
        file=_CONNECTION,
        old="unsent_bytes = sum(len(buffer) for buffer in self._rest) if certain else 0",
        new="unsent_bytes = sum(len(buffer) for buffer in self._rest)",
        tests=(
            _CONNECTION_TESTS + "test_job_of_a_sender_who_was_struck_after_its_bytes_had_left_is_not_sent_elsewhere",
        ),
        breaks="The job of a caller that was interrupted just after its bytes had left runs twice.",
    ),
    Mutation(
        name="straggler-of-a-closed-connection-is-left",
        file=_CONNECTION,
        old="""\
            self._io.post(Rescue(self))
""",
        new="""\
            pass
""",
        tests=(_SENDING_TESTS + "test_job_whose_connection_is_lost_at_any_moment_of_its_sending_is_not_forgotten",),
        breaks="A job that comes in the moment in which its connection is lost never ends.",
    ),
    Mutation(
        name="upload-is-no-sign-of-life",
        file=_CONNECTION,
        old="return max(self.last_heard, self._last_taken)",
        new="return self.last_heard",
        tests=(
            "tests/faults/test_frozen_server.py::test_large_upload_over_a_slow_link_is_no_frozen_server",
            "tests/faults/test_frozen_server.py::test_server_that_takes_a_large_upload_is_not_avoided",
        ),
        breaks="A large upload over a slow link ends with a lost connection: the server is taken for frozen.",
    ),
    Mutation(
        name="taken-part-of-an-upload-is-not-noted",
        file=_CONNECTION,
        old="""\
                        self._last_taken = self._io.clock()
""",
        new="",
        tests=(
            "tests/faults/test_frozen_server.py::test_large_upload_over_a_slow_link_is_no_frozen_server",
            "tests/faults/test_frozen_server.py::test_server_that_takes_a_large_upload_is_not_avoided",
        ),
        breaks="A large upload over a slow link ends with a lost connection: the server is taken for frozen.",
    ),
    Mutation(
        name="server-that-takes-an-upload-is-suspect",
        file="gearman_pool/transport/health.py",
        old="and connection.last_progress < probe.sent:",
        new="and connection.last_heard < probe.sent:",
        tests=("tests/faults/test_frozen_server.py::test_server_that_takes_a_large_upload_is_not_avoided",),
        breaks="While a large upload is under way, other jobs go to servers that are not preferred.",
    ),
    Mutation(
        name="gathered-entries-wake-nobody",
        file=_CONNECTION,
        old="""\
        elif len(self.queue) >= GATHER_LIMIT:
            self._io.wake()
""",
        new="",
        tests=(_SENDING_TESTS + "test_jobs_that_gather_leave_though_no_reply_comes",),
        breaks="Thousands of jobs stay in line while the server takes its time with the first ones.",
    ),
    Mutation(
        name="each-job-is-a-system-call",
        file=_CONNECTION,
        old="        elif len(self.order) < DIRECT_WINDOW:",
        new="        elif self.up:",
        tests=(_SENDING_TESTS + "test_jobs_leave_together_while_many_are_unanswered",),
        breaks="Jobs in bulk are several times slower.",
    ),
    Mutation(
        name="rest-of-a-send-is-left-to-nobody",
        file=_CONNECTION,
        old="            if error is not None or self._rest:",
        new="            if error is not None:",
        tests=(_SENDING_TESTS + "test_rest_of_what_a_socket_does_not_take_at_once_leaves_as_it_takes_more",),
        breaks="A large job stays half sent until something else wakes the I/O thread.",
    ),
    Mutation(
        name="main-thread-wakes-nobody",
        file=_CONNECTION,
        old="""\
            else:
                self._io.wake()
        elif""",
        new="""\
        elif""",
        tests=(_SENDING_TESTS + "test_job_from_the_main_thread_beside_others_leaves_at_once",),
        breaks="A job from the main thread waits, while others are in flight, for one of them to be answered.",
    ),
    Mutation(
        name="main-thread-sends-beside-others",
        file=_CONNECTION,
        old="or not (self.order or self.handles)",
        new="or True",
        tests=(_CONNECTION_TESTS + "test_main_thread_does_not_send_while_others_have_jobs_in_flight",),
        breaks="Ctrl-C in the main thread can cost the jobs of all other threads.",
    ),
    Mutation(
        name="tls-sends-more-than-a-record",
        file="gearman_pool/transport/syscalls.py",
        old="return send_plain(sock, memoryview(data)[:_RECORD_SIZE])",
        new="return send_plain(sock, data)",
        tests=(_TLS_TESTS + "test_job_that_may_have_reached_the_server_within_a_longer_send_is_not_sent_elsewhere",),
        breaks="When a TLS connection is lost, jobs that its server has are sent elsewhere, and run twice.",
    ),
]
