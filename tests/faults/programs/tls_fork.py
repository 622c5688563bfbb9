"""A process with a live TLS connection forks, and the child ends: ``python -m ...tls_fork TLS_ADDRESS CA_FILE``."""

from __future__ import annotations

import gc
import os
import sys
import warnings

import gearman_pool
from gearman_pool.errors import ForkedProcess
from gearman_pool.options import make_ssl_context

# Python 3.12 and later warn of a fork beside threads: that is what is tested.
warnings.simplefilter("ignore", DeprecationWarning)


def child(client: gearman_pool.GearmanClient, inherited: gearman_pool.JobFuture, own: bool) -> None:
    assert isinstance(inherited.exception(10), ForkedProcess)
    if own:
        assert client.submit("echo", b"child").result(15) == b"child"
        client.close(1)
    del client, inherited
    gc.collect()


def main(address: str, ca: str) -> None:
    client = gearman_pool.GearmanClient([address], ssl_context=make_ssl_context(ca))
    assert client.submit("echo", b"before").result(15) == b"before"
    inherited = client.submit("nobody")
    for own in (False, True) * 3:
        sys.stdout.flush()
        process = os.fork()
        if not process:
            child(client, inherited, own)
            # The interpreter's whole end, finalizers included, is part of what must not touch the parent's connection.
            sys.exit(0)
        _, status = os.waitpid(process, 0)
        assert status == 0, status
        assert client.submit("echo", b"parent").result(15) == b"parent"
    stats = client.stats()
    print("opened", stats.connections_opened, "lost", stats.connections_lost, flush=True)
    assert not inherited.done()
    client.close(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
