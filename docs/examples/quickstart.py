"""gearman_pool at work: one client, four threads, two real servers, one of which is killed half-way.

Starts two gearmand servers on free loopback ports and a worker for each (libgearman's ``gearman -w`` with ``wc -w``),
counts the words of this project's own files, and ends what it started. Run it with
``python docs/examples/quickstart.py``.
"""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

from gearman_pool import GearmanClient

ROOT = Path(__file__).resolve().parents[2]


def find_program(name: str, package: str) -> str:
    """Return a program's path, or end with the name of the package that has it."""
    path = shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")
    if path is None:
        sys.exit(f"{name} is not installed; on Debian and Ubuntu: apt-get install {package}")
    return path


def start(stack: ExitStack, *command: str) -> subprocess.Popen[bytes]:
    """Start a program that ends with this one."""
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def end() -> None:
        process.kill()
        process.wait()

    stack.callback(end)
    return process


def free_port() -> int:
    """Return a loopback port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def main() -> int:
    """Run the demonstration and return the exit status."""
    gearmand = find_program("gearmand", "gearman-job-server")
    gearman = find_program("gearman", "gearman-tools")
    files = sorted((ROOT / "gearman_pool").rglob("*.py"))[:60]
    with ExitStack() as stack:
        servers, processes, workers = [], [], []
        for _ in range(2):
            port = free_port()
            processes.append(start(stack, gearmand, "-p", str(port), "-L", "127.0.0.1"))
            servers.append(f"127.0.0.1:{port}")
        client = stack.enter_context(GearmanClient(servers, max_retries=2, reconnect_backoff=(0.05, 1.0)))
        deadline = time.monotonic() + 10
        while None in client.ping(timeout=1).values():
            if time.monotonic() > deadline:
                sys.exit(f"the servers did not come up: {client!r}")
        for server in servers:
            port = server.rpartition(":")[2]
            workers.append(start(stack, gearman, "-w", "-h", "127.0.0.1", "-p", port, "-f", "words", "--", "wc", "-w"))
        print(f"two servers and two workers are up: {client!r}")

        reference = client.submit_background("later", b"nobody does this yet").result(timeout=5)
        print(f"a background job: {reference}")
        print(f"its status: {client.status(reference)}")

        done = 0

        def count(path: Path) -> int:
            nonlocal done
            words = int(client.submit("words", path.read_bytes(), timeout=30).result())
            done += 1
            if sys.stdout.isatty():
                print(f"\r{done:3} of {len(files)} files counted", end="", flush=True)
            return words

        started = time.monotonic()
        with ThreadPoolExecutor(4) as threads:
            half = len(files) // 2
            first = list(threads.map(count, files[:half]))
            print(f"\nkilling the server {servers[0]}")
            # Its worker first: it would look for its server without a pause.
            workers[0].kill()
            processes[0].send_signal(signal.SIGKILL)
            second = list(threads.map(count, files[half:]))
        seconds = time.monotonic() - started
        words = sum(first) + sum(second)
        stats = client.stats()
        print(f"\n{words:,} words in {len(files)} files, in {seconds:.2f} s, over one client and four threads")
        for server in stats.servers:
            print(f"  {server.address}: {server.state}{f' ({server.last_error})' if server.last_error else ''}")
        print(f"jobs: {stats.jobs_completed} complete, {stats.jobs_retried} sent again, {stats.jobs_lost} lost")
        expected = sum(len(path.read_bytes().split()) for path in files)
        return 0 if words == expected and stats.jobs_lost == 0 else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
