"""python-gearman's names for the protocol, made from this package's own tables.

They are reached as ``gearman_pool.protocol.NAME``, and loaded when the first of them is asked for. Where python-gearman
ended with command 34, these go on to 42. Arguments are bytes; where text is given, it is taken as UTF-8.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from ..errors import ProtocolError
from .commands import COMMANDS, submit_command
from .packets import HEADER_SIZE, REQ, RES, pack, split_arguments

NULL_CHAR: Final = b"\0"
MAGIC_REQ_STRING: Final = REQ
MAGIC_RES_STRING: Final = RES
COMMAND_HEADER_SIZE: Final = HEADER_SIZE

#: Not a command of the protocol: it stands for a line of text.
GEARMAN_COMMAND_TEXT_COMMAND: Final = 9999

GEARMAN_SERVER_COMMAND_STATUS: Final = "status"
GEARMAN_SERVER_COMMAND_VERSION: Final = "version"
GEARMAN_SERVER_COMMAND_WORKERS: Final = "workers"
GEARMAN_SERVER_COMMAND_MAXQUEUE: Final = "maxqueue"
GEARMAN_SERVER_COMMAND_SHUTDOWN: Final = "shutdown"
GEARMAN_SERVER_COMMAND_GETPID: Final = "getpid"
GEARMAN_SERVER_COMMAND_SHOW_JOBS: Final = "show jobs"
GEARMAN_SERVER_COMMAND_SHOW_UNIQUE_JOBS: Final = "show unique jobs"
GEARMAN_SERVER_COMMAND_CANCEL_JOB: Final = "cancel job"

_ARGUMENT_NAMES = {"handle": "job_handle", "code": "error_code", "text": "error_text", "option": "option_name"}

#: The arguments of each command, by its number.
GEARMAN_PARAMS_FOR_COMMAND: dict[int, list[str]] = {
    int(number): [_ARGUMENT_NAMES.get(name, name) for name in spec.arguments] for number, spec in COMMANDS.items()
}
GEARMAN_PARAMS_FOR_COMMAND[GEARMAN_COMMAND_TEXT_COMMAND] = ["raw_text"]

#: The name of each command, by its number.
GEARMAN_COMMAND_TO_NAME: dict[int, str] = {
    int(number): f"GEARMAN_COMMAND_{spec.name}" for number, spec in COMMANDS.items()
}
GEARMAN_COMMAND_TO_NAME[GEARMAN_COMMAND_TEXT_COMMAND] = "GEARMAN_COMMAND_TEXT_COMMAND"

# GEARMAN_COMMAND_CAN_DO and so on.
globals().update({name: number for number, name in GEARMAN_COMMAND_TO_NAME.items()})

__all__ = [name for name in globals() if name.startswith(("GEARMAN_", "MAGIC_", "COMMAND_HEADER", "NULL_"))]
__all__ += [
    "get_command_name",
    "submit_cmd_for_background_priority",
    "parse_binary_command",
    "pack_binary_command",
    "parse_text_command",
    "pack_text_command",
]


def get_command_name(cmd_type: int) -> str | int:
    """Return a command's name, or its number if it has none."""
    return GEARMAN_COMMAND_TO_NAME.get(cmd_type, cmd_type)


def submit_cmd_for_background_priority(background: bool, priority: str | None) -> int:
    """Return the number of the command that submits such a job.

    Raises:
        ValueError: there is no such priority.
    """
    return int(submit_command(bool(background), priority))


def parse_binary_command(
    in_buffer: Any, is_response: bool = True
) -> tuple[int, dict[str, bytes], int] | tuple[None, None, int]:
    """Read a packet from the start of a buffer: its command, its arguments, and how many bytes it takes.

    Args:
        in_buffer: Anything bytes-like.
        is_response: Whether it comes from a server.

    Returns:
        (None, None, 0) if the packet is not complete.

    Raises:
        ProtocolError: it is no packet.
    """
    data = bytes(memoryview(in_buffer))
    if len(data) < HEADER_SIZE:
        return None, None, 0
    magic = RES if is_response else REQ
    if data[:4] != magic:
        raise ProtocolError(f"a packet starts with {data[:4].hex()}, not with {magic.hex()}")
    number = int.from_bytes(data[4:8], "big")
    end = HEADER_SIZE + int.from_bytes(data[8:12], "big")
    names = _arguments(number)
    if len(data) < end:
        return None, None, 0
    values = split_arguments(number, data[HEADER_SIZE:end])
    return number, dict(zip(names, values, strict=True)), end


def pack_binary_command(cmd_type: int, cmd_args: Mapping[str, bytes | str], is_response: bool = False) -> bytes:
    """Return the packet of a command with these arguments.

    Raises:
        ProtocolError: there is no such command, or these are not its arguments.
    """
    names = _arguments(cmd_type)
    if set(names) != set(cmd_args):
        raise ProtocolError(f"{get_command_name(cmd_type)} takes the arguments {names}, not {sorted(cmd_args)}")
    values = [_bytes(name, cmd_args[name]) for name in names]
    if any(NULL_CHAR in value for value in values[:-1]):
        raise ProtocolError(f"an argument of {get_command_name(cmd_type)} holds a NUL byte, and is not the last one")
    packet = pack(cmd_type, *values, magic=RES if is_response else REQ)
    return packet if isinstance(packet, bytes) else b"".join(packet)


def parse_text_command(in_buffer: Any) -> tuple[int, dict[str, bytes], int] | tuple[None, None, int]:
    """Read a line of text from the start of a buffer, as `parse_binary_command` reads a packet.

    Returns:
        (None, None, 0) if the line is not complete.

    Raises:
        ProtocolError: it holds a NUL byte.
    """
    line, newline, _ = bytes(memoryview(in_buffer)).partition(b"\n")
    if not newline:
        return None, None, 0
    if NULL_CHAR in line:
        raise ProtocolError("a line of text holds a NUL byte")
    return GEARMAN_COMMAND_TEXT_COMMAND, {"raw_text": line}, len(line) + 1


def pack_text_command(cmd_type: int, cmd_args: Mapping[str, bytes | str]) -> bytes:
    """Return the line of a text command. As in python-gearman, its line end must be in it.

    Raises:
        ProtocolError: the command is another, or its argument is missing.
    """
    if cmd_type != GEARMAN_COMMAND_TEXT_COMMAND:
        raise ProtocolError(f"{get_command_name(cmd_type)} is no text command")
    if cmd_args.get("raw_text") is None:
        raise ProtocolError(f"a text command takes the argument raw_text, not {sorted(cmd_args)}")
    return _bytes("raw_text", cmd_args["raw_text"])


def _arguments(number: int) -> list[str]:
    names = GEARMAN_PARAMS_FOR_COMMAND.get(number)
    if names is None or number == GEARMAN_COMMAND_TEXT_COMMAND:
        raise ProtocolError(f"{get_command_name(number)} is not the number of a binary command")
    return names


def _bytes(name: str, value: bytes | str) -> bytes:
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape")
    if not isinstance(value, bytes):
        raise ProtocolError(f"the argument {name} is of type {type(value).__name__}; it must be bytes or str")
    return value


def __getattr__(name: str) -> Any:
    # For type checkers, which do not see the names that the table makes.
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
