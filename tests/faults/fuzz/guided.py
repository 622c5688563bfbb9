"""Fuzzing that is guided by coverage: atheris changes inputs, and keeps those that reach code which none had reached.

`fuzz` runs atheris in a process of its own, ``python -m tests.faults.fuzz.guided FLAGS DIRECTORY...``, whose flags are
those of libFuzzer. That process ends as libFuzzer wants it: not 0 if a machine broke a promise, if one input took too
long, or if the memory grew beyond its limit; the input is then left in a file for
``python -m tests.faults.fuzz FILE``.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections import deque
from pathlib import Path

__all__ = ["CORPUS", "MAX_MEMORY", "fuzz"]

CORPUS = Path(__file__).with_name("corpus")

#: MiB for the interpreter, atheris, its tables and the inputs that it has found, which take 48 together.
MAX_MEMORY = 160

#: Bytes; enough for each limit of the machines.
_MAX_LENGTH = 800

#: Seconds for one input; ordinary ones take less than a millisecond.
_MAX_TIME = 10


def fuzz(inputs: int, seed: int, keep: Path | None) -> int:
    """Run so many inputs, print what came of it, and return the exit status."""
    with tempfile.TemporaryDirectory(prefix="gearman_pool-fuzz-") as temporary:
        found = keep or Path(temporary)
        found.mkdir(parents=True, exist_ok=True)
        before = set(found.iterdir())
        flags = [f"-runs={inputs}", f"-seed={seed}", f"-max_len={_MAX_LENGTH}", f"-timeout={_MAX_TIME}"]
        flags += [f"-rss_limit_mb={MAX_MEMORY}", "-print_final_stats=1", f"-artifact_prefix={Path.cwd()}/fuzz-"]
        command = [sys.executable, "-m", __name__, *flags, str(found), str(CORPUS)]
        tail: deque[str] = deque(maxlen=80)
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, errors="replace") as process:
            assert process.stderr is not None
            for line in process.stderr:
                tail.append(line)
                if re.search(r"INITED|pulse|DONE|stat::", line):
                    print(line, end="", flush=True)
        print(f"{len(set(found.iterdir()) - before)} inputs that reach something new were found")
    if process.returncode:
        print("".join(tail), f"exit status {process.returncode}", sep="\n")
    return process.returncode


def _main() -> None:
    import atheris

    with atheris.instrument_imports(include=["gearman_pool.protocol"]):
        from .machines import MACHINES, Input, check
    names = list(MACHINES)

    def one(text: bytes) -> None:
        what = Input.parse(text)
        check(names[what.machine % len(names)], what)

    atheris.Setup(sys.argv, one)
    atheris.Fuzz()


if __name__ == "__main__":
    _main()
