"""Mutations of the client's engine."""

from __future__ import annotations

from .mutation import Mutation

_ENGINE = "gearman_pool/engine/client/engine.py"
_FUTURE = "gearman_pool/threads/outcome.py"
_CALLBACKS = "gearman_pool/threads/callbacks.py"
_IO_THREAD = "gearman_pool/threads/waiting.py"
_SESSION = "gearman_pool/protocol/client.py"

_PROMISE = "gearman_pool/threads/waiting.py"
_ANNOUNCER = "gearman_pool/engine/announcer.py"
_CLIENT = "gearman_pool/client.py"

_ABANDONED = "tests/faults/test_abandoned_jobs.py"
_BASICS = "tests/test_client.py"
_CALLING_BACK = "tests/faults/test_callbacks.py"
_CALLS = "tests/threads/test_callbacks.py"
_CLOSING = "tests/faults/test_close_and_exit.py"
_CONNECTION = "tests/transport/test_connection.py"
_FORKING = "tests/faults/test_fork.py"
_FROZEN = "tests/faults/test_frozen_server.py"
_KILLED = "tests/faults/test_killed_server.py"
_OUTCOMES = "tests/conformance/test_outcomes.py"
_PROMISES = "tests/threads/test_waiting.py"
_RACES = "tests/faults/test_races.py"
_RETRIES = "tests/faults/test_retries.py"
_RETURNING = "tests/faults/test_returning_server.py"
_SESSIONS = "tests/protocol/test_client.py"
_UNIQUES = "tests/conformance/test_uniques.py"
_WAITING = "tests/faults/test_waiting.py"

#: The servers of the conformance tests.
_KINDS = ("gearmand", "embedded")

