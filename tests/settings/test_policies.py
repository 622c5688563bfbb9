"""How a server is chosen."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass

import pytest

from gearman_pool.settings.policies import POLICIES, make_policy


@dataclass(frozen=True)
class _Server:
    key: bytes
    pending: int = 0


SERVERS = [_Server(b"a:4730", 5), _Server(b"b:4730", 2), _Server(b"c:4730", 9)]
KEYS = [f"key-{number}".encode() for number in range(3000)]


def test_failover_takes_the_first_that_is_up():
    choose = make_policy("failover")
    assert choose(SERVERS, None) is SERVERS[0]
    assert choose(SERVERS[1:], None) is SERVERS[1]


def test_round_robin_takes_each_in_turn():
    choose = make_policy("round_robin")
    assert [choose(SERVERS, None) for _ in range(6)] == SERVERS * 2


def test_round_robin_of_two_clients_is_independent():
    first, second = make_policy("round_robin"), make_policy("round_robin")
    first(SERVERS, None)
    assert second(SERVERS, None) is SERVERS[0]


def test_least_pending_takes_the_one_with_the_fewest_in_flight():
    assert make_policy("least_pending")(SERVERS, None) is SERVERS[1]


@pytest.mark.parametrize("name", ["random", "unique"])
def test_jobs_without_a_key_are_spread(name):
    choose = make_policy(name)
    counts = Counter(choose(SERVERS, None).key for _ in range(3000))
    assert all(800 < counts[server.key] < 1200 for server in SERVERS)


@pytest.mark.parametrize("name", sorted(POLICIES))
def test_random_numbers_of_the_program_do_not_depend_on_the_jobs_it_submits(name):
    before = random.getstate()
    make_policy(name)(SERVERS, None)
    assert random.getstate() == before


@pytest.mark.parametrize("name", ["random", "unique"])
def test_clients_that_start_together_do_not_choose_alike(name):
    """Children of one process that begin with equal random numbers would all choose the same server at a time."""
    first, second = make_policy(name), make_policy(name)
    assert [first(SERVERS, None) for _ in range(200)] != [second(SERVERS, None) for _ in range(200)]


def test_equal_uniques_meet_on_one_server_whatever_the_order_of_the_list():
    choose = make_policy("unique")
    for key in KEYS[:200]:
        assert choose(SERVERS, key) is choose(SERVERS[::-1], key)


def test_uniques_are_spread_evenly():
    counts = Counter(make_policy("unique")(SERVERS, key).key for key in KEYS)
    assert all(850 < counts[server.key] < 1150 for server in SERVERS)


def test_lost_server_moves_only_its_own_uniques():
    choose = make_policy("unique")
    lost = SERVERS[1]
    rest = [server for server in SERVERS if server is not lost]
    moved = [key for key in KEYS if choose(SERVERS, key) is not choose(rest, key)]
    assert moved
    assert all(choose(SERVERS, key) is lost for key in moved)


def test_callable_is_its_own_policy():
    def last(servers, key):
        return servers[-1]

    assert make_policy(last) is last


def test_there_are_five_policies():
    assert set(POLICIES) == {"random", "round_robin", "failover", "least_pending", "unique"}
