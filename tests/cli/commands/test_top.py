"""``gearman-pool top``, on a terminal and on pipes."""

from __future__ import annotations

import json
import signal

import pytest

from tests.support.gearmand import free_port

from ..running import Running, Terminal, run, without_rich


@pytest.fixture
def busy(gearmand):
    """A server with a waiting job."""
    assert run("submit", "nobody", "x", "--background", server=gearmand).returncode == 0
    return gearmand


def test_once_as_json_tells_of_servers_tasks_and_workers(busy, raw_workers):
    raw_workers(busy, "able")
    down = f"127.0.0.1:{free_port()}"
    done = run("top", "--once", "--json", "-s", f"{busy.address},{down}")
    assert done.returncode == 3
    view = json.loads(done.stdout)
    assert [(row["server"], row["state"]) for row in view["servers"]] == [(busy.address, "UP"), (down, "DOWN")]
    assert [(row["task"], row["waiting"]) for row in view["tasks"]] == [("nobody", 1), ("able", 0)]
    assert [row["tasks"] for row in view["workers"]] == [["able"]]
    assert down in view["servers"][1]["error"]


def test_once_is_a_plain_table_without_a_terminal(busy):
    done = run("top", "--once", server=busy)
    assert done.returncode == 0
    assert b"\x1b" not in done.stdout
    assert b"nobody" in done.stdout


@pytest.mark.parametrize("rich", [True, False])
@pytest.mark.parametrize("key", ["q", "\x03"], ids=["q", "Ctrl-C"])
def test_it_is_live_on_a_terminal_until_a_key_ends_it(busy, rich, key, tmp_path):
    more = {} if rich else without_rich(tmp_path)
    with Terminal("top", "--interval", "0.2", server=busy, **more) as terminal:
        terminal.wait_for("nobody")
        assert run("submit", "later", "x", "--background", server=busy).returncode == 0
        terminal.wait_for("later")
        terminal.type(key)
        assert terminal.end() == 0
        # The other screen is left, and the cursor shown again.
        assert "\x1b[?1049h" in terminal.text
        assert terminal.text.rfind("\x1b[?1049l") > terminal.text.rfind("later")
        assert "\x1b[?25h" in terminal.text
        assert terminal.echoes()


@pytest.mark.parametrize("rich", [True, False])
def test_sigterm_leaves_the_terminal_as_it_was(busy, rich, tmp_path):
    more = {} if rich else without_rich(tmp_path)
    with Terminal("top", "--interval", "600", server=busy, **more) as terminal:
        terminal.wait_for("nobody")
        terminal.process.send_signal(signal.SIGTERM)
        assert terminal.end() == 0
        assert terminal.text.rfind("\x1b[?1049l") > terminal.text.rfind("nobody")
        assert "\x1b[?25h" in terminal.text
        assert terminal.echoes()


def test_it_is_not_stopped_in_the_background_of_a_terminal(busy):
    """As in ``gearman-pool top --json > log &``: who changes a terminal from the background is stopped."""
    with Terminal("top", "--json", "--interval", "0.1", server=busy, background=True) as terminal:
        terminal.wait_for('(?s)"nobody".*"nobody"')
        assert terminal.echoes()
        terminal.process.send_signal(signal.SIGTERM)
        assert terminal.end() == 0


def test_a_server_that_goes_and_comes_is_followed(busy):
    with Running("top", "--json", "--interval", "0.2", server=busy) as running:
        running.wait_for('"state": "UP"')
        busy.kill()
        running.wait_for('(?s)"state": "DOWN"')
        busy.start()
        running.wait_for('(?s)"state": "DOWN".*"state": "UP"')
        running.interrupt()
        assert running.end() == 0
        assert all(json.loads(line)["servers"] for line in running.out.splitlines())


def test_it_ends_with_its_reader(busy):
    with Running("top", "--interval", "0.1", server=busy) as running:
        running.wait_for("nobody")
        running.process.stdout.close()
        running.process.stdout = running.process.stderr
        assert running.end() == 0
        assert running.err == ""
