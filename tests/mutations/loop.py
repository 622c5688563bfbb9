"""Mutations of the loop: whose turn it is, what a turn does, and who wakes whom."""

from __future__ import annotations

from .mutation import Mutation

_IO_THREAD = "gearman_pool/transport/io_thread.py"
_TIMERS = "gearman_pool/transport/timers.py"
_LEADERSHIP = "gearman_pool/transport/leadership.py"
_IO_THREAD_TESTS = "tests/transport/test_io_thread.py::"
_TIMER_TESTS = "tests/transport/test_timers.py::"
_LEADERSHIP_TESTS = "tests/transport/test_leadership.py::"

_GOES_AT_ANY_MOMENT = _LEADERSHIP_TESTS + "test_guest_that_goes_at_any_moment_of_the_io_threads_look_is_followed"

MUTATIONS = [
    Mutation(
        name="calls-that-post-calls-keep-sockets-waiting",
        file=_IO_THREAD,
        old="        for _ in range(len(inbox)):\n",
        new="        while inbox:\n",
        tests=(_IO_THREAD_TESTS + "test_calls_that_post_further_calls_do_not_keep_a_socket_waiting",),
        breaks="While one thread keeps the I/O thread busy, no answer is read.",
    ),
    Mutation(
        name="timers-before-sockets",
        file=_IO_THREAD,
        old="        self.now = self.clock()\n        for key",
        new="        self.now = self.clock()\n        self._timers.run_due(self.now)\n        for key",
        tests=(_IO_THREAD_TESTS + "test_what_has_come_is_read_before_timers_that_are_due",),
        breaks="A process that was stopped for a while takes servers for dead whose answers lie there unread.",
    ),
    Mutation(
        name="thread-sleeps-without-a-last-look",
        file=_IO_THREAD,
        old="""\
        self.sleeping = self.wakeups + 1
        if self._inbox or self._has_work() or self.leadership.wish is not None:
            timeout: float | None = 0.0
        else:
            moment = min(self._timers.next_moment(), self._guest_deadline)
            timeout = None if moment == NEVER else max(0.0, moment - self.clock())
""",
        new="""\
        if self._inbox or self._has_work() or self.leadership.wish is not None:
            timeout: float | None = 0.0
        else:
            moment = min(self._timers.next_moment(), self._guest_deadline)
            timeout = None if moment == NEVER else max(0.0, moment - self.clock())
        self.sleeping = self.wakeups + 1
""",
        tests=(_IO_THREAD_TESTS + "test_call_that_is_posted_at_any_moment_of_the_loops_way_is_made",),
        breaks="What comes in the moment in which the I/O thread falls asleep waits until something else wakes it.",
    ),
    Mutation(
        name="late-note-of-a-wake-up-suppresses-others",
        file=_IO_THREAD,
        old="            self._woken = sleep\n",
        new="            self._woken = self.sleeping\n",
        tests=(
            _IO_THREAD_TESTS + "test_caller_that_is_held_up_while_it_wakes_the_thread_suppresses_nobody_elses_wake_up",
        ),
        breaks="A caller that the system stops at a bad moment makes all others' jobs wait.",
    ),
    Mutation(
        name="wake-up-is-noted-before-it-is-sent",
        file=_IO_THREAD,
        old="""\
            # A full buffer means that a wake-up is on its way; a closed one that the thread has ended.
            with""",
        new="""\
            self._woken = sleep
            with""",
        tests=(
            _IO_THREAD_TESTS + "test_caller_that_is_held_up_while_it_wakes_the_thread_suppresses_nobody_elses_wake_up",
        ),
        breaks="A caller that is interrupted while it wakes the I/O thread makes all others' jobs wait.",
    ),
    Mutation(
        name="each-caller-sends-a-wake-up",
        file=_IO_THREAD,
        old="        if sleep and sleep != self._woken and waker is not None:",
        new="        if sleep and waker is not None:",
        tests=(_IO_THREAD_TESTS + "test_one_wake_up_is_enough_for_all_callers_until_the_thread_has_woken",),
        breaks="Under load each job costs one more system call.",
    ),
    Mutation(
        name="call-due-before-the-next-wake-up-wakes-nobody",
        file=_IO_THREAD,
        old="        if when < self.wake_at:\n            self.wake()\n",
        new="",
        tests=(_IO_THREAD_TESTS + "test_call_that_is_due_before_the_next_wake_up_wakes_it",),
        breaks="A job's time limit passes unnoticed until something else wakes the I/O thread.",
    ),
    Mutation(
        name="unexpected-error-ends-the-loop",
        file=_IO_THREAD,
        old="            self._on_error(error)\n",
        new="            self._on_error(error)\n            self.stopped = True\n",
        tests=(_IO_THREAD_TESTS + "test_unexpected_error_is_reported_and_the_loop_goes_on",),
        breaks="After one unexpected error the client is dead.",
    ),
    Mutation(
        name="guests-limit-does-not-bound-the-wait",
        file=_IO_THREAD,
        old="moment = min(self._timers.next_moment(), self._guest_deadline)",
        new="moment = self._timers.next_moment()",
        tests=(_LEADERSHIP_TESTS + "test_wait_of_the_guest_is_bounded_before_the_next_timer_is_due",),
        breaks="A worker without jobs does not return from its wait after poll_timeout, nor call after_poll().",
    ),
    Mutation(
        name="guests-limit-waits-for-the-next-timer",
        file=_IO_THREAD,
        old="moment = min(self._timers.next_moment(), self._guest_deadline)",
        new="moment = self._timers.next_moment() if len(self._timers) else self._guest_deadline",
        tests=(_LEADERSHIP_TESTS + "test_wait_of_the_guest_is_bounded_before_the_next_timer_is_due",),
        breaks="A worker without jobs returns from its wait only when a timer is due, and calls after_poll() late.",
    ),
    Mutation(
        name="timers-run-before-they-are-due",
        file=_TIMERS,
        old="self._heap[0][0] <= now:\n",
        new="True:\n",
        tests=(_TIMER_TESTS + "test_timers_run_when_they_are_due_the_oldest_first",),
        breaks="Jobs end with their time limit as soon as they are submitted.",
    ),
    Mutation(
        name="cancelled-timers-stay-until-they-are-due",
        file=_TIMERS,
        old="        if self._cancelled > _MANY_CANCELLED and ",
        new="        if False and ",
        tests=(_TIMER_TESTS + "test_cancelled_timers_are_dropped_long_before_they_are_due",),
        breaks="Each job with a long time limit costs memory for that long, though it was done in a moment.",
    ),
    Mutation(
        name="cancelled-timer-wakes-the-loop",
        file=_TIMERS,
        old="            if timer.alive:\n                return when\n",
        new="            return when\n",
        tests=(_TIMER_TESTS + "test_cancelled_timer_does_not_run_and_wakes_nobody",),
        breaks="An idle client wakes for the time limits of jobs that have long been done.",
    ),
    Mutation(
        name="rest-of-a-turn-is-forgotten",
        file=_IO_THREAD,
        old="        self._rest_is_due = True\n",
        new="",
        tests=(_LEADERSHIP_TESTS + "test_rest_of_a_turn_that_the_guest_leaves_is_done_by_who_leads_next",),
        breaks="A worker that always has a job keeps no time limits and sends what has gathered late.",
    ),
    Mutation(
        name="guest-goes-away-and-leaves-the-other-parked",
        file=_LEADERSHIP,
        old="""\
        if self._parked is not None:
            self._unpark()
""",
        new="",
        tests=(
            _GOES_AT_ANY_MOMENT + "[go_away]",
            _LEADERSHIP_TESTS + "test_io_thread_that_sleeps_while_the_guest_leads_wakes_when_it_goes_away",
        ),
        breaks="While a worker runs a long task nobody answers its servers, and they take it for dead.",
    ),
    Mutation(
        name="guest-leaves-for-good-and-leaves-the-other-parked",
        file=_LEADERSHIP,
        old="""\
            self._holder.clear()
        self._unpark()
""",
        new="""\
            self._holder.clear()
""",
        tests=(_GOES_AT_ANY_MOMENT + "[leave]",),
        breaks="A worker that is interrupted while it waits for jobs hangs when it ends.",
    ),
    Mutation(
        name="thread-parks-without-a-last-look",
        file=_LEADERSHIP,
        old="        if self._away_since is None and self.guest:\n            parked.acquire()\n",
        new="        parked.acquire()\n",
        tests=(_GOES_AT_ANY_MOMENT + "[go_away]", _GOES_AT_ANY_MOMENT + "[leave]"),
        breaks="As if it were left parked, when a job comes in the moment in which the I/O thread parks.",
    ),
    Mutation(
        name="thread-never-parks",
        file=_LEADERSHIP,
        old="        if away is None and self._trips == self._seen:\n            self._park()\n        else:\n",
        new="        if self.guest:\n",
        tests=(_LEADERSHIP_TESTS + "test_io_thread_does_not_wake_while_the_guest_waits",),
        breaks="An idle worker wakes fifty times a second.",
    ),
    Mutation(
        name="handing-over-wakes-nobody",
        file=_LEADERSHIP,
        old="""\
            wish.release()
""",
        new="",
        tests=(_LEADERSHIP_TESTS + "test_guest_gets_the_loop_as_soon_as_the_io_thread_hands_it_over",),
        breaks="After each task that took long a worker loses 20 ms.",
    ),
    Mutation(
        name="wish-to-lead-wakes-nobody",
        file=_LEADERSHIP,
        old="""\
            self.wish = wish
            self._wake()
""",
        new="""\
            self.wish = wish
""",
        tests=(_LEADERSHIP_TESTS + "test_guest_gets_the_loop_as_soon_as_the_io_thread_hands_it_over",),
        breaks="After a task that took long a worker asks for no job until something else wakes its I/O thread.",
    ),
    Mutation(
        name="loop-is-left-and-not-handed-over",
        file=_LEADERSHIP,
        old="""\
            self._holder["leader"] = self._guest_ident
""",
        new="""\
            self._holder.clear()
""",
        tests=(_LEADERSHIP_TESTS + "test_guest_gets_the_loop_as_soon_as_the_io_thread_hands_it_over",),
        breaks="After a task that took long a worker may not get its loop back.",
    ),
    Mutation(
        name="guest-stays-the-leader-while-it-is-away",
        file=_LEADERSHIP,
        old="        self._trips += 1\n        self._holder.clear()\n",
        new="        self._trips += 1\n",
        tests=(_LEADERSHIP_TESTS + "test_io_thread_leads_while_the_guest_is_away_for_long",),
        breaks="While a worker runs a long task nobody answers its servers, and they take it for dead.",
    ),
]
