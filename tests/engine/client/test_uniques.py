"""Names for jobs that nobody else has."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest

from gearman_pool.engine.client.uniques import Uniques
from gearman_pool.transport.syscalls import HAS_GIL

#: I/O threads, as far as uniques look at them.
RUNNING, NOT_YET = SimpleNamespace(running=True), SimpleNamespace(running=False)


@pytest.mark.parametrize("has_gil", sorted({HAS_GIL, False}))
@pytest.mark.parametrize("io", [RUNNING, NOT_YET], ids=["running", "not yet"])
def test_threads_of_one_client_get_no_unique_twice(monkeypatch, has_gil, io):
    monkeypatch.setattr("gearman_pool.engine.client.uniques.HAS_GIL", has_gil)
    uniques, made = Uniques(io, 16), []
    barrier = threading.Barrier(8)

    def make() -> None:
        barrier.wait(10)
        made.extend([uniques.new() for _ in range(500)])

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(made)) == len(made) == 4000
    assert {len(unique) for unique in made} == {32}


@pytest.mark.parametrize("size", [8, 16, 31])
def test_unique_has_two_digits_for_each_byte_that_it_stands_for(size):
    uniques = Uniques(RUNNING, size)
    assert {len(uniques.new()) for _ in range(100)} == {2 * size}


@pytest.fixture
def with_gil(monkeypatch):
    """Uniques are counted, as where Python has its lock; for a test with one thread."""
    monkeypatch.setattr("gearman_pool.engine.client.uniques.HAS_GIL", True)


@pytest.mark.usefixtures("with_gil")
def test_client_that_runs_counts_behind_its_first_half():
    uniques = Uniques(RUNNING, 16)
    first, second, third = (uniques.new() for _ in range(3))
    assert first[:-12] == second[:-12] == third[:-12]
    assert [int(unique[-12:]) - int(first[-12:]) for unique in (second, third)] == [1, 2]


@pytest.mark.usefixtures("with_gil")
def test_renewed_uniques_have_another_first_half_and_another_count():
    uniques = Uniques(RUNNING, 16)
    before = uniques.new()
    uniques.renew()
    after = uniques.new()
    assert after[:-12] != before[:-12]
    # The counts are as near as this by chance in one of 10**9 runs.
    assert abs(int(after[-12:]) - int(before[-12:])) > 500


@pytest.mark.usefixtures("with_gil")
def test_uniques_are_renewed_for_each_job_until_the_thread_runs():
    uniques = Uniques(NOT_YET, 16)
    assert len({uniques.new()[:-12] for _ in range(100)}) == 100


def test_uniques_need_no_lock_of_the_interpreters(monkeypatch):
    monkeypatch.setattr("gearman_pool.engine.client.uniques.HAS_GIL", False)
    uniques = Uniques(RUNNING, 16)
    monkeypatch.setattr(uniques, "_numbers", iter(()))
    made = {uniques.new() for _ in range(100)}
    assert {len(unique) for unique in made} == {32}
    assert len(made) == 100


def test_short_uniques_of_two_clients_differ():
    starts = {Uniques(NOT_YET, 8).new()[-12:] for _ in range(50)}
    assert len(starts) == 50
