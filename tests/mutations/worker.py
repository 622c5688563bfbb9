"""Mutations of the worker."""

from __future__ import annotations

from .mutation import Mutation

_HELD = "gearman_pool/engine/worker/held_jobs.py"
_SLOTS = "gearman_pool/engine/worker/slots.py"
_ABILITIES = "gearman_pool/engine/worker/abilities.py"
_FAREWELL = "gearman_pool/engine/worker/farewell.py"
_RUNNER = "gearman_pool/engine/worker/task_runner.py"
_SIGNALS = "gearman_pool/engine/worker/stop_signals.py"
_SESSION = "gearman_pool/protocol/worker.py"
_QUESTIONS = "tests/faults/test_questions_for_jobs.py::"
_FAULTS = "tests/faults/test_worker_faults.py::"
_STOPPED = "tests/faults/test_stopped_worker.py::"
_TOLD = "tests/engine/worker/test_abilities.py::"
_FAREWELLS = "tests/engine/worker/test_farewell.py::"
_MOODS = "tests/engine/worker/test_slots.py::"
_RUNS = "tests/engine/worker/test_runs.py::"
_TASKS = "tests/test_worker.py::"
_SEVERAL = "tests/conformance/test_several_servers.py::"
_CONFORMANCE = "tests/conformance/test_worker.py::"

