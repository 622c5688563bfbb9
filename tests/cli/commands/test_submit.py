"""``gearman-pool submit``, against real gearmand and workers."""

from __future__ import annotations

import json

import pytest

from tests.support.gearmand import free_port

from ..running import Running, run


def test_the_result_is_printed_as_bytes(gearmand, echo_worker):
    payload = bytes(range(256))
    done = run("submit", "echo", "-", server=gearmand, stdin=payload)
    assert (done.returncode, done.stdout, done.stderr) == (0, payload, b"")


@pytest.mark.slow
def test_data_from_the_command_line_and_from_a_file(gearmand, echo_worker, tmp_path):
    assert run("submit", "reverse", "héllo", server=gearmand).stdout == "héllo".encode()[::-1]
    path = tmp_path / "payload"
    path.write_bytes(b"\x00\xff")
    assert run("submit", "echo", f"@{path}", server=gearmand).stdout == b"\x00\xff"
    done = run("submit", "echo", f"@{path}.missing", server=gearmand)
    assert done.returncode == 2
    assert b"No such file" in done.stderr


def test_json_tells_of_the_job(gearmand, echo_worker):
    told = json.loads(run("submit", "echo", "hi", "--unique", "u1", "--json", server=gearmand).stdout)
    assert (told["result"], told["task"], told["unique"], told["server"]) == ("hi", "echo", "u1", gearmand.address)
    told = json.loads(run("submit", "echo", "-", "--json", server=gearmand, stdin=b"\xff").stdout)
    assert told["result_base64"] == "/w=="


def test_updates_are_printed_as_they_come(gearmand, raw_worker):
    with Running("submit", "raw", "x", "--progress", server=gearmand) as running:
        job = raw_worker.next_job(30)
        job.send_data(b"first ")
        running.wait_for("^first $")
        job.send_status(1, 4)
        running.wait_for(r"raw: 25% \(1/4\)", "stderr")
        job.send_warning(b"look\nout")
        running.wait_for("gearman-pool: warning: look out\n", "stderr")
        job.complete(b"last")
        assert running.end() == 0
        assert running.out == "first last"


def test_a_failed_job_is_1(gearmand, raw_worker):
    with Running("submit", "raw", "x", server=gearmand) as running:
        raw_worker.next_job(30).fail()
        assert running.end() == 1
        assert running.err.count("\n") == 1
        assert "'raw'" in running.err


def test_an_exception_of_the_worker_is_shown(gearmand, raw_worker):
    with Running("submit", "raw", "x", server=gearmand) as running:
        raw_worker.next_job(30).exception(b"no such image")
        assert running.end() == 1
        assert "no such image" in running.err


def test_payloads_stay_out_of_the_lines_of_errors(gearmand, raw_workers):
    """stderr is what goes into logs."""
    raw_workers(gearmand, "picky", lambda job: job.fail())
    for arguments, stdin in ((["secret of mine"], b""), (["--lines"], b"secret of mine\n")):
        done = run("submit", "picky", *arguments, server=gearmand, stdin=stdin)
        assert done.returncode == 1
        assert b"'picky'" in done.stderr
        assert b"secret" not in done.stderr + done.stdout


def test_no_server_is_3():
    done = run("submit", "x", "y", "-s", f"gearman://127.0.0.1:{free_port()}/?submit_timeout=0.5")
    assert done.returncode == 3
    assert b"Connection refused" in done.stderr
    assert done.stderr.count(b"\n") == 1


def test_the_timeout_is_4(gearmand):
    done = run("submit", "nobody", "x", "--timeout", "0.3", server=gearmand)
    assert done.returncode == 4
    assert b"timeout" in done.stderr


def test_ctrl_c_is_130_and_quick(gearmand, raw_worker):
    with Running("submit", "raw", "x", server=gearmand) as running:
        raw_worker.next_job(30)
        running.interrupt()
        assert running.end() == 130
        assert running.err == ""


def test_at_delays_a_background_job(gearmand):
    done = run("submit", "later", "x", "--at", "+1h", "--json", server=gearmand)
    assert done.returncode == 0
    assert set(json.loads(done.stdout)) == {"reference", "server", "handle", "unique"}
    assert gearmand.jobs("later") == 1
    assert run("submit", "later", "x", "--at", "2030-01-31T12:00", server=gearmand).returncode == 0
    assert run("submit", "later", "x", "--at", "tomorrow", server=gearmand).returncode == 2
    assert run("submit", "later", "x", "--at", "+1h", "--priority", "high", server=gearmand).returncode == 2


def test_priority_is_sent(gearmand):
    for priority in ("high", "high", "low"):
        assert run("submit", "p", "x", "--background", "--priority", priority, server=gearmand).returncode == 0
    assert "p\t2\t0\t1\t0" in gearmand.text("prioritystatus")
