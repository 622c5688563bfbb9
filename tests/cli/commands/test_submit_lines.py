"""``gearman-pool submit --lines``, against real gearmand and workers."""

from __future__ import annotations

import json
import os

from tests.support.waiting import wait_until

from ..running import Running, run


def test_lines_come_back_in_their_order(gearmand, echo_worker):
    lines = [b"line %d" % number for number in range(500)]
    done = run("submit", "reverse", "--lines", "--window", "20", server=gearmand, stdin=b"\n".join(lines))
    assert done.returncode == 0
    assert done.stdout.splitlines() == [line[::-1] for line in lines]


def test_a_result_comes_while_stdin_is_open(gearmand, echo_worker):
    with Running("submit", "echo", "--lines", server=gearmand) as running:
        running.write(b"one\n")
        running.wait_for("one\n")
        running.process.stdin.close()
        assert running.end() == 0


def test_a_line_that_fails_is_told_and_the_others_go_on(gearmand, raw_workers):
    def script(job):
        if job.data == b"bad":
            job.fail()
        else:
            job.complete(job.data)

    raw_workers(gearmand, "picky", script)
    done = run("submit", "picky", "--lines", "--json", "--progress", server=gearmand, stdin=b"a\nbad\nc\n")
    assert done.returncode == 1
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(row["line"], row.get("result")) for row in told] == [(1, "a"), (2, None), (3, "c")]
    assert b"line 2: " in done.stderr
    assert b"3 jobs done" in done.stderr


def test_lines_in_the_background_print_references(gearmand):
    done = run("submit", "nobody", "--lines", "--background", server=gearmand, stdin=b"a\nb\n")
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) == 2
    assert gearmand.jobs("nobody") == 2


def test_ctrl_c_among_lines_is_130(gearmand, raw_worker):
    with Running("submit", "raw", "--lines", server=gearmand) as running:
        running.write(b"one\n")
        raw_worker.next_job(30)
        running.interrupt()
        assert running.end() == 130
        assert running.err == ""


def test_an_endless_stream_ends_with_its_reader(gearmand, echo_worker):
    with Running("submit", "echo", "--lines", server=gearmand) as running:
        running.write(b"one\n")
        running.wait_for("one\n")
        running.process.stdout.close()
        running.process.stdout = running.process.stderr
        os.set_blocking(running.process.stdin.fileno(), False)

        def feed():
            try:
                running.process.stdin.write(b"more\n")
                running.process.stdin.flush()
            except (BrokenPipeError, BlockingIOError):
                pass
            return running.process.poll() is not None

        wait_until(feed, 30)
        assert running.end() == 0
        assert running.err == ""


def test_a_usage_error_with_lines(gearmand):
    assert run("submit", "x", "data", "--lines", server=gearmand).returncode == 2
    assert run("submit", "x", "--lines", "--unique", "u", server=gearmand).returncode == 2