MUTATIONS = [
    Mutation(
        name="finished-jobs-timer-is-not-cancelled",
        file="gearman_pool/jobs/flight.py",
        old="            self._timer.cancel()\n",
        new="",
        tests=(f"{_ABANDONED}::test_finished_job_is_not_kept_until_its_timeout",),
        breaks="A finished job with timeout= stays in memory, with its result, until that time is over.",
    ),
    Mutation(
        name="entry-in-both-lists-is-handled-twice",
        file="gearman_pool/engine/client/engine.py",
        old="            if id(token) in seen:\n                continue\n",
        new="",
        tests=(f"{_CONNECTION}::test_job_whose_sender_was_struck_between_both_lists_is_sent_again_once",),
        breaks="A job whose sender was interrupted is sent again twice, runs twice, and ends with an error.",
    ),
    Mutation(
        name="job-that-comes-after-the-loops-end-is-left",
        file="gearman_pool/engine/client/engine.py",
        old="""        if self.io.ended:
            # The loop ended between the look above and now; nobody else will see this one.
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
        file="gearman_pool/engine/client/endings.py",
        old="        patience = PATIENCE if io.now >= self._impatient_until else 0.0\n",
        new="        patience = PATIENCE\n",
        tests=(f"{_WAITING}::test_loop_waits_for_one_of_the_locks_that_were_left_taken_and_not_for_each",),
        breaks="An interrupted caller that left the locks of 1,000 futures taken stops all jobs for 20 s.",
    ),
    Mutation(
        name="cancel-overlooks-who-shares-the-handle",
        file="gearman_pool/engine/client/cancelling.py",
        old="        elif connection.session.shares(handle):\n",
        new="        elif False:\n",
        tests=tuple(
            f"{_UNIQUES}::test_cancelling_one_of_two_jobs_that_a_dash_has_joined_leaves_the_other_its_result[{kind}]"
            for kind in _KINDS
        ),
        breaks="Cancelling one of two jobs that unique='-' has joined fails the other.",
    ),
    Mutation(
        name="cancel-overlooks-other-clients",
        file="gearman_pool/engine/client/cancelling.py",
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
        file="gearman_pool/engine/client/lost_jobs.py",
        old="if self.sweep - flight.heard > 1]",
        new="if self.sweep - flight.heard > 0]",
        tests=(f"{_ABANDONED}::test_job_is_asked_after_when_it_has_been_silent_for_lost_job_check_and_not_before",),
        breaks="Jobs are asked after twice as often as lost_job_check says.",
    ),
    Mutation(
        name="waiting-caller-does-not-look-again",
        file=_FUTURE,
        old="            blocked.append(waiter)\n            if self._state not in OPEN:\n",
        new="            blocked.append(waiter)\n            if False:\n",
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
                f"{_PROMISES}::test_caller_who_waits_for_an_answer_is_woken_at_whatever_step_of_its_way_it_comes[{which}]"
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
        tests=(f"{_CALLS}::test_call_that_comes_at_whatever_step_of_an_idle_threads_end_is_made[the end and a call]",),
        breaks="A callback of a job that ends while the client closes is never called.",
    ),
    Mutation(
        name="idle-thread-overlooks-the-call-it-was-given",
        file=_CALLBACKS,
        old="            return idle.call\n",
        new="            return None\n",
        tests=tuple(
            f"{_CALLS}::test_call_that_comes_at_whatever_step_of_an_idle_threads_end_is_made[{what}]"
            for what in ("a call", "two calls")
        ),
        breaks="A callback that is handed to an idle thread in the moment in which that gives up is never called.",
    ),
    Mutation(
        name="question-after-a-job-that-is-lost-counts-as-answered",
        file="gearman_pool/engine/client/lost_jobs.py",
        old='        self._lost_jobs.checked(connection, self._flight, value[1] == b"1")\n',
        new="""        self._lost_jobs.checked(connection, self._flight, value[1] == b"1")

    def lost(self, error: GearmanError) -> None:
        self._lost_jobs.checked(self._flight.connection, self._flight, False)
""",
        tests=(f"{_FROZEN}::test_job_that_was_sent_again_is_not_failed_by_what_its_former_connection_was_asked",),
        breaks="A job with attempts left fails with its connection if it was just being asked after.",
    ),
    # ---- what is sent again ----------------------------------------------------------------------------------------
    Mutation(
        name="foreground-job-is-sent-again-with-its-unique",
        file="gearman_pool/engine/client/engine.py",
        old="        fresh = None if flight.unique_given or request.background else self.uniques.new()\n",
        new="        fresh = None\n",
        tests=(
            f"{_RETRIES}::test_made_up_unique_is_another_one_for_the_second_attempt_and_the_job_runs",
            f"{_KILLED}::test_background_job_keeps_its_unique_and_a_foreground_job_gets_a_new_one_when_sent_again",
        ),
        breaks="A foreground job that is sent again joins its own abandoned copy, and goes with that without a word.",
    ),
    Mutation(
        name="background-job-is-sent-again-with-another-unique",
        file="gearman_pool/engine/client/engine.py",
        old="        fresh = None if flight.unique_given or request.background else self.uniques.new()\n",
        new="        fresh = None if flight.unique_given else self.uniques.new()\n",
        tests=(
            f"{_RETRIES}::test_background_job_that_is_sent_again_joins_its_own_first_copy_and_runs_once[None]",
            f"{_KILLED}::test_background_job_keeps_its_unique_and_a_foreground_job_gets_a_new_one_when_sent_again",
        ),
        breaks="A background job that is sent again runs twice, though its first copy waits at the server.",
    ),
    Mutation(
        name="job-is-sent-again-once-too-often",
        file="gearman_pool/engine/client/engine.py",
        old="request.connection_attempts < request.max_connection_attempts",
        new="request.connection_attempts <= request.max_connection_attempts",
        tests=(f"{_RETRIES}::test_background_job_without_attempts_left_says_that_it_may_have_been_sent_and_it_has",),
        breaks="A job with max_retries=0 is sent again, and may run twice.",
    ),
    Mutation(
        name="job-that-was-not-sent-costs-an-attempt",
        file="gearman_pool/engine/client/engine.py",
        old="                self._reroute(entry, token)\n",
        new="                self._lost(connection, token, error)\n",
        tests=(f"{_KILLED}::test_unsent_jobs_of_a_dead_server_cost_no_attempt_and_run_elsewhere",),
        breaks="A job of which no byte had left fails with its connection.",
    ),
    # ---- maybe_sent ------------------------------------------------------------------------------------------------
    Mutation(
        name="timed-out-job-says-the-reverse-of-maybe-sent",
        file="gearman_pool/engine/client/engine.py",
        old="JobTimeout(text, maybe_sent=not unsent, retryable=unsent)",
        new="JobTimeout(text, maybe_sent=unsent, retryable=not unsent)",
        tests=(
            f"{_BASICS}::test_timeout_of_a_job_that_was_never_sent_says_so",
            f"{_BASICS}::test_timeout_and_cancel_of_accepted_jobs_name_the_server",
        ),
        breaks="Who sends a timed-out job again by maybe_sent has it run twice, or never.",
    ),
    Mutation(
        name="lost-job-says-it-was-not-sent",
        file="gearman_pool/engine/client/endings.py",
        old="    lost = ConnectionLost(text, server=connection.server.name, maybe_sent=True, retryable=True)\n",
        new="    lost = ConnectionLost(text, server=connection.server.name, maybe_sent=False, retryable=True)\n",
        tests=(f"{_KILLED}::test_jobs_of_the_dead_server_alone_raise_connection_lost_without_retries",),
        breaks="Who sends a lost job again by maybe_sent has it run twice.",
    ),
    Mutation(
        name="job-that-found-no-server-says-the-reverse-of-maybe-sent",
        file="gearman_pool/engine/client/engine.py",
        old="                mine.maybe_sent = not token.unsend()\n",
        new="                mine.maybe_sent = token.unsend()\n",
        tests=(f"{_RETURNING}::test_job_that_was_lost_and_finds_no_server_ends_too",),
        breaks="A job that was at a server once says that it was not.",
    ),
    Mutation(
        name="cancelled-job-says-the-reverse-of-maybe-sent",
        file="gearman_pool/engine/client/cancelling.py",
        old="        maybe_sent = flight.request.connection_attempts > 0\n",
        new="        maybe_sent = flight.request.connection_attempts == 0\n",
        tests=(
            f"{_BASICS}::test_cancel_withdraws_a_queued_job_and_not_a_running_one",
            f"{_BASICS}::test_job_that_waits_for_a_server_is_withdrawn_without_one",
        ),
        breaks="A job that was cancelled before it was sent says that it may run.",
    ),
    Mutation(
        name="job-that-close-fails-says-it-was-not-sent",
        file="gearman_pool/engine/client/engine.py",
        old="            self._endings.fail(flight, ClientClosed(str(error), maybe_sent=True))\n",
        new="            self._endings.fail(flight, ClientClosed(str(error), maybe_sent=False))\n",
        tests=(f"{_CLOSING}::test_close_fails_what_is_left_at_its_timeout",),
        breaks="A job that was with a worker when the client was closed says that it was not sent.",
    ),
    # ---- the session -----------------------------------------------------------------------------------------------
    Mutation(
        name="one-of-several-jobs-on-a-handle-gets-all-copies",
        file=_SESSION,
        old="        self.next = (self.next + 1) % len(self.tokens)\n",
        new="",
        tests=(
            f"{_SESSIONS}::test_two_submits_of_one_unique_share_a_handle_and_each_sees_each_update_once",
            *(
                f"{_UNIQUES}::test_same_unique_twice_on_one_connection_gives_each_future_each_update_once[{kind}]"
                for kind in _KINDS
            ),
        ),
        breaks="Of two jobs of one unique one gets each update twice, and the other none.",
    ),
    Mutation(
        name="acceptance-goes-to-the-last-request",
        file=_SESSION,
        old="                _, expected, token = order[0]\n",
        new="                _, expected, token = order[-1]\n",
        tests=(f"{_SESSIONS}::test_replies_are_matched_by_order_and_updates_by_handle",),
        breaks="Jobs that are in line get each other's results.",
    ),
    Mutation(
        name="failure-with-a-nul-behind-the-handle-is-not-understood",
        file=_SESSION,
        old='str(body.rstrip(b"\\0"), "utf-8", "surrogateescape")',
        new='str(body, "utf-8", "surrogateescape")',
        tests=(f"{_SESSIONS}::test_work_fail_ends_the_job_with_and_without_a_trailing_nul",),
        breaks="A job whose worker raised never ends, if the client has not asked for exceptions.",
    ),
    Mutation(
        name="late-packet-breaks-the-connection",
        file=_SESSION,
        old="            events.append((LATE, None, command))\n            if kind in _FINAL",
        new='            raise ProtocolError(f"a late packet of {handle}")\n            if kind in _FINAL',
        tests=(
            f"{_SESSIONS}::test_packets_of_unknown_handles_are_late_and_no_error",
            f"{_ABANDONED}::test_worker_that_answers_after_the_timeout_disturbs_nobody",
        ),
        breaks="A worker that answers after a job's timeout costs all other jobs their connection.",
    ),
    Mutation(
        name="job-that-was-given-up-takes-no-copies",
        file=_SESSION,
        old="            holder = self.handles[handle] = _Group(*[None] * self._forgotten.pop(handle))\n",
        new="            holder = self.handles[handle] = _Group()\n",
        tests=(
            f"{_SESSIONS}::test_job_that_joins_a_forgotten_one_sees_each_update_once",
            *(
                f"{_UNIQUES}::test_job_that_joins_one_that_was_given_up_before_sees_each_update_once[{kind}]"
                for kind in _KINDS
            ),
        ),
        breaks="A job that joins one that has timed out gets each update twice.",
    ),
    # ---- closing and forking ---------------------------------------------------------------------------------------
    Mutation(
        name="close-does-not-wait-for-jobs-in-flight",
        file="gearman_pool/engine/client/engine.py",
        old="        return not self.pool.busy()\n",
        new="        return True\n",
        tests=(
            f"{_CLOSING}::test_close_sends_what_is_queued_and_waits_for_what_is_in_flight",
            f"{_BASICS}::test_close_waits_for_jobs_in_flight_and_fails_the_rest",
        ),
        breaks="close() fails jobs that would have been done in time.",
    ),
    Mutation(
        name="close-waits-longer-than-it-may",
        file="gearman_pool/engine/client/engine.py",
        old="            self.io.call_later(timeout, self.io.stop)\n",
        new="",
        tests=(f"{_CLOSING}::test_close_fails_what_is_left_at_its_timeout",),
        breaks="close() leaves the thread running, and the jobs without an outcome.",
    ),
    Mutation(
        name="exit-waits-for-results",
        file="gearman_pool/engine/client/engine.py",
        old="        return not self.pool.busy(accepted=False)\n",
        new="        return not self.pool.busy()\n",
        tests=(f"{_CLOSING}::test_interpreters_exit_is_quick_and_sends_what_is_queued",),
        breaks="The interpreter's exit takes longer by EXIT_TIMEOUT if a job is in flight.",
    ),
    Mutation(
        name="parents-jobs-are-not-ended-in-the-child",
        file=_ENGINE,
        old="        if isinstance(token, Flight):\n            self.end_copy(token)\n",
        new="        if isinstance(token, Flight):\n            pass\n",
        tests=(f"{_FORKING}::test_copies_of_accepted_jobs_are_done_for_the_standard_librarys_functions_too",),
        breaks="In the child of a fork the parent's jobs are never done.",
    ),
    Mutation(
        name="child-waits-for-a-job-of-the-parents-that-was-on-its-way",
        file=_ENGINE,
        old="            self.end_copy(flight)\n        elif",
        new="            return\n        elif",
        tests=(f"{_FORKING}::test_copy_of_a_job_that_the_io_thread_had_in_hand_ends_when_it_is_waited_for",),
        breaks="result() in the child of a fork hangs, if the job was in the I/O thread's hands at that moment.",
    ),
    Mutation(
        name="uniques-are-not-renewed-when-the-thread-starts",
        file=_ENGINE,
        old="            self.uniques.renew()\n            super().start()\n",
        new="            super().start()\n",
        tests=(f"{_FORKING}::test_a_fork_that_python_is_not_told_of_does_not_mix_the_jobs_of_both_processes[pinged]",),
        breaks="Two processes that uWSGI has forked get each other's results.",
    ),
    # ---- callbacks -------------------------------------------------------------------------------------------------
    Mutation(
        name="callbacks-run-on-the-io-thread",
        file="gearman_pool/engine/client/endings.py",
        old="            flight.hand_over(partial(flight.call_back, callbacks), self._callbacks)\n",
        new="            flight.call_back(callbacks)\n",
        tests=(
            f"{_CALLING_BACK}::test_other_callbacks_run_beside_one_that_blocks",
            f"{_CALLING_BACK}::test_callbacks_submit_more_jobs_and_wait_for_them",
        ),
        breaks="A callback that blocks, or waits for another job, stops all jobs.",
    ),
    Mutation(
        name="who-waits-is-told-behind-callbacks",
        file="gearman_pool/engine/client/endings.py",
        old="            self.notices.submit(partial(flight.tell_waiters, waiters, LOST_LOCK))\n",
        new="            self._callbacks.submit(partial(flight.tell_waiters, waiters, LOST_LOCK))\n",
        tests=(f"{_WAITING}::test_wait_as_completed_and_await_do_not_depend_on_callbacks_that_block",),
        breaks="as_completed() and await hang as long as callbacks block.",
    ),
    Mutation(
        name="system-exit-ends-a-callback-thread",
        file=_CALLBACKS,
        old="            except BaseException:  # SystemExit too: it would end the thread",
        new="            except Exception:  # SystemExit too: it would end the thread",
        tests=(f"{_CALLS}::test_threads_for_callbacks_outlive_whatever_a_call_raises[False]",),
        breaks="Callbacks are never called after one has raised SystemExit as often as there are threads.",
    ),
    Mutation(
        name="system-exit-ends-a-mailbox",
        file=_CALLBACKS,
        old="            except BaseException:  # SystemExit too: the calls behind this one must run\n",
        new="            except Exception:  # SystemExit too: the calls behind this one must run\n",
        tests=(f"{_CALLS}::test_threads_for_callbacks_outlive_whatever_a_call_raises[True]",),
        breaks="on_data and the like are never called again for a job whose callback has raised SystemExit.",
    ),
    Mutation(
        name="callback-that-raises-skips-those-behind-it",
        file="gearman_pool/threads/outcome.py",
        old="            except BaseException:  # SystemExit too: the callbacks behind this one must run\n",
        new="            except KeyError:  # SystemExit too: the callbacks behind this one must run\n",
        tests=(
            *(
                f"{_CALLING_BACK}::test_callback_that_raises_keeps_no_other_callback_of_its_job_from_its_turn[{kind}]"
                for kind in ("ZeroDivisionError", "SystemExit")
            ),
        ),
        breaks="A done callback that raises keeps those that were added later from being called.",
    ),
    Mutation(
        name="listener-that-raises-skips-those-behind-it",
        file=_ANNOUNCER,
        old="            except Exception:  # the user's code; the listeners behind this one must be told\n",
        new="            except KeyError:  # the user's code; the listeners behind this one must be told\n",
        tests=(f"{_CALLING_BACK}::test_listener_that_raises_keeps_no_other_from_hearing",),
        breaks="A listener that raises keeps the next ones from hearing of anything.",
    ),
    Mutation(
        name="who-waits-and-cannot-be-told-skips-those-behind-it",
        file="gearman_pool/threads/outcome.py",
        old="            except Exception:  # a loop that is closed by now",
        new="            except KeyError:  # a loop that is closed by now",
        tests=(f"{_WAITING}::test_loop_that_is_closed_while_it_is_told_keeps_no_other_loop_from_its_result",),
        breaks="An asyncio loop that is closed keeps others who wait for the same job waiting for ever.",
    ),
    # ---- outcomes --------------------------------------------------------------------------------------------------
    Mutation(
        name="job-ends-twice",
        file="gearman_pool/threads/outcome.py",
        old="            if self._state not in OPEN:\n                return False\n",
        new="",
        tests=(
            f"{_FORKING}::test_job_that_had_ended_before_the_fork_keeps_its_outcome_though_the_server_owes_an_answer",
        ),
        breaks="A job that has timed out in the parent has another outcome in the child of a fork.",
    ),
    Mutation(
        name="job-that-has-ended-is-ended-again",
        file="gearman_pool/engine/client/endings.py",
        old="            return\n        if isinstance(error, GearmanError):\n            error.task",
        new="            pass\n        if isinstance(error, GearmanError):\n            error.task",
        tests=(f"{_ABANDONED}::test_job_that_is_refused_after_its_timeout_has_one_outcome",),
        breaks="Listeners hear twice of the end of a job, and of two different ones.",
    ),
    Mutation(
        name="stuck-future-keeps-its-lock",
        file="gearman_pool/engine/client/endings.py",
        old="            flight.replace_guard()\n            flight.resolve(outcome, result, error, 0)\n",
        new="            flight.resolve(outcome, result, error, 0)\n",
        tests=(
            f"{_WAITING}::test_locks_that_interrupted_callers_left_taken_hold_up_nobody",
            f"{_WAITING}::test_loop_waits_for_one_of_the_locks_that_were_left_taken_and_not_for_each",
        ),
        breaks="A job whose lock an interrupted caller has left taken never ends.",
    ),
    Mutation(
        name="jobs-of-events-that-broke-are-left",
        file=_ENGINE,
        old="                    self._endings.break_off(token, broken)\n",
        new="                    pass\n",
        tests=(f"{_BASICS}::test_unexpected_error_in_the_io_thread_ends_the_job_and_not_the_client",),
        breaks="A job in whose handling the client fails never ends.",
    ),
    Mutation(
        name="result-may-be-waited-for-on-the-io-thread",
        file=_ENGINE,
        old="        elif self.io.is_current():\n",
        new="        elif False:\n",
        tests=(f"{_BASICS}::test_result_on_the_io_thread_raises",),
        breaks="A policy or an encoder that waits for a result stops all jobs for ever, without a word.",
    ),
    Mutation(
        name="map-leaves-its-jobs",
        file=_CLIENT,
        old="                self._engine.begin_cancel(future, Promise())\n",
        new="                pass\n",
        tests=(
            f"{_BASICS}::test_map_that_nobody_iterates_withdraws_its_jobs",
            f"{_BASICS}::test_map_whose_items_cannot_all_be_submitted_withdraws_the_others",
        ),
        breaks="map() that is given up leaves its jobs at the server.",
    ),
    Mutation(
        name="second-answer-replaces-the-first",
        file=_PROMISE,
        old="        if self.done:\n            return\n",
        new="",
        tests=(f"{_PROMISES}::test_first_answer_is_the_one_that_counts",),
        breaks="A question that was answered fails when its connection is lost before anybody looks.",
    ),
    Mutation(
        name="cancel-of-a-job-that-waits-asks-the-server",
        file="gearman_pool/engine/client/cancelling.py",
        old="        elif self._pool.withdraw(flight):\n            flight.unsend()\n",
        new="        elif False:\n            flight.unsend()\n",
        tests=(f"{_BASICS}::test_job_that_waits_for_a_server_is_withdrawn_without_one",),
        breaks="A job that waits for a server cannot be cancelled.",
    ),
    Mutation(
        name="cancelled-job-that-completes-is-taken-for-dropped",
        file="gearman_pool/engine/client/cancelling.py",
        old='        elif flight.ended or handle is None or value[1] != b"1" or value[2] == b"1":\n',
        new='        elif flight.ended or handle is None or value[1] != b"1":\n',
        tests=(
            f"{_ABANDONED}::test_cancel_of_a_running_job_says_that_it_cannot",
            f"{_BASICS}::test_cancel_withdraws_a_queued_job_and_not_a_running_one",
        ),
        breaks="cancel() fails a job that a worker runs.",
    ),
    Mutation(
        name="job-without-a-word-is-not-asked-after",
        file="gearman_pool/engine/client/lost_jobs.py",
        old="        if known or flight.ended:\n            return\n",
        new="        return\n",
        tests=tuple(
            f"{_OUTCOMES}::test_job_that_joined_one_whose_client_had_left_is_found_lost[{kind}]"
            for kind in ("gearmand",)
        ),
        breaks="A job that the server has dropped without a word never ends.",
    ),
]