MUTATIONS = [
    # ---- slots and questions ---------------------------------------------------------------------------------------
    Mutation(
        name="orphans-slot-asks-again",
        file=_HELD,
        old="self.draining or slot.orphan else self._next(slot)",
        new="self.draining else self._next(slot)",
        tests=(_QUESTIONS + "test_late_job_is_run_and_its_slot_is_not_used_again",),
        breaks="After a server stood still for a moment a worker holds one job more than it was told to, for good.",
    ),
    Mutation(
        name="orphans-slot-becomes-idle",
        file=_SLOTS,
        old="        if not slot.orphan:\n            self._idle.append(slot)",
        new="        self._idle.append(slot)",
        tests=(_QUESTIONS + "test_late_answer_without_a_job_gives_back_no_second_slot",),
        breaks="Each time a server answers late a worker holds one job more than it was told to, for good.",
    ),
    Mutation(
        name="end-does-not-wait-for-questions",
        file=_FAREWELL,
        old=(
            "            if not self._slots.all_idle:\n"
            "                return  # a question is on its way, and may be answered with a job\n"
        ),
        new="",
        tests=(_QUESTIONS + "test_worker_that_stops_waits_for_answers_and_for_the_server_to_have_the_result",),
        breaks="A worker that stops may destroy the result of the job that came last, and the job runs once more.",
    ),
    Mutation(
        name="more-questions-than-max-jobs-has-left",
        file=_SLOTS,
        old="while self._idle and (self._left is None or self._asking < self._left):",
        new="while self._idle:",
        tests=(
            _QUESTIONS + "test_no_more_jobs_are_asked_for_than_max_jobs_has_left",
            _MOODS + "test_max_jobs_stops_after_exactly_so_many",
        ),
        breaks="A worker with more slots than max_jobs runs more jobs than max_jobs.",
    ),
    Mutation(
        name="finished-job-asks-although-max-jobs-is-set",
        file=_HELD,
        old="target = None if not self._asks_again or self.draining",
        new="target = None if self.draining",
        tests=(
            _QUESTIONS + "test_no_more_jobs_are_asked_for_than_max_jobs_has_left",
            _MOODS + "test_max_jobs_stops_after_exactly_so_many",
        ),
        breaks="A worker runs more jobs than max_jobs.",
    ),
    Mutation(
        name="slot-of-a-lost-servers-job-is-lost",
        file=_HELD,
        old="        slot = assignment.slot\n        connection = assignment.connection\n",
        new=(
            "        slot = assignment.slot\n"
            "        connection = assignment.connection\n"
            "        if connection.closed:\n"
            "            return\n"
        ),
        tests=(
            _FAULTS + "test_result_for_a_lost_server_is_logged_and_counted_and_not_raised",
            _FAULTS + "test_jobs_that_wait_at_the_worker_for_a_lost_server_are_not_run",
        ),
        breaks="Each job whose server is lost while it runs takes one of the worker's slots, until it does nothing.",
    ),
    Mutation(
        name="slot-of-a-job-that-is-not-run-is-lost",
        file=_RUNNER,
        old="            held.release(assignment, None)\n            return True\n",
        new="            return True\n",
        tests=(_FAULTS + "test_jobs_that_wait_at_the_worker_for_a_lost_server_are_not_run",),
        breaks="Each job that waits at the worker when its server is lost takes one of the worker's slots for good.",
    ),
    # ---- tasks -----------------------------------------------------------------------------------------------------
    Mutation(
        name="generator-goes-on-after-its-server-has-gone",
        file=_RUNNER,
        old="if assignment.lost or assignment.overdue:\n                result.close()",
        new="if assignment.overdue:\n                result.close()",
        tests=(_FAULTS + "test_generator_whose_server_is_lost_is_closed_and_nothing_more_is_drawn",),
        breaks="A task that yields goes on, perhaps for ever, though nobody can get what it yields.",
    ),
    Mutation(
        name="generator-goes-on-after-its-time-is-up",
        file=_RUNNER,
        old="if assignment.lost or assignment.overdue:\n                result.close()",
        new="if assignment.lost:\n                result.close()",
        tests=(_FAULTS + "test_generator_whose_time_is_up_is_closed_and_nothing_more_is_drawn",),
        breaks="A task that yields goes on after its timeout, and occupies a slot perhaps for ever.",
    ),
    Mutation(
        name="generator-is-left-open",
        file=_RUNNER,
        old="                result.close()\n                return None",
        new="                return None",
        tests=(
            _FAULTS + "test_generator_whose_server_is_lost_is_closed_and_nothing_more_is_drawn",
            _FAULTS + "test_generator_whose_time_is_up_is_closed_and_nothing_more_is_drawn",
        ),
        breaks="What a task's generator would do at its end is not done, or some time later on another thread.",
    ),
    Mutation(
        name="generators-data-sent-by-another-thread",
        file=_HELD,
        old="        assignment.connection.submit((packet, NO_REPLY, None))\n",
        new="        self._io.post(partial(assignment.connection.submit, (packet, NO_REPLY, None)))\n",
        tests=(_TASKS + "test_generator_streams_data_and_returns_the_result",),
        breaks="Data may be sent after the result, where it is lost.",
    ),
    Mutation(
        name="exceptions-text-with-local-variables",
        file=_RUNNER,
        old="""    return f"{type(error).__name__}: {error}".encode(""",
        new="""    where = error.__traceback__
    while where.tb_next:
        where = where.tb_next
    return f"{type(error).__name__}: {error} {where.tb_frame.f_locals}".encode(""",
        tests=(_TASKS + "test_task_that_raises_gives_its_class_and_text_and_the_worker_goes_on",),
        breaks="Clients are shown the local variables of a task that raised, secrets among them.",
    ),
    Mutation(
        name="result-sent-to-the-server-that-is-asked-next",
        file=_HELD,
        old="                connection.submit(final)\n                target.submit(grab)",
        new="                target.submit(final, grab)",
        tests=(_SEVERAL + "test_results_go_to_the_servers_that_gave_the_jobs",),
        breaks="A worker of several servers sends results to servers that do not know the jobs.",
    ),
    # ---- servers ---------------------------------------------------------------------------------------------------
    Mutation(
        name="finished-job-asks-the-first-server-only",
        file=_HELD,
        old="            return awake[(awake.index(slot.connection) + 1) % len(awake)]",
        new="            return awake[0]",
        tests=(_MOODS + "test_all_servers_are_served_fairly",),
        breaks="Jobs of other servers wait as long as the first one has any.",
    ),
    Mutation(
        name="idle-slot-asks-the-first-server-only",
        file=_SLOTS,
        old="return awake[self._rotation % len(awake)] if awake else None",
        new="return awake[0] if awake else None",
        tests=(_MOODS + "test_all_servers_are_served_fairly",),
        breaks="With max_jobs, jobs of other servers wait as long as the first one has any.",
    ),
    Mutation(
        name="no-sleep-after-no-job",
        file=_SLOTS,
        old="        connection.submit(connection.session.sleep())\n",
        new="",
        tests=(
            _CONFORMANCE + "test_answers_that_come_together_put_the_worker_to_sleep_once",
            _QUESTIONS + "test_server_that_sleeps_is_asked_each_poll_interval",
        ),
        breaks="Servers do not wake an idle worker: each job waits for the next poll.",
    ),
    Mutation(
        name="no-question-while-asleep",
        file=_SLOTS,
        old="self._due = deque(c for c in self.sources if c not in self._held.awake and not is_asked(c))",
        new="self._due = deque()",
        tests=(_QUESTIONS + "test_server_that_sleeps_is_asked_each_poll_interval",),
        breaks="On gearmand before 2.0 a job of the future is run when the next other job comes, or never.",
    ),
    Mutation(
        name="cant-do-before-the-running-jobs-result",
        file=_ABILITIES,
        old="for task in self._held.leaving - {assignment.task for assignment in list(self._held.unsent)}:",
        new="for task in set(self._held.leaving):",
        tests=(
            _TOLD + "test_task_taken_back_while_a_job_of_it_runs_runs_once",
            _TOLD + "test_task_taken_back_between_a_jobs_end_and_its_result_runs_once",
        ),
        breaks="A job that runs when its task is taken back is run twice.",
    ),
    Mutation(
        name="late-error-answers-a-question",
        file=_SESSION,
        old="events.append((NOT_MINE, None, error_of(body)))",
        new="events.append((NOTHING, self._grabbed(command, events), None))",
        tests=("tests/protocol/test_worker.py::test_error_is_not_taken_for_the_answer_to_a_question",),
        breaks="After the result of a cancelled job each answer is taken for that to another question.",
    ),
    Mutation(
        name="counts-are-read-under-the-runs-lock",
        file="gearman_pool/engine/worker/runs.py",
        old="        stats = stats_of(engine, False)\n        ended = None\n        with self._lock:\n",
        new="        ended = None\n        with self._lock:\n            stats = stats_of(engine, False)\n",
        tests=(_RUNS + "test_an_eager_client_takes_no_lock_while_it_holds_another",),
        breaks="One lock is taken while another is held: the next one that is added may make a deadlock of it.",
    ),
    Mutation(
        name="who-borrows-at-the-last-moment-is-forgotten",
        file="gearman_pool/engine/worker/runs.py",
        old="            if self._borrowings == borrowings:\n",
        new="            if True:\n",
        tests=(_RUNS + "test_who_borrows_while_the_last_one_gives_back_goes_on_and_leaves_the_newer_counts",),
        breaks="An eager client's task may find that its worker does not run.",
    ),
    Mutation(
        name="server-that-lies-is-believed-for-ever",
        file=_SLOTS,
        old="        if self.fruitless < _BELIEVED:\n",
        new="        if True:\n",
        tests=(
            _MOODS + "test_server_that_wakes_the_worker_at_once_without_a_job_is_doubted_the_fourth_time",
            _MOODS + "test_noops_without_jobs_do_not_make_the_worker_spin",
        ),
        breaks="With jobs of the future on gearmand 1.1 a worker that has nothing to do uses a whole processor.",
    ),
    Mutation(
        name="any-mood-may-follow-any-other",
        file=_SLOTS,
        old="        if mood not in MOOD_MOVES[self.mood]:\n",
        new="        if False:\n",
        tests=(_MOODS + "test_other_moves_raise_and_change_nothing",),
        breaks="What the documentation draws of a worker's servers says nothing about the code.",
    ),
    # ---- signals and the end ---------------------------------------------------------------------------------------
    Mutation(
        name="signal-drops-the-running-job",
        file=_RUNNER,
        old="        self._stop_signal = number\n        self._worker.stop()",
        new="        self._stop_signal = number\n        self._worker.stop(0)",
        tests=(_STOPPED + "test_signal_lets_the_running_job_finish_and_the_process_exit_with_0",),
        breaks="Each deployment interrupts the jobs that run, and they run again from their start.",
    ),
    Mutation(
        name="second-signal-is-ignored-by-the-handler",
        file=_SIGNALS,
        old="        if self._handled:\n",
        new="        if self._handled and False:\n",
        tests=(_STOPPED + "test_second_signal_ends_the_process_at_once_and_the_job_goes_to_another_worker",),
        breaks="Ctrl-C twice ends a worker only a second later, and not as other programs end.",
    ),
    Mutation(
        name="second-signal-is-ignored-by-the-io-thread",
        file=_SIGNALS,
        old="(self._on_second if self._read else self._on_first)(number)",
        new="self._on_first(number)",
        tests=(_STOPPED + "test_second_signal_ends_the_process_though_its_task_is_in_c_code",),
        breaks="Ctrl-C twice does not end a worker whose task hangs in C code.",
    ),
    Mutation(
        name="shutdown-timeout-is-not-kept",
        file=_FAREWELL,
        old="            self._deadline = self._io.call_later(timeout, self._give_up)",
        new="            self._deadline = self._io.call_later(600.0, self._give_up)",
        tests=(
            _FAREWELLS + "test_shutdown_timeout_leaves_the_job_to_another_worker",
            _STOPPED + "test_end_of_the_shutdown_timeout_ends_the_process_and_the_job_goes_to_another_worker",
        ),
        breaks="A worker with a job that hangs never ends, and its job is never given to another.",
    ),
    Mutation(
        name="second-stop-may-lengthen-the-time",
        file=_FAREWELL,
        old="if deadline is None or self._io.clock() + timeout < deadline.when:",
        new="if True:",
        tests=(_FAREWELLS + "test_a_second_stop_may_shorten_the_time_and_not_lengthen_it",),
        breaks="stop() in a task, or a second signal, puts the end off.",
    ),
    Mutation(
        name="job-of-a-lost-server-is-run",
        file=_RUNNER,
        old="if assignment.lost or assignment.connection.closed:\n            # The job had not begun",
        new="if False:\n            # The job had not begun",
        tests=(_FAULTS + "test_jobs_that_wait_at_the_worker_for_a_lost_server_are_not_run",),
        breaks="Jobs that waited at the worker when its server was lost run twice.",
    ),
]
