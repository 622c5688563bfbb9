"""The exception tree: what each error can be caught as, and that none loses anything when copied."""

from __future__ import annotations

import asyncio
import builtins
import concurrent.futures
import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gearman_pool import errors
from gearman_pool.errors import AnyTimeout, GearmanError, QueueFull, ServerError

CLASSES = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, GearmanError)]
ABOUT: dict[str, Any] = {"server": "h:4730", "task": "resize", "unique": "u1", "maybe_sent": True, "retryable": True}
EXTRA: dict[str, dict[str, Any]] = {
    "ServerUnavailable": {"servers": {"h:4730": "refused"}},
    "JobException": {"data": b"Traceback"},
    "ServerError": {"code": "JOB_NOT_FOUND", "text": "not found"},
    "QueueFull": {"code": "QUEUE_ERROR", "text": "full"},
}
COPIES: list[Callable[[Any], Any]] = [
    copy.copy,
    copy.deepcopy,
    *(lambda error, protocol=protocol: pickle.loads(pickle.dumps(error, protocol)) for protocol in range(6)),
]


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_every_error_survives_copying_and_pickling_with_all_its_attributes(kind: type[GearmanError]) -> None:
    error = kind("it went wrong", **ABOUT, **EXTRA.get(kind.__name__, {}))
    for make in COPIES:
        again = make(error)
        assert type(again) is kind
        assert str(again) == "it went wrong"
        assert again.args == error.args
        assert vars(again) == vars(error)


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_every_error_can_be_made_of_a_text_alone_or_of_nothing(kind: type[GearmanError]) -> None:
    assert str(kind()) == ""
    error = kind("why")
    assert str(error) == "why"
    assert (error.server, error.task, error.unique, error.maybe_sent) == (None, None, None, False)
    assert error.retryable is kind.retryable
    assert pickle.loads(pickle.dumps(error)).retryable is kind.retryable


def test_attributes_set_after_the_error_was_made_are_pickled_too() -> None:
    error = errors.ServerUnavailable("none left")
    error.servers = {"h:4730": "refused"}
    error.task = "resize"
    again = pickle.loads(pickle.dumps(error))
    assert again.servers == {"h:4730": "refused"}
    assert again.task == "resize"


@pytest.mark.parametrize(
    ("kind", "caught_as"),
    [
        (errors.ConnectionError, builtins.ConnectionError),
        (errors.ConnectTimeout, TimeoutError),
        (errors.ConnectTimeout, errors.ConnectionError),
        (errors.ConnectionLost, errors.ConnectionError),
        (errors.TLSError, errors.ConnectionError),
        (errors.ForkedProcess, errors.ConnectionError),
        (errors.JobTimeout, TimeoutError),
        (errors.JobTimeout, concurrent.futures.TimeoutError),
        (errors.JobTimeout, AnyTimeout),
        (errors.JobException, errors.JobFailed),
        (errors.JobCancelled, concurrent.futures.CancelledError),
        (errors.QueueFull, errors.ServerError),
        (errors.UnknownCommandError, errors.ProtocolError),
        (errors.EncodeError, TypeError),
        (errors.EncodeError, ValueError),
    ],
)
def test_error_can_be_caught_under_its_other_name(kind: type[GearmanError], caught_as: type[Exception]) -> None:
    with pytest.raises(caught_as) as caught:
        raise kind("why", server="h:4730")
    assert caught.value.server == "h:4730"  # type: ignore[attr-defined]


def test_any_timeout_is_each_of_the_timeouts_that_callers_catch() -> None:
    assert issubclass(AnyTimeout, TimeoutError)
    assert issubclass(AnyTimeout, concurrent.futures.TimeoutError)
    assert str(AnyTimeout("late")) == "late"


def test_a_cancelled_job_does_not_cancel_the_asyncio_task_that_waits_for_it() -> None:
    assert not issubclass(errors.JobCancelled, asyncio.CancelledError)


def test_retryable_errors_are_those_that_time_can_heal() -> None:
    assert {kind.__name__ for kind in CLASSES if kind.retryable} == {
        "ConnectionError",
        "ConnectTimeout",
        "ConnectionLost",
        "ServerUnavailable",
        "ClientSaturated",
        "ThreadUnavailable",
        "JobLost",
        "QueueFull",
    }


def test_who_raises_an_error_may_know_better_whether_it_is_retryable() -> None:
    assert errors.ConnectionLost(retryable=False).retryable is False
    assert errors.TLSError(retryable=True).retryable is True
    assert errors.TLSError.retryable is False


def test_error_reply_of_a_full_queue_becomes_queue_full() -> None:
    error = ServerError.from_reply("QUEUE_ERROR", "Job queue is full", server="h:4730", task="resize", unique="u1")
    assert type(error) is QueueFull
    assert error.retryable
    assert (error.code, error.text) == ("QUEUE_ERROR", "Job queue is full")
    assert (error.server, error.task, error.unique) == ("h:4730", "resize", "u1")
    for word in ("h:4730", "resize", "QUEUE_ERROR", "Job queue is full", "maxqueue"):
        assert word in str(error)


@given(st.text(), st.text())
def test_any_other_error_reply_becomes_a_server_error_that_keeps_code_and_text(code: str, text: str) -> None:
    error = ServerError.from_reply(code, text)
    assert type(error) is (QueueFull if code == "QUEUE_ERROR" else ServerError)
    assert (error.code, error.text) == (code, text)
    assert code in str(error)
    assert text in str(error)


def test_no_two_errors_share_their_servers() -> None:
    given_servers = {"h:4730": "refused"}
    error = errors.ServerUnavailable(servers=given_servers)
    given_servers.clear()
    assert error.servers == {"h:4730": "refused"}
    assert errors.ServerUnavailable().servers is not errors.ServerUnavailable().servers


def test_all_names_every_error_and_nothing_else() -> None:
    assert set(errors.__all__) == {kind.__name__ for kind in CLASSES} | {"AnyTimeout"}
