"""What is told of a job: statuses, and the references that programs keep."""

from __future__ import annotations

import pytest

from gearman_pool.jobs.views import JobReference, JobStatus, as_text, fraction


@pytest.mark.parametrize(
    ("numerator", "denominator", "part"),
    [(0, 0, None), (3, 0, None), (1, -2, None), (0, 4, 0.0), (3, 4, 0.75), (4, 4, 1.0), (5, 4, 1.0), (-1, 4, 0.0)],
)
def test_progress_is_a_part_of_one_whatever_numbers_a_worker_sends(numerator, denominator, part):
    assert fraction(numerator, denominator) == part
    assert JobStatus(True, True, numerator, denominator).fraction == part


@pytest.mark.parametrize(("name", "text"), [("echo", "echo"), (b"echo", "echo"), (b"\xff", "\ufffd"), (7, "7")])
def test_name_is_text_however_it_was_given(name, text):
    assert as_text(name) == text


@pytest.mark.parametrize("unique", ["mine", "", "photo 17/a", "50%", "a?b#c", "\u00fcnique", "\udcff"], ids=ascii)
def test_reference_comes_back_from_its_text(unique):
    reference = JobReference("[::1]:4730", "H:host:17", unique)
    assert JobReference.parse(str(reference)) == reference
    assert str(reference).startswith("[::1]:4730/H:host:17/")


@pytest.mark.parametrize(
    "text", ["", "/", "//", "server/handle", "/handle/unique", "server//unique", "a/b/c/d", None, b"a/b/c"]
)
def test_text_that_is_no_reference_is_refused(text):
    with pytest.raises(ValueError, match="not a job reference"):
        JobReference.parse(text)
