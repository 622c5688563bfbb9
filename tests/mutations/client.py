"""Mutations of the client's engine."""

from __future__ import annotations

from .mutation import Mutation

_DISPATCH = "gearman_pool/dispatch.py"
_FUTURE = "gearman_pool/future.py"
_CALLBACKS = "gearman_pool/callbacks.py"
_SESSION = "gearman_pool/protocol/client.py"

MUTATIONS = [
    Mutation(
        name="finished-jobs-timer-is-not-cancelled",
        file=_DISPATCH,
        old="            future._timer.cancel()\n",
        new="",
        tests=("tests/faults/test_abandoned_jobs.py::test_finished_job_is_not_kept_until_its_timeout",),
        breaks="A finished job with timeout= stays in memory, with its result, until that time is over.",
    ),
    Mutation(
        name="entry-in-both-lists-is-handled-twice",
        file=_DISPATCH,
        old="            if id(token) in seen:\n                continue\n            if isinstance(token, Query):",
        new="            if isinstance(token, Query):",
        tests=(
            "tests/transport/test_connection.py::"
            "test_job_whose_sender_was_struck_between_both_lists_is_sent_again_once",
        ),
        breaks="A job whose sender was interrupted is sent again twice, and runs twice.",
    ),
]
