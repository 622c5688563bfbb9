"""Workers that are not ours, for jobs that the library's clients submit.

Each is a context manager, is ready for jobs when its constructor returns, and is ended by ``close()``. Those in
processes connect again when their server comes back, `RawWorker` if it is told to.
"""

from __future__ import annotations

import atexit
import functools
import os
import queue
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from typing_extensions import Self

from .gearmand import RunningServer
from .processes import ChildProcess, find_program
from .raw import (
    CAN_DO,
    CANT_DO,
    ERROR,
    GRAB_JOB_UNIQ,
    JOB_ASSIGN_UNIQ,
    NO_JOB,
    NOOP,
    PRE_SLEEP,
    SET_CLIENT_ID,
    WORK_COMPLETE,
    WORK_DATA,
    WORK_EXCEPTION,
    WORK_FAIL,
    WORK_STATUS,
    WORK_WARNING,
    Closed,
    RawConnection,
)
from .waiting import wait_until

__all__ = [
    "CWorker",
    "GearmanToolWorker",
    "PhpWorker",
    "RawJob",
    "RawWorker",
    "c_compiler",
    "php_program",
    "tool_program",
]


def _servers(servers: RunningServer | Iterable[RunningServer]) -> list[RunningServer]:
    return [servers] if isinstance(servers, RunningServer) else list(servers)


class _ProcessWorker:
    """A worker in a child process of its own."""

    def __init__(self, command: Sequence[str], servers: Sequence[RunningServer], functions: Sequence[str]) -> None:
        self.functions = list(functions)
        before = {server: {name: server.workers(name) for name in functions} for server in servers}
        self._child = ChildProcess(command)

        def able() -> bool:
            assert self._child.running, f"the worker {command[0]} ended at once; its output:\n{self._child.log()}"
            return all(s.workers(name) > count for s, counts in before.items() for name, count in counts.items())

        try:
            wait_until(able, 15.0, message=lambda: f"{command[0]} is able; its output:\n{self._child.log()}")
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """The number of the worker's process."""
        return self._child.pid

    @property
    def running(self) -> bool:
        """Whether the process lives."""
        return self._child.running

    def log(self) -> str:
        """What the worker has printed."""
        return self._child.log()

    def kill(self) -> None:
        """End it with SIGKILL, in the middle of whatever it does."""
        self._child.end()

    def send_signal(self, number: int) -> None:
        """Send it a signal, such as SIGSTOP."""
        self._child.send_signal(number)

    def close(self) -> None:
        """End it and remove what it left."""
        self._child.close()


def tool_program() -> str | None:
    """The path of libgearman's ``gearman`` tool, or None."""
    return find_program("gearman")


class GearmanToolWorker(_ProcessWorker):
    """libgearman's ``gearman -w``: runs a command for each job, data on its input, its output the result.

    ``GearmanToolWorker(server, "shout", "tr", "a-z", "A-Z")``; without a command, ``cat``. A command that exits with
    something other than 0 fails the job. While its server is down it tries again without any pause, which costs a
    whole processor: end it before the server, and use `PhpWorker` or `CWorker` where a server is to come back.
    """

    def __init__(self, server: RunningServer, function: str, *command: str) -> None:
        program = tool_program()
        if program is None:
            raise FileNotFoundError("gearman is not installed: install Debian's package gearman-tools")
        arguments = ["-w", "-f", function, "-h", server.host, "-p", str(server.port), "--", *(command or ("cat",))]
        super().__init__([program, *arguments], [server], [function])


_PHP_SCRIPT = r"""<?php
$worker = new GearmanWorker();
foreach (explode(",", $argv[1]) as $server) {
    [$host, $port] = explode(":", $server);
    $worker->addServer($host, (int) $port);
}
$prefix = $argv[2] ?? "";
$worker->setTimeout(500);
$functions = [
    "reverse" => fn ($job) => strrev($job->workload()),
    "upper" => fn ($job) => strtoupper($job->workload()),
    "sleep" => function ($job) {
        usleep(1000 * (int) $job->workload());
        return $job->workload();
    },
    "slow" => function ($job) {
        [$milliseconds, $data] = explode(":", $job->workload(), 2) + [1 => ""];
        usleep(1000 * (int) $milliseconds);
        return $data;
    },
    "fail" => function ($job) {
        $job->sendFail();
        return "";
    },
    "exception" => function ($job) {
        $job->sendException($job->workload());
        return "";
    },
    "stream" => function ($job) {
        $count = (int) $job->workload();
        for ($i = 1; $i <= $count; $i++) {
            $job->sendData("part $i");
            $job->sendStatus($i, $count);
        }
        $job->sendWarning("last");
        return "done";
    },
];
foreach ($functions as $name => $function) {
    $worker->addFunction($prefix . $name, $function);
}
while (true) {
    if (!@$worker->work() && $worker->returnCode() != GEARMAN_TIMEOUT) {
        usleep(20000);
    }
}
"""


