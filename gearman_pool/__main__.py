"""``python -m gearman_pool``: the same as the program ``gearman-pool``."""

from __future__ import annotations

import sys

if sys.version_info < (3, 10):  # noqa: UP036 - older ones read this file too, and are to hear of it
    sys.exit("gearman_pool needs Python 3.10 or later; this is %d.%d." % sys.version_info[:2])  # noqa: UP031 - likewise

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
