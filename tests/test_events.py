"""Which events are made for whom."""

from __future__ import annotations

from gearman_pool import Listener
from gearman_pool.events import ConnectionOpened, JobAccepted, JobFinished, JobUpdated, TaskStarted, handled
from gearman_pool.testing import EagerClient

EVERY = handled(object())


class _Finished(Listener):
    def on_job_finished(self, event):
        pass


class _Everything(Listener):
    def handle(self, event):
        pass


class _Second(_Finished):
    def on_job_updated(self, event):
        pass


def test_listener_handles_what_it_overrides_itself_or_inherits():
    assert handled(Listener()) == frozenset()
    assert handled(_Finished()) == {JobFinished}
    assert handled(_Second()) == {JobFinished, JobUpdated}


def test_listener_with_a_handle_of_its_own_or_of_no_kind_handles_everything():
    assert handled(_Everything()) == EVERY
    assert {ConnectionOpened, JobAccepted, JobFinished, TaskStarted} <= EVERY


def test_method_that_is_put_on_the_object_counts():
    listener = Listener()
    listener.on_task_started = print
    assert handled(listener) == {TaskStarted}


def test_each_of_several_listeners_hears_what_it_handles():
    heard = []

    class Accepted(Listener):
        def on_job_accepted(self, event):
            heard.append(event)

    class Finished(Listener):
        def on_job_finished(self, event):
            heard.append(event)

    with EagerClient(listeners=[Accepted(), Finished()]) as client:

        @client.task
        def reverse(job):
            return job.data[::-1]

        assert client.submit("reverse", b"ab").result() == b"ba"
    assert [type(event) for event in heard] == [JobAccepted, JobFinished]
    assert {event.task for event in heard} == {"reverse"}
