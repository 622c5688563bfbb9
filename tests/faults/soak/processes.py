"""The soak's processes, and what they take of the machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path
from statistics import median
from typing import Any

__all__ = ["LoadProcess", "Sample", "flat", "worker_process"]

ROOT = Path(__file__).resolve().parents[3]
_MEGABYTE = 1 << 20

#: What may be added between the first and the last third of the samples: bytes, descriptors, threads.
GROWTH = {"memory": 8 * _MEGABYTE, "descriptors": 12, "threads": 6}

#: So much of the time, at the beginning, is no evidence: caches and heaps fill up.
_WARM_UP = 0.2

Sample = dict[str, int]


def _popen(module: str, *arguments: object, **options: Any) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", f"{__package__}.{module}", *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, text=True, **options)


def worker_process(directory: Path, number: int, concurrency: int, addresses: list[str]) -> subprocess.Popen[str]:
    """Start one of our workers."""
    return _popen("worker", directory, number, concurrency, *addresses)


class LoadProcess:
    """A load process; a thread reads what it prints. ``samples`` belong to the caller of `sample`."""

    def __init__(self, directory: Path, number: int, seed: int, addresses: list[str]) -> None:
        self.counts: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()
        self.samples: list[Sample] = []
        self.finished = False
        pipe = subprocess.PIPE
        self._process = _popen("load", directory, number, seed, *addresses, stdin=pipe, stdout=pipe)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            said = json.loads(line)
            self.counts, self.faults = Counter(said["counts"]), Counter(said["faults"])
            self.finished = said["last"]

    def sample(self) -> Sample:
        """Note what it takes now."""
        process = Path("/proc") / str(self._process.pid)
        status = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines())
        sample = {
            "memory": int(status["VmRSS"].split()[0]) * 1024,
            "descriptors": len(os.listdir(process / "fd")),
            "threads": int(status["Threads"]),
        }
        self.samples.append(sample)
        return sample

    def end(self) -> None:
        """Tell it to submit no more."""
        assert self._process.stdin is not None
        self._process.stdin.close()

    def wait(self, timeout: float) -> None:
        """Wait until it has ended."""
        status = self._process.wait(timeout)
        self._reader.join()
        if status or not self.finished:
            self.faults[f"a load process ended with {status}"] += 1

    def close(self) -> None:
        """End it if it lives."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        self._reader.join()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()


def flat(samples: list[Sample]) -> tuple[dict[str, tuple[float, float]], list[str]]:
    """Compare the first third of the samples with the last; return both medians, and what has grown.

    What comes before is left out as warm-up. Too few samples prove nothing and give no figures.
    """
    settled = samples[int(len(samples) * _WARM_UP) :]
    third = len(settled) // 3
    if third < 3:
        return {}, []
    figures = {
        name: (median(s[name] for s in settled[:third]), median(s[name] for s in settled[-third:])) for name in GROWTH
    }
    grown = [
        f"{name} of a load process grew from {first:.0f} to {last:.0f}"
        for name, (first, last) in figures.items()
        if last - first > GROWTH[name]
    ]
    return figures, grown
