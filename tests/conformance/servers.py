"""The kinds of servers that the conformance suite runs on.

A test takes the fixture ``server`` and uses nothing but what `ConformanceServer` names, so that a further kind is one
class and one entry of `KINDS`. Where two kinds rightly differ, the difference is an attribute here with the reason:
gearmand's faults, which the embedded server does not have, are those of `Faults`.
"""

from __future__ import annotations

import functools
import os
import subprocess
from collections.abc import Callable

from gearman_pool import __version__
from gearman_pool.testing import EmbeddedServer
from gearman_pool.testing.gearmand import find_gearmand

from ..support.gearmand import Gearmand, RunningServer, free_port

__all__ = ["KINDS", "ConformanceServer", "RealServer", "missing"]


class Faults:
    """What gearmand does wrong, by name. A test of one says what a server without it does instead."""

    #: A job that joins one that nobody wants any more is accepted, and dropped without a word; see
    #: `ConformanceServer.keeps_unwanted_jobs`, which is why.
    drops_jobs_that_join_unwanted_ones: bool

    #: A background job is dropped with the last foreground client that waits for it, whichever of the two came first.
    drops_background_jobs_with_foreground_clients: bool

    #: The clients of a job that was cancelled are told once more when it is cancelled again.
    tells_again_of_jobs_cancelled_twice: bool

    #: WORK_FAIL in place of a WORK_EXCEPTION has a NUL behind the handle.
    ends_handles_of_exceptions_with_nul: bool

    #: A unique of 64 bytes is accepted and cut to 63, so that it is not found again.
    cuts_uniques_of_64_bytes: bool

    #: A request about a handle or a unique of 64 bytes or more gets no answer.
    leaves_requests_about_long_names_unanswered: bool

    #: ``create function`` with a line that ends with LF alone loses the last letter of the name.
    cuts_names_of_created_functions: bool

    #: A packet with too few arguments is not refused: the next one is taken for the missing ones.
    swallows_packets_behind_missing_arguments: bool


class ConformanceServer(RunningServer, Faults):
    """A server that listens on the loopback interface from the moment it is made.

    ``attempts``: how many workers may lose a job before it fails; any number if None.
    """

    kind: str

    #: Whether a worker that sleeps is woken when a delayed job is due. gearmand does so from 2.0 on; before, the job
    #: waits until the worker asks again for any other reason.
    wakes_for_due_jobs: bool

    #: Whether a job that nobody wants any more is marked and kept until a worker asks for one. gearmand does that; the
    #: embedded server drops the job at once.
    keeps_unwanted_jobs: bool

    #: Whether a worker of several functions is given jobs of each in turn. gearmand does so from 2.0 on; before,
    #: the function that was registered last comes first until it has no job left, unless ``--round-robin`` is given.
    takes_functions_in_turn: bool

    @property
    def pid(self) -> int:
        """The number of its process, which ``getpid`` must answer."""
        raise NotImplementedError

    @property
    def version(self) -> str:
        """Its version, which ``version`` must answer. A gearmand that was built outside its repository has none: ""."""
        raise NotImplementedError

    @property
    def running(self) -> bool:
        """Whether it listens."""
        raise NotImplementedError

    def start(self) -> None:
        """Start it again on its port, with empty queues."""
        raise NotImplementedError

    def stop(self) -> None:
        """End it in an orderly way; its connections end."""
        raise NotImplementedError

    def kill(self) -> None:
        """End it at once; its connections end."""
        raise NotImplementedError

    def restart(self) -> None:
        """End it at once and start it again on its port, with empty queues."""
        self.kill()
        self.start()

    def pause(self) -> None:
        """Freeze it: connects still succeed, nothing is answered."""
        raise NotImplementedError

    def resume(self) -> None:
        """Let a frozen one go on; does nothing to one that is not."""
        raise NotImplementedError

    def close(self) -> None:
        """End it for good."""
        raise NotImplementedError


class RealServer(Gearmand, ConformanceServer):
    """The real gearmand."""

    kind = "gearmand"
    keeps_unwanted_jobs = True
    drops_jobs_that_join_unwanted_ones = True
    drops_background_jobs_with_foreground_clients = True
    tells_again_of_jobs_cancelled_twice = True
    ends_handles_of_exceptions_with_nul = True
    cuts_uniques_of_64_bytes = True
    leaves_requests_about_long_names_unanswered = True
    cuts_names_of_created_functions = True
    swallows_packets_behind_missing_arguments = True

    def __init__(self, *, attempts: int | None = None) -> None:
        super().__init__(arguments=() if attempts is None else (f"--job-retries={attempts}",))

    @property
    def version(self) -> str:
        return self.text("version").removeprefix("OK ")

    @property
    def wakes_for_due_jobs(self) -> bool:  # type: ignore[override]
        return self._is_of_2_0_or_later

    @property
    def takes_functions_in_turn(self) -> bool:  # type: ignore[override]
        return self._is_of_2_0_or_later

    @property
    def _is_of_2_0_or_later(self) -> bool:
        return _turns_without_being_asked()


class Embedded(ConformanceServer):
    """The embedded server."""

    kind = "embedded"
    host = "127.0.0.1"
    wakes_for_due_jobs = True
    keeps_unwanted_jobs = False
    takes_functions_in_turn = True
    drops_jobs_that_join_unwanted_ones = False
    drops_background_jobs_with_foreground_clients = False
    tells_again_of_jobs_cancelled_twice = False
    ends_handles_of_exceptions_with_nul = False
    cuts_uniques_of_64_bytes = False
    leaves_requests_about_long_names_unanswered = False
    cuts_names_of_created_functions = False
    swallows_packets_behind_missing_arguments = False

    def __init__(self, *, attempts: int | None = None) -> None:
        self._server = EmbeddedServer(port=free_port(), job_retries=attempts).start()

    @property
    def port(self) -> int:  # type: ignore[override]
        return self._server.port

    @property
    def pid(self) -> int:
        return os.getpid()

    @property
    def version(self) -> str:
        return f"2.0.0+gearman_pool.{__version__}"

    @property
    def running(self) -> bool:
        return self._server.running

    def start(self) -> None:
        self._server.start()

    def stop(self) -> None:
        self._server.stop()

    def kill(self) -> None:
        self._server.stop()

    def pause(self) -> None:
        self._server.pause()

    def resume(self) -> None:
        self._server.resume()

    def close(self) -> None:
        self._server.stop()


@functools.cache
def _turns_without_being_asked() -> bool:
    """Whether gearmand's own help says that ``--round-robin`` is what it does anyway, as it does from 2.0 on.

    Its version need not tell: one that was built outside its repository has none.
    """
    program = find_gearmand()
    assert program is not None
    text = subprocess.run([program, "--help"], capture_output=True, text=True, timeout=20, check=False).stdout
    about = " ".join(text.partition("--round-robin")[2].partition(" --")[0].split())
    assert "worker connection" in about, text
    return "cannot be deactivated" in about


#: What makes a server of each kind.
KINDS: dict[str, Callable[..., ConformanceServer]] = {"gearmand": RealServer, "embedded": Embedded}


def missing(kind: str) -> str | None:
    """What a kind of server needs and this machine lacks: its name and Debian's package; None if nothing."""
    if kind == "gearmand" and not find_gearmand():
        return "gearmand (Debian's gearman-job-server)"
    return None
