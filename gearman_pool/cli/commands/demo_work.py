"""The work of ``gearman-pool demo``: tasks, their workers, and the threads that want the results.

The main thread starts and ends all threads. Nothing here prints, and nothing here knows what becomes of the servers.
"""

from __future__ import annotations

import json
import re
import sysconfig
import threading
from collections import Counter
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from time import monotonic

from ... import GearmanClient, GearmanWorker
from ...errors import GearmanError
from ...worker import GearmanWorkerJob

__all__ = ["Crowd", "library_files", "start_worker", "word_counts"]

_WORD = re.compile(rb"[A-Za-z_]+")

#: How many words of each file are asked for, and how many files the survey reports on.
_MOST_COMMON = 5
_PARTS = 40


def library_files(limit: int) -> list[Path]:
    """Return files of Python's standard library, the same ones each time."""
    folder = Path(sysconfig.get_path("stdlib"))
    files = sorted(folder.glob("*.py")) + sorted(folder.glob("[a-z]*/[a-z]*.py"))
    return [path for path in files if path.is_file()][:limit]


def word_counts(data: bytes) -> list[list[object]]:
    """Return the most common words of a text, with their counts."""
    counts = Counter(_WORD.findall(data))
    best = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:_MOST_COMMON]
    return [[word.decode(), number] for word, number in best]


def start_worker(servers: list[str], number: int) -> tuple[GearmanWorker, threading.Thread]:
    """Start a worker on a thread of its own, and return both."""
    worker = GearmanWorker(servers, client_id=f"demo-worker-{number}", reconnect_backoff=(0.05, 0.5))

    @worker.task("count_words")
    def count_words(job: GearmanWorkerJob) -> str:
        return json.dumps(word_counts(job.data))

    @worker.task("survey")
    def survey(job: GearmanWorkerJob) -> Iterator[str]:
        paths = [Path(line) for line in job.data.decode().splitlines()]
        step = max(1, len(paths) // _PARTS)
        longest = 0
        for done, path in enumerate(paths, 1):
            lines = path.read_bytes().count(b"\n")
            if lines > longest:
                longest = lines
                yield f"{path.name}: {lines} lines"
            if done % step == 0 or done == len(paths):
                job.send_status(done, len(paths))

    thread = threading.Thread(target=worker.run, name=f"gearman_pool-cli-demo-worker-{number}")
    thread.start()
    return worker, thread


class Crowd:
    """Threads that share one client: each submits a job, waits for its result and checks it, again and again.

    Attributes:
        done, wrong, failed: How many jobs came back, with a wrong answer, or with an error.
        longest: Seconds that the slowest one took.
        errors: The texts of the first errors.
    """

    def __init__(self, client: GearmanClient, texts: list[bytes], threads: int) -> None:
        self._client = client
        self._texts = texts
        self._expected = [json.dumps(word_counts(text)) for text in texts]
        self._numbers = count()
        # Guards the counts; held for a few instructions, with no other lock.
        self._lock = threading.Lock()
        # Set by `end`: the threads submit no further jobs.
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._run, name=f"gearman_pool-cli-demo-{n}") for n in range(threads)]
        self.done: int = 0
        self.wrong: int = 0
        self.failed: int = 0
        self.longest: float = 0.0
        self.errors: list[str] = []

    def start(self) -> None:
        """Start the threads."""
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        """Let the threads finish the jobs that they wait for, and wait for them."""
        self._ended.set()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join()

    def _run(self) -> None:
        while not self._ended.is_set():
            number = next(self._numbers) % len(self._texts)
            started = monotonic()
            try:
                result = self._client.submit("count_words", self._texts[number], timeout=15).result()
            except GearmanError as error:
                self._count(monotonic() - started, failed=str(error))
            else:
                self._count(monotonic() - started, wrong=result.decode() != self._expected[number])

    def _count(self, duration: float, *, wrong: bool = False, failed: str = "") -> None:
        with self._lock:
            self.done += 1
            self.wrong += wrong
            self.longest = max(self.longest, duration)
            if failed:
                self.failed += 1
                self.errors = [*self.errors, failed][:3]
