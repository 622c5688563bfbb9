"""Payloads of all sizes through a socket that takes little at a time, and small jobs beside large ones."""

from __future__ import annotations

import json
import threading

from gearman_pool import GearmanClient, GearmanWorker

from ..support.figures import figure, latencies, percentile
from ..support.outcomes import wait_up
from ..support.processes import run_program
from ..support.running import running

# In a process of its own, because it changes the switch interval. Every sending thread is stopped in the middle again
# and again, by the interpreter and by the kernel.
_NARROW = """
import json, os, random, socket, sys, threading, time
from gearman_pool import GearmanClient
from gearman_pool.errors import GearmanError
from gearman_pool.transport import connector

plain = connector._set_options

def narrow(sock):
    plain(sock)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)

connector._set_options = narrow
sys.setswitchinterval(1e-5)
client = GearmanClient([sys.argv[1]], health_check_timeout=20)
end = time.monotonic() + float(sys.argv[2])
wrong, errors, sizes = [], [], []

def call(number):
    chooser = random.Random(number)
    while time.monotonic() < end or len(sizes) < 200:
        size = 1 if chooser.random() < 0.3 else int(10 ** chooser.uniform(0, 5.48))
        payload = os.urandom(min(size, 64)) * (size // 64 + 1)
        try:
            if client.submit("echo", payload[:size]).result(40) != payload[:size]:
                wrong.append(size)
        except (GearmanError, TimeoutError) as error:
            errors.append(repr(error))
            return
        sizes.append(size)

threads = [threading.Thread(target=call, args=(number,)) for number in range(16)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
stats = client.stats()
client.close()
print(json.dumps([len(sizes), max(sizes), wrong, errors, stats.connections_lost, stats.in_flight]))
"""


def test_payloads_of_all_sizes_through_a_narrow_socket_reach_whom_they_belong_to(gearmand, c_worker):
    ended = run_program(["-c", _NARROW, gearmand.address, "2.0"], 55)
    assert ended.code == 0, ended.errors
    count, largest, *rest = json.loads(ended.output)
    figure(f"{count} echoes from 16 threads, of 1 to {largest} bytes, through a send buffer of 4 kB: all right")
    assert count >= 200
    assert largest > 100_000
    assert rest == [[], [], 0, 0]


def test_small_jobs_beside_large_ones_wait_for_the_bytes_before_them_and_for_nothing_else(gearmand, c_worker):
    # A worker of their own, so that small jobs wait for the connection and not for the worker; and not libgearman's,
    # which takes 5 seconds for 8 MiB.
    worker = GearmanWorker([gearmand.address])
    worker.register_task("large-echo", lambda job: job.data)
    large = bytes(8 * 1024 * 1024)
    stop = threading.Event()
    with running(worker), GearmanClient([gearmand.address]) as client, GearmanClient([gearmand.address]) as bulk:
        wait_up(client)
        wait_up(bulk)
        latencies(client, 100)
        normal = percentile(latencies(client, 200), 99)

        def beside(other: GearmanClient) -> float:
            stop.clear()
            sent = threading.Event()

            def send() -> None:
                while not stop.is_set():
                    future = other.submit("large-echo", large)
                    sent.set()
                    assert len(future.result(50)) == len(large)

            thread = threading.Thread(target=send)
            thread.start()
            try:
                assert sent.wait(20)
                return percentile(latencies(client, 200), 99)
            finally:
                stop.set()
                thread.join(50)

        same, own = beside(client), beside(bulk)
    figure(
        f"p99 of small jobs beside echoes of 8 MiB: {same * 1e3:.1f} ms on the same connection, {own * 1e3:.1f} ms if "
        f"the large ones have a client of their own, {normal * 1e3:.2f} ms alone"
    )
    # An echo of 8 MiB takes some 100 ms; who waited for the end of all of them would wait as long as this test sends.
    assert same < 3
    assert own < 3