@functools.cache
def php_program() -> str | None:
    """The path of a PHP interpreter that has the gearman extension, or None."""
    program = find_program("php")
    if program is None:
        return None
    modules = subprocess.run([program, "-m"], capture_output=True, text=True, check=False)
    return program if "gearman" in modules.stdout.split() else None


class PhpWorker(_ProcessWorker):
    """A PHP worker (php-gearman) of one server or several, with these functions, each behind ``prefix``:

    - ``reverse``, ``upper``: the data reversed, or in capitals
    - ``sleep``: waits as many milliseconds as the data says, and returns the data
    - ``slow``: data ``"milliseconds:rest"``; waits, and returns the rest
    - ``fail``: WORK_FAIL
    - ``exception``: WORK_EXCEPTION with the data
    - ``stream``: data ``n``; n times WORK_DATA ``"part i"`` and WORK_STATUS i/n, then WORK_WARNING ``"last"``, and
      the result ``"done"``
    """

    NAMES = ("reverse", "upper", "sleep", "slow", "fail", "exception", "stream")

    def __init__(self, servers: RunningServer | Iterable[RunningServer], *, prefix: str = "") -> None:
        program = php_program()
        if program is None:
            raise FileNotFoundError("PHP with gearman is missing: install Debian's packages php-cli and php-gearman")
        servers = _servers(servers)
        self._directory = tempfile.TemporaryDirectory(prefix="gearman-pool-test-")
        script = Path(self._directory.name, "worker.php")
        script.write_text(_PHP_SCRIPT)
        names = [prefix + name for name in self.NAMES]
        super().__init__([program, str(script), ",".join(s.address for s in servers), prefix], servers, names)

    def close(self) -> None:
        super().close()
        self._directory.cleanup()


_C_SOURCE = r"""
#include <libgearman/gearman.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static gearman_return_t echo(gearman_job_st *job, void *context)
{
    (void)context;
    return gearman_job_send_complete(job, gearman_job_workload(job), gearman_job_workload_size(job));
}

static gearman_return_t reverse(gearman_job_st *job, void *context)
{
    (void)context;
    const char *data = gearman_job_workload(job);
    size_t size = gearman_job_workload_size(job);
    char *result = malloc(size + 1);
    for (size_t i = 0; i < size; i++)
        result[i] = data[size - 1 - i];
    gearman_return_t rc = gearman_job_send_complete(job, result, size);
    free(result);
    return rc;
}

int main(int argc, char **argv)
{
    if (argc != 4) {
        fprintf(stderr, "usage: worker SERVERS ECHO_NAME REVERSE_NAME\n");
        return 2;
    }
    gearman_worker_st *worker = gearman_worker_create(NULL);
    gearman_worker_add_servers(worker, argv[1]);
    gearman_worker_set_timeout(worker, 500);
    gearman_worker_define_function(worker, argv[2], strlen(argv[2]), gearman_function_create(echo), 0, NULL);
    gearman_worker_define_function(worker, argv[3], strlen(argv[3]), gearman_function_create(reverse), 0, NULL);
    for (;;) {
        gearman_return_t rc = gearman_worker_work(worker);
        if (rc != GEARMAN_SUCCESS && rc != GEARMAN_TIMEOUT)
            usleep(20000);
    }
}
"""


@functools.cache
def c_compiler() -> str | None:
    """The path of a C compiler that finds libgearman's headers, or None."""
    program = find_program("gcc") or find_program("cc")
    if program is None:
        return None
    check = subprocess.run(
        [program, "-E", "-x", "c", "-"],
        input="#include <libgearman/gearman.h>\n",
        text=True,
        capture_output=True,
        check=False,
    )
    return program if check.returncode == 0 else None


