"""Mutations of the pool: servers, their health and backoff, the choice of a server, and the budget."""

from __future__ import annotations

from .mutation import Mutation

POOL = "gearman_pool/transport/pool.py"
RETURNING = "tests/faults/test_returning_server.py"
CONNECTIONS = "tests/faults/test_connections_of_one_server.py"

MUTATIONS = [
    # ---- health ----------------------------------------------------------------------------------------------------
    Mutation(
        name="suspect-connection-is-used-like-others",
        file=POOL,
        old="            server.up = tuple([c for c in usable if not c.suspect] or usable)\n",
        new="            server.up = tuple(usable)\n",
        tests=(f"{CONNECTIONS}::test_new_jobs_avoid_a_connection_that_has_missed_one_check_until_it_answers",),
        breaks="New jobs go on a connection that has frozen, though another one to the same server works.",
    ),
    Mutation(
        name="suspect-server-is-used-like-others",
        file=POOL,
        old="        self.available = tuple([server for server in up if not server.up[0].suspect] or up)\n",
        new="        self.available = tuple(up)\n",
        tests=("tests/faults/test_frozen_server.py::test_new_jobs_avoid_a_server_that_has_missed_one_check",),
        breaks="New jobs go to a server that has frozen, until it is given up, though others work.",
    ),
    Mutation(
        name="suspicion-is-told-to-nobody",
        file=POOL,
        old="            connection.suspect = True\n            self._publish()\n",
        new="            connection.suspect = True\n",
        tests=(
            "tests/faults/test_frozen_server.py::test_new_jobs_avoid_a_server_that_has_missed_one_check",
            f"{CONNECTIONS}::test_new_jobs_avoid_a_connection_that_has_missed_one_check_until_it_answers",
        ),
        breaks="New jobs go to a server that has frozen, until it is given up, though others work.",
    ),
    Mutation(
        name="suspicion-is-for-ever",
        file=POOL,
        old="        elif connection.suspect:\n            connection.suspect = False\n            self._publish()\n",
        new="",
        tests=(f"{CONNECTIONS}::test_new_jobs_avoid_a_connection_that_has_missed_one_check_until_it_answers",),
        breaks="A connection that was slow once gets no jobs any more, as long as it lives.",
    ),
    Mutation(
        name="answered-check-leaves-its-timers",
        file=POOL,
        old="        for timer in self.timers:\n            timer.cancel()\n",
        new="",
        tests=("tests/faults/test_frozen_server.py::test_idle_client_wakes_for_its_checks_and_not_for_their_limits",),
        breaks="An idle client wakes four times for each health check, not twice.",
    ),
    # ---- the state of a server -------------------------------------------------------------------------------------
    Mutation(
        name="one-lost-connection-takes-the-server-down",
        file=POOL,
        old="            if not server.up and server.state is ServerState.UP:\n",
        new="            if server.state is ServerState.UP:\n",
        tests=(f"{CONNECTIONS}::test_server_stays_up_when_one_of_its_connections_is_lost",),
        breaks="A server is shown as down though another of its connections works.",
    ),
    Mutation(
        name="one-failed-attempt-takes-the-server-down",
        file=POOL,
        old="        if server.state is ServerState.CONNECTING:\n            server.move(ServerState.DOWN)\n",
        new="        if server.state is not ServerState.DOWN:\n            server.move(ServerState.DOWN)\n",
        tests=(f"{CONNECTIONS}::test_server_stays_up_when_a_further_connection_to_it_fails",),
        breaks="A server is shown as down though one of its connections works, because no second one can be had.",
    ),
    Mutation(
        name="one-of-several-connections-is-not-replaced",
        file=POOL,
        old="            self._retry_later(server)\n            questions = ",
        new="            if not server.up:\n                self._retry_later(server)\n            questions = ",
        tests=(
            f"{CONNECTIONS}::test_server_stays_up_when_one_of_its_connections_is_lost",
            f"{CONNECTIONS}::test_lost_connection_is_replaced_while_another_one_works",
        ),
        breaks="A server that has lost one of several connections goes on with the others for good.",
    ),
    # ---- backoff ---------------------------------------------------------------------------------------------------
    Mutation(
        name="failures-are-never-forgotten",
        file=POOL,
        old="            if self.io.now - connection.up_since >= _STABLE_AFTER:\n                server.failures = 0\n",
        new="",
        tests=(f"{RETURNING}::test_backoff_begins_anew_after_a_connection_that_has_lasted",),
        breaks="A server that failed often, long ago, is not tried again for seconds after a short interruption.",
    ),
    Mutation(
        name="failures-are-forgotten-at-once",
        file=POOL,
        old="            if self.io.now - connection.up_since >= _STABLE_AFTER:\n",
        new="            if self.io.now - connection.up_since >= 0:\n",
        tests=(f"{RETURNING}::test_backoff_goes_on_growing_while_no_connection_lasts",),
        breaks="All clients connect again and again, without a pause, to a server that drops each connection.",
    ),
    Mutation(
        name="backoff-does-not-grow",
        file=POOL,
        old="        server.failures += 1\n",
        new="",
        tests=(f"{RETURNING}::test_backoff_goes_on_growing_while_no_connection_lasts",),
        breaks="A server that is down for long is tried ten times a second by each client.",
    ),
    Mutation(
        name="backoff-without-jitter",
        file=POOL,
        old="self._random.uniform(0, min(longest, first * 2 ** min(server.failures, 32)))",
        new="min(longest, first * 2 ** min(server.failures, 32))",
        tests=(f"{RETURNING}::test_two_hundred_clients_that_lost_one_server_come_back_spread_out",),
        breaks="Clients that lost a server together all come back in the same instant.",
    ),
    Mutation(
        name="backoff-without-a-limit",
        file=POOL,
        old="self._random.uniform(0, min(longest, first * 2 ** min(server.failures, 32)))",
        new="self._random.uniform(0, first * 2 ** min(server.failures, 32))",
        tests=("tests/transport/test_pool.py::test_backoff_is_random_and_bounded",),
        breaks="A server that was down for an hour is not tried again for another.",
    ),
    Mutation(
        name="lost-server-is-given-up",
        file=POOL,
        old="            self._retry_later(server)\n            questions = ",
        new="            questions = ",
        tests=(f"{RETURNING}::test_server_that_is_restarted_twenty_times_is_used_again_each_time",),
        breaks="A server that was lost is never used again.",
    ),
    Mutation(
        name="server-that-failed-once-is-given-up",
        file=POOL,
        old="        self._retry_later(server)\n        retry_in = ",
        new="        retry_in = ",
        tests=(
            "tests/faults/test_hanging_connect.py::test_hanging_connect_ends_with_connect_timeout_and_is_tried_again",
            f"{RETURNING}::test_server_that_is_restarted_twenty_times_is_used_again_each_time",
        ),
        breaks="A server that was down when the client started is never used.",
    ),
]
