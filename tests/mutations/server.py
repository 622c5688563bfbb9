"""Mutations of the embedded server."""

from __future__ import annotations

from .mutation import Mutation

_SERVER = "gearman_pool/protocol/server/machine.py"
_QUEUES = "gearman_pool/protocol/server/queues.py"
_EMBEDDED = "gearman_pool/testing/server.py"
_MACHINE = "tests/protocol/test_server.py::"
_DUTIES = "tests/conformance/test_server_duties.py::"
_UNIQUES = "tests/conformance/test_uniques.py::"
_TESTS_QUEUES = "tests/protocol/test_queues.py::"
_TESTS_EMBEDDED = "tests/testing/test_server.py::"

MUTATIONS = [
    Mutation(
        name="priorities-swapped",
        file=_QUEUES,
        old="    HIGH = 0\n    NORMAL = 1\n    LOW = 2\n",
        new="    LOW = 0\n    NORMAL = 1\n    HIGH = 2\n",
        tests=(
            _MACHINE + "test_priorities_come_before_functions_and_functions_take_turns",
            _DUTIES + "test_jobs_come_by_priority_and_within_one_in_the_order_of_their_submission",
        ),
        breaks="Jobs of low priority come first.",
    ),
    Mutation(
        name="last-job-first",
        file=_QUEUES,
        old="            queue.append(job)\n",
        new="            queue.appendleft(job)\n",
        tests=(
            _MACHINE + "test_priorities_come_before_functions_and_functions_take_turns",
            _DUTIES + "test_jobs_come_by_priority_and_within_one_in_the_order_of_their_submission",
        ),
        breaks="The oldest job waits longest.",
    ),
    Mutation(
        name="functions-do-not-take-turns",
        file="gearman_pool/protocol/server/machine.py",
        old="        limit = peer.abilities.pop(task)\n        peer.abilities[task] = limit\n",
        new="        limit = peer.abilities[task]\n",
        tests=(_MACHINE + "test_priorities_come_before_functions_and_functions_take_turns",),
        breaks="Jobs of one task wait as long as there are any of another.",
    ),
    Mutation(
        name="uniques-do-not-join",
        file=_QUEUES,
        old="        return None if key is None else self._keys.get(key)\n",
        new="        return None\n",
        tests=(
            _MACHINE + "test_several_submits_of_one_unique_share_a_job_and_each_gets_every_packet",
            _UNIQUES + "test_hundred_callers_of_one_unique_all_get_the_result_of_one_run",
        ),
        breaks="Jobs of one unique run as often as they are submitted.",
    ),
    Mutation(
        name="uniques-of-all-tasks-join",
        file=_QUEUES,
        old="    return (task, unique) if unique else None\n",
        new="    return (unique,) if unique else None\n",
        tests=(_MACHINE + "test_special_uniques", _UNIQUES + "test_jobs_coalesce_by_task_and_unique"),
        breaks="A job gets the result of another task.",
    ),
    Mutation(
        name="job-of-a-lost-worker-is-dropped",
        file="gearman_pool/protocol/server/machine.py",
        old="            self.table.put_back(job)\n            self._wake(job)\n",
        new='            self._finish(job, "FAILED", Command.WORK_FAIL)\n',
        tests=(
            _MACHINE + "test_worker_that_goes_gives_its_jobs_to_the_next_and_status_starts_anew",
            "tests/conformance/test_life_of_jobs.py::test_background_job_is_run_again_when_its_worker_dies",
        ),
        breaks="A worker that is lost takes its jobs along.",
    ),
    Mutation(
        name="job-of-a-lost-worker-wakes-nobody",
        file="gearman_pool/protocol/server/machine.py",
        old="            self.table.put_back(job)\n            self._wake(job)\n",
        new="            self.table.put_back(job)\n",
        tests=(_MACHINE + "test_job_of_a_worker_that_goes_wakes_one_that_sleeps",),
        breaks="The job of a lost worker waits until another job comes.",
    ),
    Mutation(
        name="job-of-a-lost-worker-is-the-last",
        file=_QUEUES,
        old="        self._queue(job, first=True)\n",
        new="        self._queue(job)\n",
        tests=(_MACHINE + "test_worker_that_goes_gives_its_jobs_to_the_next_and_status_starts_anew",),
        breaks="The oldest job waits longest.",
    ),
    Mutation(
        name="jobs-due-at-one-moment-come-last-first",
        file=_QUEUES,
        old="        order = self._live[item] = next(self._order)\n",
        new="        order = self._live[item] = -next(self._order)\n",
        tests=(_TESTS_QUEUES + "test_agenda_gives_what_is_due_earliest_first_and_equals_in_their_order",),
        breaks="Of the jobs that are delayed to one moment the last one runs first.",
    ),
    Mutation(
        name="moment-that-was-changed-still-counts",
        file=_QUEUES,
        old="self._live.get(self._heap[0][2]) != self._heap[0][1]:",
        new="self._heap[0][2] not in self._live:",
        tests=(_TESTS_QUEUES + "test_what_is_put_on_the_agenda_again_is_due_at_the_new_moment_alone",),
        breaks="A job that another worker has taken over is taken from that one when the first one's time is over.",
    ),
    Mutation(
        name="attempts-of-a-job-are-not-counted",
        file=_QUEUES,
        old="        job.retries += 1\n",
        new="        job.retries = 1\n",
        tests=(_TESTS_QUEUES + "test_job_that_lost_its_worker_is_the_next_of_its_priority_and_starts_anew",),
        breaks="A job that kills its workers is given to one after the other for ever, whatever job_retries says.",
    ),
    Mutation(
        name="job-of-a-lost-worker-still-runs",
        file=_QUEUES,
        old="        job.function.running -= 1\n",
        new="",
        tests=(_TESTS_QUEUES + "test_job_that_lost_its_worker_is_the_next_of_its_priority_and_starts_anew",),
        breaks="The status counts jobs as running that wait.",
    ),
    Mutation(
        name="forgotten-jobs-take-room-in-the-history",
        file=_QUEUES,
        old="        self._ended.clear()\n        self._size = 0\n",
        new="        self._ended.clear()\n",
        tests=(_TESTS_QUEUES + "test_cleared_history_has_room_for_as_much_as_a_new_one",),
        breaks="After clear() a test does not find the jobs that have ended since.",
    ),
    Mutation(
        name="noop-for-workers-that-are-awake",
        file="gearman_pool/protocol/server/machine.py",
        old="            if worker.sleeping:\n",
        new="            if True:\n",
        tests=(
            _MACHINE + "test_sleeping_worker_is_woken_once_and_awake_ones_are_not",
            _DUTIES + "test_sleeping_worker_is_woken_once_until_it_asks_for_a_job",
        ),
        breaks="Each job is told to all workers, and each of them asks for it.",
    ),
    Mutation(
        name="worker-may-sleep-beside-a-job",
        file="gearman_pool/protocol/server/machine.py",
        old="        if self.table.runnable(peer.abilities):\n",
        new="        if False:\n",
        tests=(
            _MACHINE + "test_pre_sleep_is_answered_at_once_if_there_is_a_job",
            _DUTIES + "test_worker_that_goes_to_sleep_while_a_job_waits_is_woken_at_once",
        ),
        breaks="A job that comes between NO_JOB and PRE_SLEEP waits until another one comes.",
    ),
    Mutation(
        name="result-of-another-workers-job-is-taken",
        file="gearman_pool/protocol/server/machine.py",
        old="        job = peer.held.get(handle)\n",
        new="        job = self.table.jobs.get(handle)\n",
        tests=(_DUTIES + "test_what_is_sent_for_a_job_of_another_worker_is_refused_and_does_not_reach_its_client",),
        breaks="Any worker can end any job.",
    ),
    Mutation(
        name="server-takes-unique-of-64-bytes",
        file=_SERVER,
        old="len(unique) > MAX_UNIQUE_BYTES",
        new="len(unique) > MAX_UNIQUE_BYTES + 1",
        tests=(_MACHINE + "test_too_long_names_are_refused",),
        breaks="Code that gearmand would fail passes its tests.",
    ),
    Mutation(
        name="server-refuses-unique-of-63-bytes",
        file=_SERVER,
        old="len(unique) > MAX_UNIQUE_BYTES",
        new="len(unique) >= MAX_UNIQUE_BYTES",
        tests=(_UNIQUES + "test_unique_of_63_bytes_coalesces_and_reaches_the_worker_whole",),
        breaks="Code that gearmand would serve fails its tests.",
    ),
    Mutation(
        name="server-keeps-128-bytes-of-a-workers-name",
        file=_SERVER,
        old="[:MAX_CLIENT_ID_BYTES]",
        new="[: MAX_CLIENT_ID_BYTES + 1]",
        tests=(_DUTIES + "test_name_of_a_worker_is_cut_to_127_bytes",),
        breaks="The list of workers is not gearmand's.",
    ),
    Mutation(
        name="server-keeps-126-bytes-of-a-workers-name",
        file=_SERVER,
        old="[:MAX_CLIENT_ID_BYTES]",
        new="[: MAX_CLIENT_ID_BYTES - 1]",
        tests=(_DUTIES + "test_name_of_a_worker_is_cut_to_127_bytes",),
        breaks="The list of workers is not gearmand's.",
    ),
    Mutation(
        name="server-takes-lines-of-any-length",
        file=_SERVER,
        old="MAX_COMMAND_LENGTH, RES)",
        new="MAX_COMMAND_LENGTH + 1, RES)",
        tests=(_MACHINE + "test_line_that_is_too_long_ends_its_connection_whatever_the_pieces",),
        breaks="Code that gearmand would fail passes its tests.",
    ),
    Mutation(
        name="server-listens-on-all-interfaces",
        file=_EMBEDDED,
        old='        host: str = "127.0.0.1",\n',
        new='        host: str = "0.0.0.0",\n',
        tests=(_TESTS_EMBEDDED + "test_it_listens_on_a_free_loopback_port_and_keeps_it",),
        breaks="Whoever is in the same network can submit and do jobs.",
    ),
    Mutation(
        name="server-of-the-command-line-listens-on-all-interfaces",
        file="gearman_pool/cli/commands/serve.py",
        old='parser.add_argument("--host", default="127.0.0.1"',
        new='parser.add_argument("--host", default="0.0.0.0"',
        tests=("tests/cli/commands/test_serve.py::test_serve_on_a_free_port_says_which",),
        breaks="Whoever is in the same network can submit and do jobs.",
    ),
]