@functools.cache
def _c_worker_program() -> str:
    """Compile the C worker once for each test process; the file goes with the process."""
    compiler = c_compiler()
    if compiler is None:
        raise FileNotFoundError("a compiler or libgearman is missing: install Debian's packages gcc and libgearman-dev")
    directory = tempfile.mkdtemp(prefix="gearman-pool-test-")
    owner = os.getpid()

    @atexit.register
    def remove() -> None:
        if os.getpid() == owner:
            shutil.rmtree(directory, ignore_errors=True)

    source, program = Path(directory, "worker.c"), Path(directory, "worker")
    source.write_text(_C_SOURCE)
    build = subprocess.run(
        [compiler, "-O2", "-o", str(program), str(source), "-lgearman"], capture_output=True, text=True, check=False
    )
    assert build.returncode == 0, f"the C worker does not compile:\n{build.stderr}"
    return str(program)


class CWorker(_ProcessWorker):
    """A fast worker in C on libgearman, of one server or several: ``echo`` and ``reverse``, each behind ``prefix``."""

    def __init__(self, servers: RunningServer | Iterable[RunningServer], *, prefix: str = "") -> None:
        servers = _servers(servers)
        names = [prefix + "echo", prefix + "reverse"]
        super().__init__([_c_worker_program(), ",".join(s.address for s in servers), *names], servers, names)


class RawJob:
    """A job at a `RawWorker`. Each method sends one packet at once, from any thread, in the order of the calls."""

    def __init__(self, worker: RawWorker, connection: RawConnection, packet: list[bytes]) -> None:
        handle, function, self.unique, self.data = packet
        self.handle = handle.decode()
        self.function = function.decode()
        self.worker = worker
        self.connection = connection
        self.finished = False

    def __repr__(self) -> str:
        return f"<RawJob {self.handle} {self.function} {self.data[:40]!r}>"

    def send_status(self, numerator: int, denominator: int) -> None:
        """WORK_STATUS."""
        self._send(WORK_STATUS, str(numerator).encode(), str(denominator).encode())

    def send_data(self, data: bytes) -> None:
        """WORK_DATA."""
        self._send(WORK_DATA, data)

    def send_warning(self, data: bytes) -> None:
        """WORK_WARNING."""
        self._send(WORK_WARNING, data)

    def complete(self, data: bytes = b"") -> None:
        """WORK_COMPLETE."""
        self._finish(WORK_COMPLETE, data)

    def fail(self) -> None:
        """WORK_FAIL."""
        self._finish(WORK_FAIL)

    def exception(self, data: bytes) -> None:
        """WORK_EXCEPTION."""
        self._finish(WORK_EXCEPTION, data)

    def _send(self, command: int, *arguments: bytes) -> None:
        self.worker._send(self.connection, command, self.handle.encode(), *arguments)

    def _finish(self, command: int, *arguments: bytes) -> None:
        self._send(command, *arguments)
        self.worker._job_finished(self)


