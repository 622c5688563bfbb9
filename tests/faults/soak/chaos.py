"""Servers that are killed, stopped, ended and restarted at random."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter

from ...support.gearmand import Gearmand

__all__ = ["Chaos"]

#: How long a server is left in peace, in seconds.
_PEACE = (2.0, 12.0)

#: How long it is down, and how long stopped: at times long enough for a client to notice (its health checks here take
#: 2 s), and too short for a worker (8 s), which would give up a job that it is doing; its server would give that job to
#: another worker.
_DOWN = (0.0, 3.0)
_STOPPED = (0.2, 5.0)


class Chaos:
    """A thread for each server. ``kills`` tells for each when it was killed or ended; read it when they have ended."""

    def __init__(self, servers: list[Gearmand], seed: int) -> None:
        self.kills: list[list[float]] = [[] for _ in servers]
        #: What was done, by kind. Guarded by the interpreter: each thread counts a name of its own.
        self._done: list[Counter[str]] = [Counter() for _ in servers]
        self._servers = servers
        self._ended = threading.Event()
        self.failures: list[BaseException] = []
        self._threads = [
            threading.Thread(target=self._trouble, args=(index, random.Random(f"{seed} {index}")), daemon=True)
            for index in range(len(servers))
        ]

    @property
    def done(self) -> Counter[str]:
        """What was done so far, by kind."""
        return sum((counts.copy() for counts in self._done), Counter())

    def start(self) -> None:
        """Begin."""
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        """Stop it; all servers run afterwards."""
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def _trouble(self, index: int, chooser: random.Random) -> None:
        server, done = self._servers[index], self._done[index]
        try:
            while not self._ended.wait(chooser.uniform(*_PEACE)):
                kind = chooser.choice(("killed", "killed", "ended", "stopped", "stopped"))
                done[kind] += 1
                if kind == "stopped":
                    server.pause()
                    self._ended.wait(chooser.uniform(*_STOPPED))
                    server.resume()
                    continue
                self.kills[index].append(time.monotonic())
                if kind == "killed":
                    server.kill()
                else:
                    server.stop()
                self._ended.wait(chooser.uniform(*_DOWN))
                server.start()
        except BaseException as error:
            self.failures.append(error)
