"""A server's jobs: what is queued, joined, taken, delayed, put back and remembered. No bytes but names and payloads."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from gearman_pool.protocol.server.queues import Agenda, Ended, History, Job, JobState, JobTable, Priority


@pytest.fixture
def table():
    return JobTable(b"s", max_jobs=1000)


def add(table, task=b"f", unique=b"", data=b"", priority=Priority.NORMAL, when=None, background=True) -> Job[str]:
    return table.add(task, unique, data, priority, background, when=when)


def counts(table, task=b"f"):
    """How many jobs of a function there are, run, and wait by priority."""
    function = table.functions[task]
    return function.total, function.running, function.waiting


# ---- the agenda ----------------------------------------------------------------------------------------------------


def test_agenda_gives_what_is_due_earliest_first_and_equals_in_their_order():
    agenda = Agenda()
    for when, item in [(3.0, "c"), (1.0, "a"), (2.0, "b1"), (2.0, "b2"), (4.0, "d")]:
        agenda.add(when, item)
    assert agenda.next() == 1.0
    assert agenda.due(0.9) == []
    assert agenda.due(3.0) == ["a", "b1", "b2", "c"]
    assert agenda.next() == 4.0
    assert agenda.due(3.9) == []
    assert agenda.due(100.0) == ["d"]
    assert agenda.next() is None
    assert len(agenda) == 0


def test_what_is_taken_off_the_agenda_is_not_due():
    agenda = Agenda()
    agenda.add(1.0, "a")
    agenda.add(2.0, "b")
    agenda.discard("a")
    agenda.discard("a")
    agenda.discard("never there")
    assert agenda.next() == 2.0
    assert agenda.due(5.0) == ["b"]
    agenda.discard("b")
    assert agenda.due(5.0) == []


@pytest.mark.parametrize("between", [[], ["discard"]])
@pytest.mark.parametrize("moment", [1.0, 9.0])
def test_what_is_put_on_the_agenda_again_is_due_at_the_new_moment_alone(moment, between):
    agenda = Agenda()
    agenda.add(5.0, "a")
    for _ in between:
        agenda.discard("a")
    agenda.add(moment, "a")
    assert agenda.next() == moment
    assert agenda.due(moment) == ["a"]
    assert agenda.due(100.0) == []


def test_agenda_keeps_at_most_as_many_that_were_taken_off_as_there_are_and_some():
    agenda = Agenda()
    for number in range(2000):
        agenda.add(float(number), number)
    # What was due counts no more.
    assert len(agenda.due(999.0)) == 1000
    for number in range(1000, 1990):
        agenda.discard(number)
        left = 1999 - number
        assert left <= len(agenda) <= 2 * left + 32
    # Nor does what is put down for another moment, again and again.
    for moment in range(3000, 4000):
        item = 1990 + moment % 10
        agenda.discard(item)
        agenda.add(float(moment), item)
        assert 10 <= len(agenda) <= 2 * 10 + 32
    assert agenda.due(5000.0) == list(range(1990, 2000))


# ---- the history ---------------------------------------------------------------------------------------------------


def ended(table, history, data=b"", **what):
    """A job that has ended and is remembered, perhaps."""
    job = add(table, data=data)
    history.add(job, "COMPLETE", **what)
    table.remove(job)
    return job


def test_history_remembers_what_a_job_had_at_its_end(table):
    history = History(10, 1000)
    job = add(table, data=b"data")
    job.clients += ["one", "two"]
    history.add(job, "FAILED", b"result", b"why")
    table.remove(job)
    assert job.data == b""
    assert list(history) == [Ended(job, b"data", 2, "FAILED", b"result", b"why")]
    assert history.find(job.handle).size == len(b"data" + b"result" + b"why")
    assert history.find(b"H:s:2") is None


def test_history_keeps_the_last_of_its_jobs_in_their_order(table):
    history = History(3, 1000)
    jobs = [ended(table, history) for _ in range(5)]
    assert [one.job for one in history] == jobs[2:]
    assert [history.find(job.handle) is not None for job in jobs] == [False, False, True, True, True]


@pytest.mark.parametrize(
    ("sizes", "kept"),
    [
        ([4, 3, 3], [4, 3, 3]),
        ([4, 3, 4], [3, 4]),
        ([1, 1, 1, 10], [10]),
        ([1, 11], [11]),  # the last one is kept whatever its size
        ([11, 1], [1]),
        ([5, 5, 5, 5], [5, 5]),
    ],
)
@pytest.mark.parametrize("what", ["data", "result", "exception"])
def test_history_is_bounded_by_the_bytes_of_all_but_the_last(table, sizes, kept, what):
    history = History(10, 10)
    for size in sizes:
        ended(table, history, **{what: bytes(size)})
    assert [one.size for one in history] == kept


def test_cleared_history_has_room_for_as_much_as_a_new_one(table):
    history = History(10, 10)
    first = ended(table, history, bytes(8))
    history.clear()
    assert list(history) == []
    assert history.find(first.handle) is None
    jobs = [ended(table, history, bytes(5)) for _ in range(2)]
    assert [one.job for one in history] == jobs


def test_history_of_no_jobs_remembers_none(table):
    history = History(0, 1000)
    ended(table, history)
    assert list(history) == []


# ---- coming --------------------------------------------------------------------------------------------------------


def test_jobs_are_numbered_in_their_order_whatever_their_function(table):
    jobs = [add(table, task) for task in (b"f", b"g", b"f")]
    assert [(job.handle, job.number) for job in jobs] == [(b"H:s:1", 1), (b"H:s:2", 2), (b"H:s:3", 3)]
    assert list(table.jobs.values()) == jobs
    assert list(table.jobs) == [job.handle for job in jobs]
    table.remove(jobs[2])
    assert add(table).handle == b"H:s:4"
    assert table.accepted == 4


def test_job_is_as_it_was_submitted(table):
    job = table.add(b"f", b"u", b"data", Priority.HIGH, background=False, reducer=b"r")
    assert (job.function.name, job.unique, job.data, job.priority) == (b"f", b"u", b"data", Priority.HIGH)
    assert (job.background, job.reducer, job.state, job.worker, job.retries) == (False, b"r", JobState.QUEUED, None, 0)


@pytest.mark.parametrize(
    ("background", "clients", "wanted"),
    [(True, [], True), (True, ["c"], True), (False, ["c"], True), (False, [], False)],
)
def test_job_is_wanted_by_clients_or_for_its_own_sake(table, background, clients, wanted):
    job = add(table, background=background)
    job.clients += clients
    assert job.wanted is wanted


def test_function_becomes_known_once(table):
    assert table.functions == {}
    function = table.function(b"f")
    assert table.function(b"f") is function
    assert add(table).function is function
    assert add(table, b"g").function is table.function(b"g") is not function
    assert list(table.functions) == [b"f", b"g"]


@pytest.mark.parametrize(
    ("first", "second", "joins"),
    [
        ((b"f", b"u", b"1"), (b"f", b"u", b"2"), True),
        ((b"f", b"u", b""), (b"f", b"v", b""), False),
        ((b"f", b"u", b""), (b"g", b"u", b""), False),
        # Without a unique none joins.
        ((b"f", b"", b"1"), (b"f", b"", b"1"), False),
        # By the payload, if there is one.
        ((b"f", b"-", b"1"), (b"f", b"-", b"1"), True),
        ((b"f", b"-", b"1"), (b"f", b"-", b"2"), False),
        ((b"f", b"-", b"1"), (b"g", b"-", b"1"), False),
        ((b"f", b"-", b""), (b"f", b"-", b""), False),
        # By the payload means not by the unique.
        ((b"f", b"-", b"u"), (b"f", b"u", b"u"), False),
    ],
)
def test_job_joins_one_of_its_function_and_unique(table, first, second, joins):
    job = add(table, *first)
    assert table.find(*second) is (job if joins else None)


def test_job_is_joined_until_it_is_gone(table):
    job = add(table, unique=b"u", when=5.0)
    assert table.find(b"f", b"u", b"") is job
    table.due(5.0)
    assert table.find(b"f", b"u", b"") is job
    table.take([b"f"], "worker")
    assert table.find(b"f", b"u", b"") is job
    table.put_back(job)
    assert table.find(b"f", b"u", b"") is job
    table.remove(job)
    assert table.find(b"f", b"u", b"") is None
    other = add(table, unique=b"u")
    assert table.find(b"f", b"u", b"") is other


def test_job_is_found_by_its_unique_in_any_function(table):
    jobs = [add(table, task, b"u") for task in (b"f", b"g", b"h")]
    add(table, unique=b"v")
    while jobs:
        job = table.by_unique(b"u")
        jobs.remove(job)
        table.remove(job)
    assert table.by_unique(b"u") is None
    assert table.by_unique(b"w") is None


def test_table_is_full_at_its_bound_for_every_function():
    table = JobTable(b"s", max_jobs=2)
    job = add(table)
    assert not table.full(b"f", Priority.NORMAL)
    add(table, b"g", when=5.0)
    assert table.full(b"f", Priority.NORMAL)
    assert table.full(b"unknown", Priority.HIGH)
    table.remove(job)
    assert not table.full(b"f", Priority.NORMAL)


def test_function_is_full_for_a_priority_when_all_of_its_jobs_are_as_many_as_that_ones_limit(table):
    assert not table.full(b"f", Priority.NORMAL)
    table.function(b"f").limits[:] = [0, 2, 1]
    assert not table.full(b"f", Priority.LOW)
    add(table, priority=Priority.HIGH)
    assert [table.full(b"f", priority) for priority in Priority] == [False, False, True]
    # One that runs counts as well.
    job = table.take([b"f"], "worker")
    add(table, priority=Priority.LOW)
    assert [table.full(b"f", priority) for priority in Priority] == [False, True, True]
    assert not table.full(b"g", Priority.LOW)
    table.remove(job)
    assert [table.full(b"f", priority) for priority in Priority] == [False, False, True]


# ---- going ---------------------------------------------------------------------------------------------------------


def taken(table, *tasks):
    """All jobs that a worker gets, one after the other."""
    jobs = []
    while table.runnable(tasks):
        jobs.append(table.take(tasks, "worker"))
    assert table.take(tasks, "worker") is None
    return jobs


def test_jobs_come_by_priority_then_by_the_workers_order_of_functions_then_by_age(table):
    jobs = {
        (task, priority, number): add(table, task, priority=priority)
        for number in range(2)
        for priority in (Priority.LOW, Priority.HIGH, Priority.NORMAL)
        for task in (b"f", b"g", b"not for this worker")
    }
    assert taken(table, b"unknown", b"g", b"f") == [
        jobs[task, priority, number]
        for priority in (Priority.HIGH, Priority.NORMAL, Priority.LOW)
        for task in (b"g", b"f")
        for number in range(2)
    ]


def test_job_that_is_taken_runs_at_its_worker(table):
    job = add(table)
    assert counts(table) == (1, 0, [0, 1, 0])
    assert table.take([b"f"], "worker") is job
    assert (job.state, job.worker) == (JobState.RUNNING, "worker")
    assert counts(table) == (1, 1, [0, 0, 0])
    assert not table.runnable([b"f"])
    assert table.take([b"f"], "another") is None


@pytest.mark.parametrize("priority", list(Priority))
def test_job_that_lost_its_worker_is_the_next_of_its_priority_and_starts_anew(table, priority):
    jobs = [add(table, priority=priority) for _ in range(3)]
    job = table.take([b"f"], "worker")
    job.numerator, job.denominator = 1, 2
    table.put_back(job)
    assert (job.state, job.worker, job.numerator, job.denominator) == (JobState.QUEUED, None, 0, 0)
    assert job.retries == 1
    assert counts(table)[:2] == (3, 0)
    assert taken(table, b"f") == jobs
    table.put_back(job)
    assert job.retries == 2


def test_delayed_job_waits_in_no_queue_until_it_is_due(table):
    late, soon, now = add(table, when=9.0), add(table, when=5.0), add(table)
    assert (late.state, soon.state) == (JobState.DELAYED, JobState.DELAYED)
    assert counts(table) == (3, 0, [0, 1, 0])
    assert table.due(4.9) == []
    assert taken(table, b"f") == [now]
    assert table.due(5.0) == [soon]
    assert soon.state is JobState.QUEUED
    assert counts(table) == (3, 1, [0, 1, 0])
    assert table.due(100.0) == [late]
    assert taken(table, b"f") == [soon, late]


def test_job_is_gone_from_everywhere_wherever_it_was(table):
    running = add(table, unique=b"1", data=b"data")
    table.take([b"f"], "worker")
    delayed, queued = add(table, unique=b"2", data=b"data", when=5.0), add(table, unique=b"3", data=b"data")
    kept = [add(table) for _ in range(2)]
    assert counts(table) == (5, 1, [0, 3, 0])
    for job in (running, delayed, queued):
        table.remove(job)
        assert (job.state, job.worker, job.data) == (JobState.GONE, None, b"")
        assert job.handle not in table.jobs
        assert table.find(b"f", job.unique, b"") is None
        assert table.by_unique(job.unique) is None
    assert counts(table) == (2, 0, [0, 2, 0])
    assert table.due(100.0) == []
    assert taken(table, b"f") == kept
    # How many were taken in does not change.
    assert table.accepted == 5


@pytest.mark.parametrize("order", ["oldest first", "newest first"])
def test_queue_keeps_at_most_as_many_that_are_gone_as_there_are_and_some(table, order):
    jobs = [add(table) for _ in range(500)]
    (queue,) = [queue for queue in table.functions[b"f"].queues if queue]
    kept = jobs.pop(250)
    for job in jobs if order == "oldest first" else reversed(jobs):
        table.remove(job)
        left = table.functions[b"f"].waiting[Priority.NORMAL]
        assert left <= len(queue) <= 2 * left + 32
    assert taken(table, b"f") == [kept]
    job = add(table)
    table.remove(job)
    assert not queue


# ---- all of it together --------------------------------------------------------------------------------------------

TASKS = st.sampled_from([b"a", b"b"])


class Books(RuleBasedStateMachine):
    """A table beside lists that are searched from end to end."""

    jobs = Bundle("jobs")

    def __init__(self) -> None:
        super().__init__()
        self.table: JobTable[str] = JobTable(b"s", max_jobs=10**9)
        self.now = 0.0
        self.added: list[Job[str]] = []
        #: In the order in which those of one function and priority are to be taken.
        self.queued: list[Job[str]] = []
        self.delayed: list[tuple[float, Job[str]]] = []
        self.running: list[Job[str]] = []

    @rule(
        target=jobs,
        task=TASKS,
        unique=st.sampled_from([b"", b"-", b"1"]),
        data=st.sampled_from([b"", b"x"]),
        priority=st.sampled_from(Priority),
        delay=st.one_of(st.none(), st.integers(1, 5)),
    )
    def submit(self, task, unique, data, priority, delay):
        found = self.table.find(task, unique, data)
        alike = [job for job in self.added if (job.function.name, job.unique) == (task, unique)]
        if unique == b"-":
            alike = [job for job in alike if job.data == data != b""]
        assert found is (alike[0] if alike and unique else None)
        if found is not None:
            return found
        when = None if delay is None else self.now + delay
        job = self.table.add(task, unique, data, priority, True, when=when)
        self.added.append(job)
        if when is None:
            self.queued.append(job)
        else:
            self.delayed.append((when, job))
        return job

    @rule(tasks=st.lists(TASKS, max_size=2, unique=True))
    def take(self, tasks):
        waiting = [job for job in self.queued if job.function.name in tasks]
        assert self.table.runnable(tasks) == bool(waiting)
        job = self.table.take(tasks, "worker")
        if not waiting:
            assert job is None
            return
        assert job is min(waiting, key=lambda job: (job.priority, tasks.index(job.function.name)))
        self.queued.remove(job)
        self.running.append(job)

    @rule()
    def lose_a_worker(self):
        if self.running:
            job = self.running.pop(0)
            self.table.put_back(job)
            self.queued.insert(0, job)

    @rule(seconds=st.integers(1, 3))
    def wait(self, seconds):
        self.now += seconds
        due = sorted((pair for pair in self.delayed if pair[0] <= self.now), key=lambda pair: pair[0])
        assert self.table.due(self.now) == [job for _, job in due]
        self.delayed = [pair for pair in self.delayed if pair not in due]
        self.queued += [job for _, job in due]

    @rule(job=consumes(jobs))
    def remove(self, job):
        # One that another has joined is there several times.
        if job.state is JobState.GONE:
            return
        self.table.remove(job)
        self.added.remove(job)
        for jobs in (self.queued, self.running):
            if job in jobs:
                jobs.remove(job)
        self.delayed = [pair for pair in self.delayed if pair[1] is not job]

    @invariant()
    def books_agree(self):
        assert list(self.table.jobs.values()) == self.added
        assert self.table.delayed.next() == min((when for when, _ in self.delayed), default=None)
        for unique in (b"1", b"-"):
            alike = [job for job in self.added if job.unique == unique]
            assert self.table.by_unique(unique) in (alike or [None])
        for function in self.table.functions.values():
            assert function.total == sum(job.function is function for job in self.added)
            assert function.running == sum(job.function is function for job in self.running)
            waiting = [job.priority for job in self.queued if job.function is function]
            assert function.waiting == [waiting.count(priority) for priority in Priority]


Books.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestBooks = Books.TestCase
