"""Many greenlets that share one client: ``greenlets.py LIBRARY PATCHED SERVER``.

``LIBRARY`` is gevent or eventlet; ``PATCHED`` says when it patches the standard library: ``before`` or ``after`` the
import of gearman_pool, or ``without-threads``: before it, but for its threads. Prints what came of it as JSON.
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter

LIBRARY, PATCHED, SERVER = sys.argv[1:]
GREENLETS = 100
CALLS = 20
LARGE = b"large" * 100_000


def patch() -> None:
    options = {"thread": False} if PATCHED == "without-threads" else {}
    if LIBRARY == "gevent":
        from gevent import monkey

        monkey.patch_all(**options)
    else:
        import eventlet

        eventlet.monkey_patch(**options)


if PATCHED != "after":
    patch()

from gearman_pool import GearmanClient  # noqa: E402

if PATCHED == "after":
    patch()

if LIBRARY == "gevent":
    import gevent

    spawn, join = gevent.spawn, gevent.joinall
else:
    import eventlet

    spawn = eventlet.spawn

    def join(greenlets):
        for greenlet in greenlets:
            greenlet.wait()


outcomes: Counter[str] = Counter()
client = GearmanClient([SERVER])


def call(payload: bytes) -> None:
    try:
        outcomes["right" if client.submit("echo", payload).result(20) == payload else "wrong"] += 1
    except Exception as error:
        outcomes[repr(error)] += 1


def calls(greenlet: int) -> None:
    for number in range(CALLS):
        call(b"%d-%d" % (greenlet, number))


started = time.monotonic()
join([spawn(calls, number) for number in range(GREENLETS)])
duration = time.monotonic() - started

join([spawn(call, LARGE) for _ in range(5)])


# A greenlet that waits for a result holds up no other.
ticks = [0]


def tick() -> None:
    while not future.done():
        ticks[0] += 1
        time.sleep(0.001)


def wait() -> None:
    try:
        future.result(20)
    except Exception as error:
        outcomes[type(error).__name__] += 1


future = client.submit("nobody", timeout=0.5)
join([spawn(wait), spawn(tick)])

client.close()
print(json.dumps({"outcomes": outcomes, "duration": duration, "ticks": ticks[0]}))
