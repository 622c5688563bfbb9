"""The table of Gearman's binary commands: the single source for both directions.

A row gives a command's number, its name in the protocol document, who sends it, and the names of its arguments in
the order of the wire. Arguments are separated by one NUL each; the last one takes the rest of the packet, so only it
may hold NUL bytes itself.

Source: gearmand's ``PROTOCOL`` document, corrected by what gearmand 1.1.20 was seen to do: the two
``SUBMIT_REDUCE_JOB`` commands carry an ``aggregator`` that the document lacks, and ``STATUS_RES_UNIQUE`` starts with
the unique, not with the handle.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

__all__ = ["COMMANDS", "Command", "CommandSpec", "Sender", "submit_command"]


class Command(IntEnum):
    """The numbers of the binary commands, under the names of the protocol document."""

    TEXT = 0
    CAN_DO = 1
    CANT_DO = 2
    RESET_ABILITIES = 3
    PRE_SLEEP = 4
    NOOP = 6
    SUBMIT_JOB = 7
    JOB_CREATED = 8
    GRAB_JOB = 9
    NO_JOB = 10
    JOB_ASSIGN = 11
    WORK_STATUS = 12
    WORK_COMPLETE = 13
    WORK_FAIL = 14
    GET_STATUS = 15
    ECHO_REQ = 16
    ECHO_RES = 17
    SUBMIT_JOB_BG = 18
    ERROR = 19
    STATUS_RES = 20
    SUBMIT_JOB_HIGH = 21
    SET_CLIENT_ID = 22
    CAN_DO_TIMEOUT = 23
    ALL_YOURS = 24
    WORK_EXCEPTION = 25
    OPTION_REQ = 26
    OPTION_RES = 27
    WORK_DATA = 28
    WORK_WARNING = 29
    GRAB_JOB_UNIQ = 30
    JOB_ASSIGN_UNIQ = 31
    SUBMIT_JOB_HIGH_BG = 32
    SUBMIT_JOB_LOW = 33
    SUBMIT_JOB_LOW_BG = 34
    SUBMIT_JOB_SCHED = 35
    SUBMIT_JOB_EPOCH = 36
    SUBMIT_REDUCE_JOB = 37
    SUBMIT_REDUCE_JOB_BACKGROUND = 38
    GRAB_JOB_ALL = 39
    JOB_ASSIGN_ALL = 40
    GET_STATUS_UNIQUE = 41
    STATUS_RES_UNIQUE = 42


class Sender(IntEnum):
    """Who may send a command; the values can be or-ed."""

    CLIENT = 1
    WORKER = 2
    SERVER = 4


@dataclass(frozen=True)
class CommandSpec:
    """One row of the table."""

    command: Command
    senders: int
    arguments: tuple[str, ...]

    @property
    def name(self) -> str:
        """The command's name in the protocol document."""
        return self.command.name


_C, _W, _S = Sender.CLIENT, Sender.WORKER, Sender.SERVER
_SUBMIT = ("task", "unique", "data")

