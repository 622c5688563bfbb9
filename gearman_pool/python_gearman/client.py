"""python-gearman's client interface, on the same engine as the futures.

The methods, arguments and attributes are those of python-gearman 2; where its documentation and its code differ, the
documentation wins here. What drove its sockets (pollers, command handlers) has no counterpart: the I/O thread does
that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from ..connection import GearmanConnection
from ..connection_manager import GearmanConnectionManager
from ..constants import JOB_UNKNOWN, PRIORITY_NONE
from ..errors import (
    ConnectionLost,
    GearmanError,
    InvalidClientState,
    ServerUnavailable,
)
from ..jobs.flight import is_accepted
from ..jobs.job import GearmanJobRequest
from ..protocol.commands import submit_command
from ..settings.addresses import ServerAddress
from .requests import (
    checked_requests,
    deadline_of,
    is_decided,
    is_ready,
    raise_refusal,
    take_back,
    time_left,
    time_limit,
)

if TYPE_CHECKING:
    from ..engine.asking import Asking
    from ..engine.client.engine import ClientEngine
    from ..engine.client.submitting import Submitting
    from ..jobs.future import JobFuture
    from ..transport.servers import Server

__all__ = ["GearmanConnection", "PythonGearmanClient"]


class PythonGearmanClient(GearmanConnectionManager):
    """python-gearman's methods, on what `GearmanClient`, which inherits them, sets up before they are called."""

    _engine: ClientEngine
    _submitting: Submitting
    _asking: Asking
    _connections: dict[ServerAddress, GearmanConnection]

    # ---- submitting ------------------------------------------------------------------------------------------------

    def submit_job(
        self,
        task: str | bytes,
        data: Any,
        unique: str | bytes | None = None,
        priority: str | None = PRIORITY_NONE,
        background: bool = False,
        wait_until_complete: bool = True,
        max_retries: int = 0,
        poll_timeout: float | None = None,
        *,
        timeout: float | None = None,
    ) -> GearmanJobRequest:
        """Submit one job and wait until it is complete, or accepted.

        Args:
            task: The task's name.
            data: The payload, for the encoder.
            unique: The job's name; made up if None.
            priority: ``PRIORITY_NONE``, ``PRIORITY_LOW`` or ``PRIORITY_HIGH``.
            background: Whether nobody waits for the result; such a job is complete when the server has accepted it.
            wait_until_complete: Whether to wait for the result, or only for the server's acceptance.
            max_retries: How often a job that the server has not yet accepted is sent again: it may then run twice.
            poll_timeout: How long to wait, in seconds; for ever if None. When it is over the request comes back with
                ``timed_out``, and the job goes on.
            timeout: The older name of ``poll_timeout``.

        Returns:
            The request. Its ``state`` is ``JOB_COMPLETE``, ``JOB_FAILED``, or ``JOB_UNKNOWN`` with
            ``connection_failed`` when the connection was lost after the job was sent.

        Raises:
            ServerUnavailable: it could be sent to no server.
            ExceededConnectionAttempts: it was sent ``max_retries`` times again and never accepted.
            ServerError: the server refused it.

        Example::

            request = client.submit_job("reverse", b"Hello World!")
            if request.complete:
                print(request.result)
        """
        job = {"task": task, "data": data, "unique": unique, "priority": priority}
        # By python-gearman's names, here and below: a subclass may have overridden the method that is called.
        requests = self.submit_multiple_jobs(
            [job],
            background=background,
            wait_until_complete=wait_until_complete,
            max_retries=max_retries,
            poll_timeout=time_limit(poll_timeout, timeout),
        )
        return requests[0]

    def submit_multiple_jobs(
        self,
        jobs_to_submit: Iterable[dict[str, Any]],
        background: bool = False,
        wait_until_complete: bool = True,
        max_retries: int = 0,
        poll_timeout: float | None = None,
        *,
        timeout: float | None = None,
    ) -> list[GearmanJobRequest]:
        """Submit a job for each dict of task, data and, if wanted, unique and priority, and wait for them.

        Args:
            jobs_to_submit: A list, tuple or set of such dicts.
            background, wait_until_complete, max_retries, poll_timeout, timeout: As for `submit_job`, for all of them.

        Returns:
            The requests, in the same order.

        Raises:
            ValueError, TypeError, EncodeError: one of them cannot be sent. None was.

        And as `submit_job`. Those of the jobs that have been sent by then go on.

        Example::

            jobs = [{"task": "resize", "data": image} for image in images]
            results = [request.result for request in client.submit_multiple_jobs(jobs, poll_timeout=30)]
        """
        if not isinstance(jobs_to_submit, (list, tuple, set)):
            raise TypeError(
                f"jobs_to_submit is a {type(jobs_to_submit).__name__}; it must be a list of dicts of task and data"
            )
        requests = [self._request_of(job, background, max_retries) for job in jobs_to_submit]
        limit = time_limit(poll_timeout, timeout)
        return self.submit_multiple_requests(requests, wait_until_complete=wait_until_complete, poll_timeout=limit)

    def submit_multiple_requests(
        self,
        job_requests: Iterable[GearmanJobRequest],
        wait_until_complete: bool = True,
        poll_timeout: float | None = None,
        *,
        timeout: float | None = None,
    ) -> list[GearmanJobRequest]:
        """Submit requests and wait for them.

        A request whose connection had failed is sent anew, with a new budget of attempts: that is your decision, for
        nobody knows whether it has run. One that timed out is still under way and only waited for; one that is complete
        comes back as it is.

        Args:
            job_requests: A list, tuple or set of requests.
            wait_until_complete, poll_timeout, timeout: As for `submit_job`, for all of them.

        Returns:
            The requests, in the same order.

        Raises:
            ValueError, TypeError, EncodeError: one of them cannot be sent. None was.

        And as `submit_job`. Those of the requests that have been sent by then go on; the others can be submitted again.

        Example::

            lost = [request for request in requests if request.connection_failed]
            client.submit_multiple_requests(lost, poll_timeout=30)
        """
        requests = checked_requests(job_requests)
        deadline = deadline_of(poll_timeout, timeout)
        # Overridden in subclasses with a second parameter of either name, so it is passed by position.
        processed = self.wait_until_jobs_accepted(requests, time_left(deadline))
        if wait_until_complete:
            processed = self.wait_until_jobs_completed(processed, time_left(deadline))
        return list(processed)

    def wait_until_jobs_accepted(
        self,
        job_requests: Iterable[GearmanJobRequest],
        poll_timeout: float | None = None,
        *,
        timeout: float | None = None,
    ) -> list[GearmanJobRequest]:
        """Submit those that are not under way, and wait until the servers have accepted all.

        Args:
            job_requests: A list, tuple or set of requests.
            poll_timeout: How long to wait, in seconds; for ever if None. A request that is not accepted then has
                ``timed_out``, and is still under way.
            timeout: The older name of ``poll_timeout``.

        Raises as `submit_multiple_requests`.

        Example::

            client.wait_until_jobs_accepted(requests, poll_timeout=5)
            handles = [request.job.handle for request in requests]
        """
        requests = checked_requests(job_requests)
        deadline = deadline_of(poll_timeout, timeout)
        self._send_all([request for request in requests if request._future is None and request.state == JOB_UNKNOWN])
        waited = []
        for request in requests:
            request.timed_out = False
            waited.append((request, request._future or request._unaccepted))
        for request, future in waited:
            if future is not None:
                request.timed_out = not future.watch(partial(is_decided, request, future), time_left(deadline))
        for request, future in waited:
            if not request.timed_out:
                raise_refusal(request, future)
        return requests

    def wait_until_jobs_completed(
        self,
        job_requests: Iterable[GearmanJobRequest],
        poll_timeout: float | None = None,
        *,
        timeout: float | None = None,
    ) -> list[GearmanJobRequest]:
        """Wait until all requests are complete, failed or lost, or the time is up. Nothing is sent.

        Args:
            job_requests: A list, tuple or set of requests.
            poll_timeout: How long to wait, in seconds; for ever if None. A request that is not complete then has
                ``timed_out``, and goes on.
            timeout: The older name of ``poll_timeout``.

        Raises:
            GearmanError: one was refused after the wait for its acceptance had timed out; as `submit_job`.

        Example::

            for request in client.wait_until_jobs_completed(requests, poll_timeout=60):
                print(request.job.unique, request.state, request.timed_out)
        """
        requests = checked_requests(job_requests)
        deadline = deadline_of(poll_timeout, timeout)
        waited = []
        for request in requests:
            request.timed_out = False
            future = request._future or request._unaccepted
            if future is not None:
                request.timed_out = not future.watch(future.done, time_left(deadline))
            waited.append((request, future))
        for request, future in waited:
            if not request.timed_out:
                raise_refusal(request, future)
        return requests

    def send_job_request(self, current_request: GearmanJobRequest) -> GearmanJobRequest:
        """Send one request without waiting for anything but room, for ``submit_timeout`` at the most.

        Override it to do something for each request that is submitted.

        Raises:
            InvalidClientState: it is under way, or complete.
            ValueError, TypeError, EncodeError: it cannot be sent.
            ClientSaturated: there was no room. The request can be sent again.
            ClientClosed: the client is closed.

        Example::

            request = GearmanJobRequest(GearmanJob(None, None, "resize", "image-7", image))
            client.wait_until_jobs_completed([client.send_job_request(request)])
        """
        if current_request.state != JOB_UNKNOWN or not (current_request._future is None or is_ready(current_request)):
            raise InvalidClientState(
                f"{current_request!r} is {current_request.state}; only a new or a lost request can be sent"
            )
        try:
            future = current_request._future or self._prepare(current_request)
            # What it had of a server that lost it says nothing of this submission.
            current_request.connection_failed = False
            current_request.job.handle = current_request.job.connection = None
            if self._chooses:
                server = self._chosen(current_request)
                # An override may look at the request, and change how urgent it is.
                future.send_to(server, submit_command(current_request.background, current_request.priority))
            self._submitting.send(future, None)
            current_request._unaccepted = future
        except BaseException:  # Ctrl+C too: the request must be as it was
            take_back(current_request)
            raise
        return current_request

    def _send_all(self, requests: list[GearmanJobRequest]) -> None:
        """Send requests, but only if all of them can be sent."""
        try:
            for request in requests:
                if request._future is None:
                    self._prepare(request)
            overridden = type(self).send_job_request is not PythonGearmanClient.send_job_request
            for request in requests:
                if is_ready(request):
                    if overridden:
                        # The override may change the job, which is then encoded anew.
                        take_back(request)
                    request.connection_attempts = 0
                    self.send_job_request(request)
        finally:
            for request in requests:
                take_back(request)

    @property
    def _chooses(self) -> bool:
        return type(self).establish_request_connection is not PythonGearmanClient.establish_request_connection

    def _chosen(self, request: GearmanJobRequest) -> Server:
        connection: object = self.establish_request_connection(request)
        if not isinstance(connection, GearmanConnection):
            kind = type(connection).__name__
            raise TypeError(f"establish_request_connection returned {kind}; it must return one of connection_list")
        return self._asking.server(str(connection.address))

    def _prepare(self, request: GearmanJobRequest) -> JobFuture:
        """Make a request ready to be sent: all that can be refused is refused here."""
        return self._submitting.future(self, request, request._unique_given, False)

    def establish_request_connection(self, current_request: GearmanJobRequest) -> GearmanConnection:
        """Return the server that the policy gives this request, once it has answered; override it to choose another.

        An override is called once for each submission, and the request then waits for that server and no other, also
        where it is sent again. It must return one of ``connection_list``. Without an override no call of this interface
        needs it: the pool chooses.

        Raises:
            ServerUnavailable: none answered within ``submit_timeout``.

        Example::

            class Pinned(GearmanClient):
                def establish_request_connection(self, current_request):
                    return self.connection_list[hash(current_request.job.task) % len(self.connection_list)]
        """
        unique = current_request.job.unique
        key = unique.encode("utf-8", "surrogateescape") if isinstance(unique, str) else unique
        timeout = self._engine.options.submit_timeout
        answer = self._asking.who_answers(key, timeout)
        try:
            address = answer.wait(timeout)
        except (ConnectionLost, TimeoutError) as error:
            raise self._engine.pool.unavailable("no server answered") from error
        return self._connection(address)

    def _request_of(self, job: dict[str, Any], background: bool, max_retries: int) -> GearmanJobRequest:
        unknown = set(job) - {"task", "data", "unique", "priority"}
        missing = {"task", "data"} - set(job)
        if unknown or missing:
            raise TypeError(
                f"a job is a dict of task, data and, if wanted, unique and priority; this one has {sorted(job)}"
            )
        if isinstance(max_retries, bool) or not isinstance(max_retries, int) or max_retries < 0:
            raise ValueError(f"max_retries is {max_retries!r}; it must be a whole number of 0 or more")
        unique = job.get("unique")
        gearman_job = self.job_class(None, None, job["task"], unique or self._engine.uniques.new(), job["data"])
        request = self.job_request_class(gearman_job, job.get("priority"), background, max_retries + 1)
        request._unique_given = bool(unique)
        return request

    # ---- status ----------------------------------------------------------------------------------------------------

    def get_job_status(
        self, current_request: GearmanJobRequest, poll_timeout: float | None = None, *, timeout: float | None = None
    ) -> GearmanJobRequest:
        """Ask the job's server how it stands, and put the answer into ``status``.

        A request that was made by hand from a connection and a handle works too; what data came for its job since the
        last such question is then in its ``data_updates``.

        Args:
            current_request: An accepted request.
            poll_timeout: How long to wait for the answer, in seconds; ``submit_timeout`` if None. When it is over the
                request comes back with ``timed_out``, if there is a connection to the server.
            timeout: The older name of ``poll_timeout``.

        Raises:
            InvalidClientState: it has no handle: no server has accepted it.
            ServerUnavailable: there was no connection to the server in all that time.
            ConnectionLost: the connection was lost before the answer came. Ask again.
            GearmanError: the server refused the question.

        Example::

            status = client.get_job_status(request, poll_timeout=5).status
            print(status["numerator"], "of", status["denominator"])
        """
        return self.get_job_statuses([current_request], poll_timeout=time_limit(poll_timeout, timeout))[0]

    def get_job_statuses(
        self,
        job_requests: Iterable[GearmanJobRequest],
        poll_timeout: float | None = None,
        *,
        timeout: float | None = None,
    ) -> list[GearmanJobRequest]:
        """Ask for the status of several requests at once; see `get_job_status`.

        If there is an error, it is raised when the others have their answers, or the time is up.

        Example::

            for request in client.get_job_statuses(requests, poll_timeout=5):
                print(request.job.unique, request.status["running"])
        """
        requests = checked_requests(job_requests)
        deadline = deadline_of(poll_timeout, timeout)
        for request in requests:
            job = request.gearman_job
            if job.handle is None or job.connection is None:
                raise InvalidClientState(f"{request!r} has no handle: no server has accepted it yet")
            remaining = time_left(deadline)
            limit = self._engine.options.submit_timeout if remaining is None else remaining
            # A foreground job that is not in flight here any more is not known there either, but its handle may be
            # somebody else's by now; its unique is nobody else's.
            unique = None if is_accepted(request) else job.unique
            server = self._asking.server(str(job.connection.address))
            request._status_promise = self._asking.status(server, job.handle, unique, limit, request)
        return self.wait_until_job_statuses_received(requests, time_left(deadline))

    def wait_until_job_statuses_received(
        self,
        job_requests: Iterable[GearmanJobRequest],
        poll_timeout: float | None = None,
        *,
        timeout: float | None = None,
    ) -> list[GearmanJobRequest]:
        """Wait for the answers to questions that are on their way, after `get_job_statuses` has timed out.

        Args:
            poll_timeout: How long to wait, in seconds; ``submit_timeout`` for each if None.
            timeout: The older name of ``poll_timeout``.

        Raises as `get_job_status`.

        Example::

            late = [request for request in client.get_job_statuses(requests, poll_timeout=0.1) if request.timed_out]
            client.wait_until_job_statuses_received(late, poll_timeout=5)
        """
        requests = checked_requests(job_requests)
        deadline = deadline_of(poll_timeout, timeout)
        failure: GearmanError | None = None
        for request in requests:
            promise = request._status_promise
            if promise is None:
                continue
            remaining = time_left(deadline)
            request.timed_out = False
            try:
                promise.wait(self._engine.options.submit_timeout if remaining is None else remaining)
            except TimeoutError as error:
                if not promise.done and self._is_connected(request.job.connection.address):
                    request.timed_out = True
                    continue
                failure = failure or self._unreachable(request, error)
            except ServerUnavailable as error:
                failure = failure or self._unreachable(request, error)
            except GearmanError as error:
                failure = failure or error
            request._status_promise = None
        if failure is not None:
            raise failure
        return requests

    def _unreachable(self, request: GearmanJobRequest, error: Exception) -> ServerUnavailable:
        """Return one error for both: the pool's time limit for the question ends as that for the answer does."""
        address = str(request.job.connection.address)
        why = self._engine.pool.unavailable().servers.get(address, str(error))
        unavailable = ServerUnavailable(
            f"{address} could not be reached in time: {why}", servers={address: why}, server=address
        )
        unavailable.__cause__ = error
        return unavailable

    # ---- connections -----------------------------------------------------------------------------------------------

    @property
    def connection_list(self) -> list[GearmanConnection]:
        """The servers, in the order of the configuration."""
        return [self._connection(server.address) for server in self._pool_servers()]

    def _pool_servers(self) -> list[Server]:
        return list(self._engine.pool.wanted.values())

    def _connection(self, address: ServerAddress) -> GearmanConnection:
        found = self._connections.get(address)
        if found is None:
            found = self._connections.setdefault(address, GearmanConnection.of(self, address))
        return found

    def establish_connection(self, current_connection: GearmanConnection) -> GearmanConnection:
        """Wait until a server of this client answers, for ``submit_timeout`` at the most, and return it.

        No call of this interface needs that: connecting is the I/O thread's work.

        Raises:
            ServerUnavailable: it does not.
            ValueError: it is not a server of this client.

        Example::

            client.establish_connection(client.connection_list[0])
        """
        address = str(current_connection.address)
        timeout = self._engine.options.submit_timeout
        try:
            self._asking.ping(self._asking.server(address), timeout).wait(timeout)
        except (ConnectionLost, TimeoutError) as error:
            raise self._engine.pool.unavailable(f"{address} does not answer") from error
        return current_connection

    def poll_connections_until_stopped(
        self,
        submitted_connections: Sequence[GearmanConnection],
        callback_fxn: Callable[[bool], object],
        timeout: float | None = None,
    ) -> bool:
        """Call ``callback_fxn`` after each activity of the servers, until it returns something false or the time is up.

        It is called once at the start, with False. The connections are those of ``connection_list``; the argument is
        there for programs that pass it.

        Args:
            timeout: How long, in seconds; for ever if None.

        Returns:
            Whether anything has come from a server.

        Example::

            def go_on(any_activity):
                return not all(request.complete for request in requests)

            client.poll_connections_until_stopped(client.connection_list, go_on, timeout=60)
        """
        known = set(self.connection_list)
        for connection in submitted_connections:
            if connection not in known:
                raise ValueError(f"{connection!r} is not one of this client's connections")
        deadline = deadline_of(timeout, None)
        self._engine.start()
        any_activity = False
        activity = False
        while True:
            # Asked for before the callback looks, so that nothing that comes in between is missed.
            waiter = self._engine.expect_activity()
            try:
                if not callback_fxn(activity):
                    return any_activity
                remaining = time_left(deadline)
                if remaining is not None and remaining <= 0:
                    return any_activity
                activity = waiter.acquire(timeout=-1 if remaining is None else remaining)
            finally:
                self._engine.ignore_activity(waiter)
            any_activity = any_activity or activity
