"""Checks of arguments: one rule, wherever an argument of the kind is taken."""

from __future__ import annotations

import math

import pytest

from gearman_pool import GearmanAdminClient, GearmanClient, GearmanWorker
from gearman_pool.settings.checks import LONGEST_DURATION, check_count, check_duration, check_timeout

NOWHERE = ["127.0.0.1:1"]


def _client(**options):
    GearmanClient(NOWHERE, **options).close()


def _submit(**arguments):
    with GearmanClient(NOWHERE) as client:
        client.submit("task", b"", **arguments)


def _map(**arguments):
    with GearmanClient(NOWHERE) as client:
        client.map("task", [], **arguments)


def _close(**arguments):
    with GearmanClient(NOWHERE) as client:
        client.close(**arguments)


def _worker(**options):
    GearmanWorker(NOWHERE, **options)


def _task(**options):
    GearmanWorker(NOWHERE).register_task("task", lambda job: job.data, **options)


def _admin(**options):
    GearmanAdminClient(NOWHERE, **options).close()


COUNTS = [
    (_client, "random_unique_bytes"),
    (_client, "max_retries"),
    (_client, "max_in_flight"),
    (_submit, "max_retries"),
    (_map, "window"),
    (_worker, "concurrency"),
    (_worker, "prefetch"),
    (_worker, "max_jobs"),
]
SECONDS = [
    (_client, "connect_timeout"),
    (_submit, "timeout"),
    (_close, "timeout"),
    (_worker, "poll_interval"),
    (_worker, "shutdown_timeout"),
    (_task, "timeout"),
    (_admin, "poll_timeout"),
]


@pytest.mark.parametrize(("take", "name"), COUNTS)
@pytest.mark.parametrize("value", [True, 1.0, "1", [1]])
def test_count_of_the_wrong_type_is_a_type_error_that_names_it(take, name, value):
    with pytest.raises(TypeError, match=f"^{name} is .*whole number"):
        take(**{name: value})


@pytest.mark.parametrize(("take", "name"), COUNTS)
def test_count_out_of_range_is_a_value_error_that_names_it(take, name):
    with pytest.raises(ValueError, match=f"^{name} is -1; it must be"):
        take(**{name: -1})


@pytest.mark.parametrize(("take", "name"), SECONDS)
@pytest.mark.parametrize("value", [True, "1", [1]])
def test_seconds_of_the_wrong_type_are_a_type_error_that_names_them(take, name, value):
    with pytest.raises(TypeError, match=f"^{name} is .*a number of seconds"):
        take(**{name: value})


@pytest.mark.parametrize(("take", "name"), SECONDS)
@pytest.mark.parametrize("value", [-1, math.nan, math.inf])
def test_seconds_that_cannot_be_are_a_value_error_that_names_them(take, name, value):
    with pytest.raises(ValueError, match=f"^{name} is .*number of seconds"):
        take(**{name: value})


def test_what_is_in_order_is_returned_as_it_is():
    assert check_count("n", 0, 0) == 0
    assert check_count("n", 8, 8, 31) == 8
    assert check_count("n", 31, 8, 31) == 31
    assert check_duration("t", LONGEST_DURATION) == LONGEST_DURATION
    assert check_timeout("t", 10 * LONGEST_DURATION) == 10 * LONGEST_DURATION
    assert check_timeout("t", 0, zero=True) == 0
    for value in (7, 32):
        with pytest.raises(ValueError, match="from 8 to 31"):
            check_count("n", value, 8, 31)
    with pytest.raises(ValueError):
        check_timeout("t", 0)
    with pytest.raises(ValueError):
        check_duration("t", LONGEST_DURATION * 1.01)
