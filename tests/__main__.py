"""``python3 -m tests``: set up what the tests need, run them, and say what passed and what was left out.

It needs nothing but a Python. Arguments are handed to pytest, so ``python3 -m tests tests/cli -k demo`` runs some of
them, and ``--collect-only`` none. The environment stands in ``.venv-tests/``, or in the folder that
``GEARMAN_POOL_TESTS_ENVIRONMENT`` names, and is made anew when ``pyproject.toml`` changes.
"""

from __future__ import annotations

import sys

if sys.version_info < (3, 10):  # noqa: UP036 - older ones read this file too, and are to hear of it
    sys.exit("The tests need Python 3.10 or later; this is %d.%d." % sys.version_info[:2])  # noqa: UP031 - likewise

from tests.support.whole_run import main

if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        # While the environment is made; pytest has its own way to end.
        sys.exit(130)
