"""Where under uWSGI a background thread must not be started.

uWSGI serves requests from C, and only if it has thread support does it give other threads the interpreter's lock
meanwhile. Up to 2.0.26 that had to be asked for; since 2.0.27 it is always there. Without it a thread that beats 20
times a second beat once in two idle seconds, and a background job that waited for its connection stayed in the process
until the next request came.

It also forks its workers without telling Python: no hook of ``os.register_at_fork`` runs, and if a background thread
has the interpreter's lock in that moment, the worker waits for that lock for ever. So the process that loads the
application and forks afterwards must not have one, unless uWSGI was told to call Python's hooks.
"""

from __future__ import annotations

import sys
from typing import Any

__all__ = ["obstacle"]

_NO_THREADS = (
    "uWSGI runs without thread support, so the background thread of gearman_pool would stand still between requests; "
    "start uWSGI with --enable-threads (in its ini file: enable-threads = true)"
)

_FORKS_TO_COME = (
    "uWSGI has yet to fork its workers, and does not tell Python of it, so a background thread of gearman_pool here "
    "could leave them hanging; start uWSGI with --py-call-uwsgi-fork-hooks or --lazy-apps, or use the client only in "
    "requests, not while the application is loaded"
)


def obstacle() -> str | None:
    """Return why no background thread may be started here and what to do about it; None where nothing is against it."""
    uwsgi: Any = sys.modules.get("uwsgi")
    # Others have modules of that name: stand-ins for tests, or for code that runs under uWSGI and elsewhere.
    if not hasattr(uwsgi, "has_threads"):
        return None
    if not uwsgi.has_threads:
        return _NO_THREADS
    if _forks_to_come(uwsgi) and "py-call-uwsgi-fork-hooks" not in uwsgi.opt:
        return _FORKS_TO_COME
    return None


def _forks_to_come(uwsgi: Any) -> bool:
    spooler = getattr(uwsgi, "i_am_the_spooler", lambda: False)  # missing where uWSGI was built without spoolers
    if uwsgi.worker_id() or uwsgi.mule_id() or spooler():
        return False
    return bool(uwsgi.masterpid()) or uwsgi.numproc > 1
