"""``python -m tests.public_interface``: prints what has changed in the public interface; ``--write`` accepts it."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from .snapshot import SNAPSHOT, difference
from .walk import text

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare or write, and return the exit status: 1 if there is a difference that is not accepted."""
    parser = argparse.ArgumentParser(prog="python -m tests.public_interface", description=__doc__)
    parser.add_argument("--write", action="store_true", help="write the interface as it is now")
    parser.add_argument("--file", type=Path, default=SNAPSHOT, help="where it stands (default: beside this program)")
    options = parser.parse_args(arguments)
    before = options.file.read_text(encoding="utf-8") if options.file.exists() else ""
    changed = difference(before, text())
    print("\n".join(changed) or "no change")
    if options.write:
        options.file.write_text(text(), encoding="utf-8")
    return 1 if changed and not options.write else 0


if __name__ == "__main__":
    raise SystemExit(main())
