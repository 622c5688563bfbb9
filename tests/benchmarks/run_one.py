"""One timed run, in an interpreter of its own.

Usage: ``python -m tests.benchmarks.run_one DRIVER WORK PORTS [name=value ...]``, with fields of `Load` as names. Prints
its numbers as one line of JSON and exits with 0; with 3 if the driver's client is not installed, which the error output
then names. A peer's run imports nothing beyond the standard library and the peer.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Sequence
from typing import Any

from .works import Load

__all__ = ["NOT_INSTALLED", "main"]

#: The exit status of a run whose client is not installed.
NOT_INSTALLED = 3


def main(arguments: Sequence[str]) -> int:
    """Run what the arguments name and return the exit status."""
    driver, work, ports, *settings = arguments
    try:
        module = importlib.import_module(f"{__package__}.drivers.{driver}")
    except ImportError as error:
        print(error, file=sys.stderr)
        return NOT_INSTALLED
    options: dict[str, Any] = {}
    for setting in settings:
        name, _, value = setting.partition("=")
        kind = {"seconds": float, "variant": str}.get(name, int)
        options[name] = kind(value)
    load = Load(tuple(map(int, ports.split(","))), **options)
    print(json.dumps(module.WORKS[work](load)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
