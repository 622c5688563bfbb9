"""Mutations of the client's engine."""

from __future__ import annotations

from .mutation import Mutation

_DISPATCH = "gearman_pool/dispatch.py"
_FUTURE = "gearman_pool/future.py"
_CALLBACKS = "gearman_pool/callbacks.py"
_IO_THREAD = "gearman_pool/transport/io_thread.py"
_SESSION = "gearman_pool/protocol/client.py"

_ABANDONED = "tests/faults/test_abandoned_jobs.py"
_CONNECTION = "tests/transport/test_connection.py"
_FROZEN = "tests/faults/test_frozen_server.py"
_RACES = "tests/faults/test_races.py"
_UNIQUES = "tests/conformance/test_uniques.py"
_WAITING = "tests/faults/test_waiting.py"

#: The servers of the conformance tests.
_KINDS = ("gearmand", "embedded")

MUTATIONS = [
    Mutation(
        name="finished-jobs-timer-is-not-cancelled",
        file=_DISPATCH,
        old="            future._timer.cancel()\n",
        new="",
        tests=(f"{_ABANDONED}::test_finished_job_is_not_kept_until_its_timeout",),
        breaks="A finished job with timeout= stays in memory, with its result, until that time is over.",
    ),
    Mutation(
        name="entry-in-both-lists-is-handled-twice",
        file=_DISPATCH,
        old="            if id(token) in seen:\n                continue\n",
        new="",
        tests=(f"{_CONNECTION}::test_job_whose_sender_was_struck_between_both_lists_is_sent_again_once",),
        breaks="A job whose sender was interrupted is sent again twice, and runs twice.",
    ),
    Mutation(
        name="job-that-comes-after-the-loops-end-is-left",
        file=_DISPATCH,
        old="""        if self.io.ended:
            # It ended between the look above and now; nobody else will see this one.
            self._on_stop()
""",
        new="",
        tests=tuple(
            f"{_RACES}::test_job_that_is_put_in_line_just_after_the_end_of_the_loop_ends_too[{where}]"
            for where in ("the waiting line", "a connection")
        ),
        breaks="A job that is submitted while another thread closes the client never ends.",
    ),
    Mutation(
        name="every-stuck-future-costs-the-loop-its-patience",
        file=_DISPATCH,
        old="        patience = PATIENCE if io.now >= self._impatient_until else 0.0\n",
        new="        patience = PATIENCE\n",
        tests=(f"{_WAITING}::test_loop_waits_for_one_of_the_locks_that_were_left_taken_and_not_for_each",),
        breaks="An interrupted caller that left the locks of 1,000 futures taken stops all jobs for 20 s.",
    ),
    Mutation(
        name="cancel-overlooks-who-shares-the-handle",
        file=_DISPATCH,
        old="        elif connection.session.shares(handle):  # type: ignore[attr-defined]\n",
        new="        elif False:\n",
        tests=tuple(
            f"{_UNIQUES}::test_cancelling_one_of_two_jobs_that_a_dash_has_joined_leaves_the_other_its_result[{kind}]"
            for kind in _KINDS
        ),
        breaks="Cancelling one of two jobs that unique='-' has joined fails the other.",
    ),
    Mutation(
        name="cancel-overlooks-other-clients",
        file=_DISPATCH,
        old="            if number(value[5]) > 1:\n",
        new="            if False:\n",
        tests=tuple(
            f"{_UNIQUES}::test_cancelling_one_of_two_jobs_on_a_unique_leaves_the_other_its_result[{where}]"
            for where in ("gearmand-another client", "embedded-another client")
        ),
        breaks="Cancelling a job fails that of another client with the same unique.",
    ),
    Mutation(
        name="silent-job-is-asked-after-a-sweep-too-early",
        file=_DISPATCH,
        old="if self._sweep - future._heard > 1]",
        new="if self._sweep - future._heard > 0]",
        tests=(f"{_ABANDONED}::test_job_is_asked_after_when_it_has_been_silent_for_lost_job_check_and_not_before",),
        breaks="Jobs are asked after twice as often as lost_job_check says.",
    ),
    Mutation(
        name="waiting-caller-does-not-look-again",
        file=_FUTURE,
        old="""            blocked.append(waiter)
            if self._state not in _OPEN:
                return
""",
        new="            blocked.append(waiter)\n",
        tests=tuple(
            f"{_WAITING}::test_caller_who_begins_to_wait_is_woken_at_whatever_step_of_that_its_job_ends[{how}]"
            for how in ("result", "result with a time limit", "exception")
        ),
        breaks="result() hangs if the job ends just before the caller waits.",
    ),
    Mutation(
        name="waiting-consumer-does-not-look-again",
        file=_IO_THREAD,
        old="        waiters.append(waiter)\n        if ready():\n            return True\n",
        new="        waiters.append(waiter)\n",
        tests=(
            *(
                f"{_WAITING}::test_caller_who_begins_to_wait_is_woken_at_whatever_step_of_that_its_job_ends[{how}]"
                for how in ("updates", "updates with a time limit")
            ),
            f"{_WAITING}::test_consumer_of_updates_is_woken_at_whatever_step_of_its_way_one_comes",
            *(
                f"{_WAITING}::test_caller_who_waits_for_an_answer_is_woken_at_whatever_step_of_its_way_it_comes[{which}]"
                for which in ("value-None", "error-None", "value-60.0", "error-60.0")
            ),
        ),
        breaks="updates(), cancel() and status() hang if what they wait for comes just before they wait.",
    ),
    Mutation(
        name="idle-thread-overlooks-the-backlog",
        file=_CALLBACKS,
        old="            if idle.call is None and self._backlog:\n                return self._backlog.popleft()\n",
        new="",
        tests=(
            f"{_WAITING}::test_call_that_comes_at_whatever_step_of_an_idle_threads_end_is_made[the end and a call]",
        ),
        breaks="A callback of a job that ends while the client closes is never called.",
    ),
    Mutation(
        name="idle-thread-overlooks-the-call-it-was-given",
        file=_CALLBACKS,
        old="            return idle.call\n",
        new="            return None\n",
        tests=tuple(
            f"{_WAITING}::test_call_that_comes_at_whatever_step_of_an_idle_threads_end_is_made[{what}]"
            for what in ("a call", "two calls")
        ),
        breaks="A callback that is handed to an idle thread in the moment in which that gives up is never called.",
    ),
    Mutation(
        name="question-after-a-job-that-is-lost-counts-as-answered",
        file=_DISPATCH,
        old='        self._dispatcher.job_checked(connection, self._future, value[1] == b"1")\n',
        new="""        self._dispatcher.job_checked(connection, self._future, value[1] == b"1")

    def lost(self, error: GearmanError) -> None:
        self._dispatcher.job_checked(self._future._connection, self._future, False)
""",
        tests=(f"{_FROZEN}::test_job_that_was_sent_again_is_not_failed_by_what_its_former_connection_was_asked",),
        breaks="A job with attempts left fails with its connection if it was just being asked after.",
    ),
]
