"""Forks and the interpreter's exit are told to everybody who is there."""

from __future__ import annotations

import gc
import weakref

from gearman_pool.threads import lifecycle

from ..support.processes import run_program


class _Living:
    """Somebody who is to be told."""


_TROUBLE = """
import os
from gearman_pool.threads.lifecycle import register
class Living:
    def __init__(self, name):
        self.name = name
    def after_fork_in_child(self):
        os.write(1, b"child: %s\\n" % self.name)
        if self.name == b"in trouble":
            raise ValueError("at the fork")
    def at_exit(self):
        os.write(1, b"exit: %s\\n" % self.name)
        if self.name == b"in trouble":
            raise ValueError("at the exit")
first, second, third = living = [Living(name) for name in (b"first", b"in trouble", b"third")]
for each in living:
    register(each, Living.after_fork_in_child, Living.at_exit)
pid = os.fork()
if pid == 0:
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
"""


def test_trouble_of_one_keeps_no_other_from_being_told():
    ended = run_program(["-c", _TROUBLE], 20)
    told = [f"{when}: {name}" for when in ("child", "exit") for name in ("first", "in trouble", "third")]
    assert (ended.code, ended.output.splitlines()) == (0, told), ended.errors
    # What went wrong in the child is shown; at the exit nobody can do anything about it.
    assert "at the fork" in ended.errors
    assert "at the exit" not in ended.errors


def test_who_is_to_be_told_is_not_kept_for_that():
    living = _Living()
    seen = weakref.ref(living)
    lifecycle.register(living, print, print)
    del living
    gc.collect()
    assert seen() is None