#: Every binary command that a peer may send, by number. Number 0 stands for a line of text and has no packet.
COMMANDS: dict[int, CommandSpec] = {
    spec.command: spec
    for spec in (
        CommandSpec(Command.CAN_DO, _W, ("task",)),
        CommandSpec(Command.CANT_DO, _W, ("task",)),
        CommandSpec(Command.RESET_ABILITIES, _W, ()),
        CommandSpec(Command.PRE_SLEEP, _W, ()),
        CommandSpec(Command.NOOP, _S, ()),
        CommandSpec(Command.SUBMIT_JOB, _C, _SUBMIT),
        CommandSpec(Command.JOB_CREATED, _S, ("handle",)),
        CommandSpec(Command.GRAB_JOB, _W, ()),
        CommandSpec(Command.NO_JOB, _S, ()),
        CommandSpec(Command.JOB_ASSIGN, _S, ("handle", "task", "data")),
        CommandSpec(Command.WORK_STATUS, _W | _S, ("handle", "numerator", "denominator")),
        CommandSpec(Command.WORK_COMPLETE, _W | _S, ("handle", "data")),
        CommandSpec(Command.WORK_FAIL, _W | _S, ("handle",)),
        CommandSpec(Command.GET_STATUS, _C, ("handle",)),
        CommandSpec(Command.ECHO_REQ, _C | _W, ("data",)),
        CommandSpec(Command.ECHO_RES, _S, ("data",)),
        CommandSpec(Command.SUBMIT_JOB_BG, _C, _SUBMIT),
        CommandSpec(Command.ERROR, _S, ("code", "text")),
        CommandSpec(Command.STATUS_RES, _S, ("handle", "known", "running", "numerator", "denominator")),
        CommandSpec(Command.SUBMIT_JOB_HIGH, _C, _SUBMIT),
        CommandSpec(Command.SET_CLIENT_ID, _C | _W, ("client_id",)),
        CommandSpec(Command.CAN_DO_TIMEOUT, _W, ("task", "timeout")),
        CommandSpec(Command.ALL_YOURS, _W, ()),
        CommandSpec(Command.WORK_EXCEPTION, _W | _S, ("handle", "data")),
        CommandSpec(Command.OPTION_REQ, _C | _W, ("option",)),
        CommandSpec(Command.OPTION_RES, _S, ("option",)),
        CommandSpec(Command.WORK_DATA, _W | _S, ("handle", "data")),
        CommandSpec(Command.WORK_WARNING, _W | _S, ("handle", "data")),
        CommandSpec(Command.GRAB_JOB_UNIQ, _W, ()),
        CommandSpec(Command.JOB_ASSIGN_UNIQ, _S, ("handle", "task", "unique", "data")),
        CommandSpec(Command.SUBMIT_JOB_HIGH_BG, _C, _SUBMIT),
        CommandSpec(Command.SUBMIT_JOB_LOW, _C, _SUBMIT),
        CommandSpec(Command.SUBMIT_JOB_LOW_BG, _C, _SUBMIT),
        CommandSpec(
            Command.SUBMIT_JOB_SCHED, _C, ("task", "unique", "minute", "hour", "mday", "month", "wday", "data")
        ),
        CommandSpec(Command.SUBMIT_JOB_EPOCH, _C, ("task", "unique", "epoch", "data")),
        CommandSpec(Command.SUBMIT_REDUCE_JOB, _C, ("task", "unique", "reducer", "aggregator", "data")),
        CommandSpec(Command.SUBMIT_REDUCE_JOB_BACKGROUND, _C, ("task", "unique", "reducer", "aggregator", "data")),
        CommandSpec(Command.GRAB_JOB_ALL, _W, ()),
        CommandSpec(Command.JOB_ASSIGN_ALL, _S, ("handle", "task", "unique", "reducer", "data")),
        CommandSpec(Command.GET_STATUS_UNIQUE, _C, ("unique",)),
        CommandSpec(
            Command.STATUS_RES_UNIQUE, _S, ("unique", "known", "running", "numerator", "denominator", "waiting_clients")
        ),
    )
}

_SUBMIT_COMMANDS: dict[tuple[bool, str | None], Command] = {
    (False, None): Command.SUBMIT_JOB,
    (False, "LOW"): Command.SUBMIT_JOB_LOW,
    (False, "HIGH"): Command.SUBMIT_JOB_HIGH,
    (True, None): Command.SUBMIT_JOB_BG,
    (True, "LOW"): Command.SUBMIT_JOB_LOW_BG,
    (True, "HIGH"): Command.SUBMIT_JOB_HIGH_BG,
}


def submit_command(background: bool, priority: str | None) -> Command:
    """Return the command that submits a job of this kind.

    Raises:
        ValueError: ``priority`` is none of ``PRIORITY_NONE``, ``PRIORITY_LOW`` and ``PRIORITY_HIGH``.
    """
    try:
        return _SUBMIT_COMMANDS[background, priority]
    except (KeyError, TypeError):
        raise ValueError(f"priority is {priority!r}; it must be PRIORITY_NONE, PRIORITY_LOW or PRIORITY_HIGH") from None