class RawWorker:
    """A worker in this process that speaks the protocol on a raw socket and does exactly what the test says.

    Without a script the test takes each job with `next_job` and sends its packets itself, when it likes. With one,
    ``script(job)`` runs on the worker's thread for each job; a job that it leaves unfinished is held, and can be
    finished later from any thread. The worker takes further jobs while it holds up to ``max_jobs``.

    With ``reconnect=True`` it connects again when its connection ends. What a script raises is raised by ``close()``.
    """

    def __init__(
        self,
        server: RunningServer,
        functions: str | Sequence[str],
        script: Callable[[RawJob], object] | None = None,
        *,
        max_jobs: int = 1_000_000,
        reconnect: bool = False,
        client_id: str = "raw-worker",
    ) -> None:
        self.server = server
        self.functions = [functions] if isinstance(functions, str) else list(functions)
        self.errors: list[tuple[str, str]] = []
        """What the server answered with ERROR: (code, text)."""
        self.taken: list[RawJob] = []
        """Every job that was assigned, in order."""
        self._script = script
        self._max_jobs = max_jobs
        self._reconnect = reconnect
        self._client_id = client_id
        self._jobs: queue.SimpleQueue[RawJob] = queue.SimpleQueue()
        # Guards the connection's outgoing bytes, _held and _asking.
        self._lock = threading.Lock()
        self._connection: RawConnection | None = None
        self._held = 0
        self._asking = False
        self._closed = threading.Event()
        self._failure: BaseException | None = None
        self._connect()
        self._thread = threading.Thread(target=self._run, name=f"raw-worker-{self.functions[0]}", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def next_job(self, timeout: float = 10.0) -> RawJob:
        """The next job that this worker was given (without a script)."""
        try:
            return self._jobs.get(timeout=timeout)
        except queue.Empty:
            raise AssertionError(f"no job for {self.functions} within {timeout:g} s; errors: {self.errors}") from None

    def next_jobs(self, count: int, timeout: float = 10.0) -> list[RawJob]:
        """The next ``count`` jobs."""
        return [self.next_job(timeout) for _ in range(count)]

    def unregister(self, function: str) -> None:
        """CANT_DO of a function."""
        connection = self._connection
        assert connection is not None
        self._send(connection, CANT_DO, function.encode())

    def disconnect(self) -> None:
        """Cut the connection at once, whatever jobs are held: the server queues them again."""
        connection = self._connection
        if connection is not None:
            connection.close()

    def close(self) -> None:
        """End the worker; raises what its script raised."""
        self._closed.set()
        self.disconnect()
        self._thread.join(10.0)
        assert not self._thread.is_alive(), "the raw worker's script does not return"
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise AssertionError(f"the script of the raw worker raised {failure!r}") from failure

    def _connect(self) -> None:
        connection = self.server.connect()
        try:
            connection.send(SET_CLIENT_ID, self._client_id.encode())
            for function in self.functions:
                connection.send(CAN_DO, function.encode())
            # The answer to a request behind them says that the abilities are known.
            connection.send(GRAB_JOB_UNIQ)
            first = connection.receive()
            connection.sock.settimeout(None)
        except BaseException:
            connection.close()
            raise
        with self._lock:
            self._connection = connection
            self._held = 0
            self._asking = True
        self._first = first

    def _run(self) -> None:
        try:
            while not self._closed.is_set():
                connection = self._connection
                assert connection is not None
                try:
                    self._handle(connection, self._first.command, self._first.body)
                    while True:
                        packet = connection.receive()
                        self._handle(connection, packet.command, packet.body)
                except Closed:
                    connection.close()
                if not self._reconnect:
                    return
                while not self._closed.wait(0.02):
                    try:
                        self._connect()
                    except (OSError, Closed):
                        continue
                    break
        except BaseException as error:
            self._failure = error
        finally:
            # A close() that came between two connections saw only the older one.
            self.disconnect()

    def _handle(self, connection: RawConnection, command: int, body: bytes) -> None:
        if command == JOB_ASSIGN_UNIQ:
            job = RawJob(self, connection, body.split(b"\0", 3))
            with self._lock:
                self._held += 1
                self._asking = False
            self.taken.append(job)
            if self._script is None:
                self._jobs.put(job)
            else:
                self._script(job)
            self._ask()
        elif command == NO_JOB:
            self._send(connection, PRE_SLEEP)
        elif command == NOOP:
            self._send(connection, GRAB_JOB_UNIQ)
        elif command == ERROR:
            code, _, text = body.partition(b"\0")
            self.errors.append((code.decode(), text.decode()))
        else:
            raise AssertionError(f"the server sent command {command} to a worker")

    def _job_finished(self, job: RawJob) -> None:
        with self._lock:
            # Sending a second final packet is a fault that tests cause on purpose.
            if job.finished or job.connection is not self._connection:
                return
            job.finished = True
            self._held -= 1
        self._ask()

    def _ask(self) -> None:
        with self._lock:
            if self._asking or self._held >= self._max_jobs or self._connection is None:
                return
            self._asking = True
            connection = self._connection
        self._send(connection, GRAB_JOB_UNIQ)

    def _send(self, connection: RawConnection, command: int, *arguments: bytes) -> None:
        with self._lock:
            try:
                connection.send(command, *arguments)
            except OSError:
                # The connection is gone: the reader sees its end, and the server's side is what the test looks at.
                pass
