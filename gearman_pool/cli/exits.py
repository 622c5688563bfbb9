"""How the program ends: exit codes, and which error means which.

Any thread may call what stands here. Nothing here prints, and nothing ends the process.
"""

from __future__ import annotations

from ..errors import GearmanError, InvalidAdminClientState, JobException, ServerUnavailable

__all__ = [
    "EXIT_CODES",
    "FAILED",
    "INTERRUPTED",
    "OK",
    "TIMEOUT",
    "UNAVAILABLE",
    "USAGE",
    "CommandError",
    "code_of",
    "text_of",
]

OK = 0
FAILED = 1
USAGE = 2
UNAVAILABLE = 3
TIMEOUT = 4
INTERRUPTED = 130

#: What ``--help`` and the documentation say.
EXIT_CODES = """\
exit codes:
  0    done (also if whoever reads the output has had enough, as head)
  1    the job failed, or the server refused the command
  2    wrong usage
  3    a server could not be reached, or its connection was lost
  4    the time was up
  130  interrupted (Ctrl-C); what runs until it is told to stop (work, serve, top) ends with 0 then
"""


class CommandError(Exception):
    """A command cannot go on. Its text is what the user reads, in one line, with what can be done."""

    def __init__(self, text: str, code: int = FAILED) -> None:
        super().__init__(text)
        self.code = code


def code_of(error: BaseException) -> int:
    """Return the exit code that an error means."""
    if isinstance(error, CommandError):
        return error.code
    # The built-in ConnectionError, which the package's is too, goes before TimeoutError, which a connection's time-out
    # is as well. InvalidAdminClientState means that the server has not answered.
    if isinstance(error, (ServerUnavailable, ConnectionError, InvalidAdminClientState)):
        return UNAVAILABLE
    return TIMEOUT if isinstance(error, TimeoutError) else FAILED


def text_of(error: BaseException) -> str:
    """Return an error's text in one line."""
    text = str(error) or type(error).__name__
    if isinstance(error, JobException) and error.data and _said(error.data) not in text:
        text = f"{text}: {_said(error.data)}"
    if isinstance(error, GearmanError) and isinstance(error, ServerUnavailable):
        missing = [f"{server}: {why}" for server, why in error.servers.items() if server not in text]
        text = "; ".join([text, *missing, "is it running? name another with -s HOST:PORT"])
    return " ".join(text.split())


def _said(data: object) -> str:
    return " ".join((data.decode("utf-8", "replace") if isinstance(data, bytes) else str(data)).split())
