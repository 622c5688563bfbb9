"""F14: the soak, for a few seconds; and that its accounting notices what it is there for."""

from __future__ import annotations

import pytest

from ..support.figures import figure
from .soak.__main__ import soak
from .soak.accounting import ACCEPTED, RIGHT, SENT, UNSENT, WRONG, Ledger, Outcome, judge
from .soak.processes import flat


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.usefixtures("needs_gearmand")
def test_every_job_is_accounted_for_while_servers_are_killed_stopped_and_restarted():
    report = soak(10.0, seed=14, progress=False)
    figure(f"{report['jobs']} jobs in {report['seconds']} s, servers {report['servers']}: {report['accounted']}")
    assert report["faults"] == []
    accounted = report["accounted"]
    ended = ("results", "accepted in the background", "errors, maybe sent", "errors, not sent")
    assert sum(accounted.get(name, 0) for name in ended) == accounted["submitted"] > 500
    assert sum(report["servers"].values()) > 0


def _judged(directory, outcomes, runs, kills=((),), submitted=1):
    ledger = Ledger(directory)
    told = ledger.outcomes_of(0)
    for what, retries, *more in outcomes:
        told.outcome(Outcome(0, what, retries, *(more or (255, 0.0))))
    told.close()
    ran = ledger.runs_of(0)
    for number in runs:
        ran.ran(number)
    ran.close()
    ledger.close_books(0, submitted)
    return judge(directory, kills)[1]


@pytest.mark.parametrize(
    ("outcomes", "runs"),
    [
        ([(RIGHT, 0)], [0]),
        ([(RIGHT, 2)], [0, 0, 0]),
        ([(SENT, 0)], []),
        ([(SENT, 0)], [0]),
        ([(UNSENT, 0)], []),
        ([(ACCEPTED, 0, 0, 100.0)], [0]),
    ],
)
def test_kept_promises_are_no_faults(tmp_path, outcomes, runs):
    assert _judged(tmp_path, outcomes, runs) == []


@pytest.mark.parametrize(
    ("outcomes", "runs", "fault"),
    [
        ([(RIGHT, 0)], [0, 0], "a job that was sent once and ran twice: 1"),
        ([(RIGHT, 2)], [0] * 4, "a job that ran more often than it may be sent: 1"),
        ([(RIGHT, 0)], [], "a result of a job that did not run: 1"),
        ([(UNSENT, 0)], [0], "a job that ran and was called not sent: 1"),
        ([(WRONG, 0)], [0], "a wrong result: 1"),
        ([], [0], "a job without an outcome: 1"),
        ([(RIGHT, 0), (RIGHT, 0)], [0], "a job with more than one outcome: 1"),
        ([(RIGHT, 0)], [0, 7], "a job that nobody submitted: 1"),
        ([(ACCEPTED, 0, 0, 100.0)], [], "an accepted background job that did not run, though its server lived: 1"),
    ],
)
def test_broken_promises_are_faults(tmp_path, outcomes, runs, fault):
    assert _judged(tmp_path, outcomes, runs) == [fault]


@pytest.mark.parametrize(("killed", "lost"), [(98.0, False), (99.5, True), (110.0, True), (140.0, False)])
def test_background_job_may_be_lost_with_its_server_and_only_then(tmp_path, killed, lost):
    faults = _judged(tmp_path, [(ACCEPTED, 0, 0, 100.0)], [], kills=((1.0, killed, 200.0),))
    assert (faults == []) is lost


def test_growth_is_a_fault_and_too_few_samples_are_no_evidence():
    level = {"memory": 50_000_000, "descriptors": 20, "threads": 15}
    assert flat([level] * 50)[1] == []
    leak = [level | {"descriptors": 20 + index} for index in range(50)]
    (fault,) = flat(leak)[1]
    assert fault.startswith("descriptors of a load process grew from")
    assert flat(leak[:8]) == ({}, [])
