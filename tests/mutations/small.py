"""Mutations of small things: refused requests, and the child of a fork."""

from __future__ import annotations

from .mutation import Mutation

SIGNALS = "gearman_pool/engine/worker/stop_signals.py"
DESCRIPTORS = "tests/faults/test_fork.py::test_child_keeps_no_descriptor_of_the_parents"
SERVER_TESTS = "tests/transport/test_servers.py"
PYTHON_GEARMAN = "tests/python_gearman/test_failures.py"

MUTATIONS = [
    # ---- a request that was refused --------------------------------------------------------------------------------
    Mutation(
        name="refused-job-is-kept-until-the-garbage-collector-comes",
        file="gearman_pool/jobs/flight.py",
        old="        if self.request.state == JOB_UNKNOWN:\n            self.request._future = None\n",
        new="",
        tests=("tests/faults/test_saturation.py::test_refused_job_is_kept_by_nobody",),
        breaks="Payloads that were refused because there is no room stay in memory.",
    ),
    Mutation(
        name="request-that-was-refused-alone-stays-bound",
        file="gearman_pool/python_gearman/client.py",
        old="            take_back(current_request)\n            raise\n",
        new="            raise\n",
        tests=(f"{PYTHON_GEARMAN}::test_request_that_could_not_be_sent_alone_can_be_submitted_again",),
        breaks="A request that send_job_request() refused is never sent, though it is submitted again.",
    ),
    Mutation(
        name="requests-of-a-batch-that-was-refused-stay-bound",
        file="gearman_pool/python_gearman/client.py",
        old="            for request in requests:\n                take_back(request)\n",
        new="            pass\n",
        tests=(
            f"{PYTHON_GEARMAN}::test_requests_of_a_batch_with_a_bad_one_can_be_submitted_again",
            f"{PYTHON_GEARMAN}::test_requests_that_there_was_no_room_for_can_be_submitted_again",
        ),
        breaks="Requests that were not sent because another one of the batch was refused can never be sent.",
    ),
    Mutation(
        name="request-stays-bound-when-it-is-lost",
        file="gearman_pool/jobs/flight.py",
        old="the request again at once.\n        request._future = None\n",
        new="the request again at once.\n",
        tests=(
            f"{PYTHON_GEARMAN}::test_lost_request_can_be_submitted_again_as_soon_as_the_wait_for_it_ends",
            f"{PYTHON_GEARMAN}::test_lost_request_that_no_server_takes_again_raises_as_a_fresh_one_does",
        ),
        breaks="A request that was lost, or that no server could be had for, cannot be submitted again.",
    ),
    # ---- the child of a fork ---------------------------------------------------------------------------------------
    Mutation(
        name="child-keeps-the-waker-and-the-selector",
        file="gearman_pool/transport/io_thread.py",
        old="        self.sleeping = 0\n        self._close_descriptors()\n",
        new="        self.sleeping = 0\n",
        tests=(DESCRIPTORS,),
        breaks="Each generation of forked processes has three descriptors more for each client.",
    ),
    Mutation(
        name="child-keeps-the-waker",
        file="gearman_pool/transport/io_thread.py",
        old="        for end in waker or ():\n            end.close()\n",
        new="        self._kept = waker\n",
        tests=(DESCRIPTORS,),
        breaks="Each generation of forked processes has two descriptors more for each client.",
    ),
    Mutation(
        name="child-keeps-the-connection",
        file="gearman_pool/transport/connection.py",
        old="        with contextlib.suppress(OSError):\n            os.close(self._sock.detach())\n",
        new="",
        tests=(DESCRIPTORS,),
        breaks="The server does not see that a client has ended as long as a child of its process lives.",
    ),
    Mutation(
        name="childs-signals-go-to-a-descriptor-of-the-parents",
        file=SIGNALS,
        old="            signal.set_wakeup_fd(-1)\n            self._restore()\n\n    def _restore",
        new="            self._restore()\n\n    def _restore",
        tests=(f"{DESCRIPTORS}[worker]",),
        breaks="Signals of a child that a task has forked are written into whatever file has the descriptor by then.",
    ),
    Mutation(
        name="child-keeps-the-pipe-for-signals",
        file=SIGNALS,
        old="            signal.set_wakeup_fd(-1)\n            self._restore()\n\n    def _restore",
        new="            signal.set_wakeup_fd(-1)\n\n    def _restore",
        tests=(f"{DESCRIPTORS}[worker]",),
        breaks="A child that a task has forked keeps two descriptors, and the worker's handlers of signals.",
    ),
    Mutation(
        name="child-keeps-a-connection-in-the-making",
        file="gearman_pool/transport/servers.py",
        old="        for attempt in self._attempts:\n            attempt.close_after_fork()\n",
        new="        self._attempts.clear()\n",
        tests=(
            f"{SERVER_TESTS}::test_child_of_a_fork_keeps_no_descriptor_of_a_connection_in_the_making",
            f"{SERVER_TESTS}::test_child_of_a_fork_keeps_no_descriptor_of_a_connection_that_has_just_been_made[True]",
            f"{SERVER_TESTS}::test_child_of_a_fork_keeps_no_descriptor_of_a_connection_that_has_just_been_made[False]",
        ),
        breaks="The server does not see that a client has ended as long as a child of its process lives.",
    ),
    Mutation(
        name="child-forgets-who-came-to-a-connection-after-its-end",
        file="gearman_pool/transport/pool.py",
        old="(*self.connections, *self.lingering, *rescued)]",
        new="(*self.connections, *self.lingering)]",
        tests=(
            "tests/transport/test_pool.py::test_child_of_a_fork_knows_of_a_job_that_came_to_a_connection_just_after_its_end",
        ),
        breaks="A job that is submitted as its connection is lost, and the process forks, looks undone in the child.",
    ),
    Mutation(
        name="closed-handshake-is-told-without-advice",
        file="gearman_pool/transport/tls.py",
        old="isinstance(error, (ssl.SSLEOFError, ssl.SSLZeroReturnError))",
        new="isinstance(error, ssl.SSLEOFError)",
        tests=(
            "tests/faults/test_tls_refused.py::test_server_that_ends_the_handshake_may_speak_no_tls_however_the_end_is_called",
        ),
        breaks="With some Pythons the error of a server without TLS does not say that it may have none.",
    ),
]
