"""Options: what is taken, what is refused, and what the refusal says."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gearman_pool.encoders import BytesEncoder, JSONEncoder
from gearman_pool.events import Listener
from gearman_pool.options import (
    ClientOptions,
    ClientOptionsDict,
)
from gearman_pool.protocol.limits import MAX_TASK_BYTES
from gearman_pool.settings.checks import LONGEST_DURATION
from gearman_pool.settings.policies import POLICIES

DURATIONS = ["connect_timeout", "submit_timeout", "health_check_interval", "health_check_timeout", "lost_job_check"]
COUNTS = ["max_retries", "connections_per_server", "max_in_flight", "max_outbound_bytes", "max_packet_size"]


def test_defaults_are_the_documented_ones() -> None:
    assert dataclasses.asdict(ClientOptions()) == {
        "connect_timeout": 5.0,
        "submit_timeout": 5.0,
        "health_check_interval": 5.0,
        "health_check_timeout": 3.0,
        "max_retries": 0,
        "policy": "random",
        "connections_per_server": 1,
        "max_in_flight": 10_000,
        "max_outbound_bytes": 64 * 1024 * 1024,
        "max_packet_size": 128 * 1024 * 1024,
        "reconnect_backoff": (0.1, 10.0),
        "lost_job_check": 30.0,
        "prefix": "",
        "ssl_context": None,
        "data_encoder": None,
        "listeners": (),
        "name": None,
    }


def test_keyword_arguments_are_typed_for_every_option_and_no_other() -> None:
    assert tuple(ClientOptionsDict.__annotations__) == ClientOptions.field_names()
    types = {name: hint.__forward_arg__ for name, hint in ClientOptionsDict.__annotations__.items()}
    assert types == {option.name: option.type for option in dataclasses.fields(ClientOptions)}


@pytest.mark.parametrize("name", DURATIONS)
@pytest.mark.parametrize("value", [0, -1, 0.0, float("nan"), float("inf"), LONGEST_DURATION * 2, 10**400])
def test_duration_out_of_range_is_refused_by_its_name(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=name):
        ClientOptions(**{name: value})


@pytest.mark.parametrize("name", DURATIONS + COUNTS)
@pytest.mark.parametrize("value", [None, "5", True, [1]])
def test_number_of_the_wrong_type_is_refused_by_its_name(name: str, value: Any) -> None:
    with pytest.raises(TypeError, match=name):
        ClientOptions(**{name: value})


@pytest.mark.parametrize("name", COUNTS)
def test_count_out_of_range_is_refused_by_its_name(name: str) -> None:
    least = 0 if name == "max_retries" else 1
    lowest: dict[str, Any] = {name: least}
    assert getattr(ClientOptions(**lowest), name) == least
    below: dict[str, Any] = {name: least - 1}
    with pytest.raises(ValueError, match=name):
        ClientOptions(**below)


@pytest.mark.parametrize("name", COUNTS)
def test_count_that_is_a_float_is_refused_by_its_name(name: str) -> None:
    fraction: dict[str, Any] = {name: 1.0}
    with pytest.raises(TypeError, match=name):
        ClientOptions(**fraction)


@pytest.mark.parametrize("policy", sorted(POLICIES))
def test_every_policy_there_is_can_be_chosen(policy: str) -> None:
    assert ClientOptions(policy=policy).policy == policy


def test_policy_that_does_not_exist_is_refused_with_those_that_do() -> None:
    with pytest.raises(ValueError) as caught:
        ClientOptions(policy="fastest")
    assert all(name in str(caught.value) for name in POLICIES)
    with pytest.raises(TypeError, match="policy"):
        ClientOptions(policy=None)  # type: ignore[arg-type]


def test_policy_may_be_a_callable() -> None:
    def first(servers: Any, key: Any) -> Any:
        return servers[0]

    assert ClientOptions(policy=first).policy is first


@pytest.mark.parametrize("value", [(1,), (1, 2, 3), 1, "12", None, ("1", "2")])
def test_backoff_that_is_no_pair_of_numbers_is_refused(value: Any) -> None:
    with pytest.raises(TypeError, match="reconnect_backoff"):
        ClientOptions(reconnect_backoff=value)


@pytest.mark.parametrize("value", [(2, 1), (0, 1), (-1, 1), (1, float("inf"))])
def test_backoff_out_of_range_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="reconnect_backoff"):
        ClientOptions(reconnect_backoff=value)


def test_lists_are_taken_and_become_tuples() -> None:
    listener = Listener()
    options = ClientOptions(reconnect_backoff=[1, 2], listeners=[listener])  # type: ignore[arg-type]
    assert options.reconnect_backoff == (1.0, 2.0)
    assert options.listeners == (listener,)


@pytest.mark.parametrize(
    "wrong",
    [
        {"listeners": Listener()},
        {"listeners": [Listener]},
        {"listeners": [print]},
        {"listeners": "ab"},
        {"listeners": None},
        {"ssl_context": True},
        {"ssl_context": "ca.pem"},
        {"data_encoder": "json"},
        {"data_encoder": print},
        {"prefix": b"x"},
        {"prefix": None},
        {"name": 5},
    ],
)
def test_object_of_the_wrong_type_is_refused_by_its_options_name(wrong: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match=next(iter(wrong))):
        ClientOptions(**wrong)


@pytest.mark.parametrize("encoder", [BytesEncoder, JSONEncoder, JSONEncoder()])
def test_encoder_may_be_a_class_or_an_instance(encoder: Any) -> None:
    assert ClientOptions(data_encoder=encoder).data_encoder is encoder


@pytest.mark.parametrize("prefix", ["a\0", "x" * MAX_TASK_BYTES, "\ud800"])
def test_prefix_that_cannot_stand_before_a_task_is_refused(prefix: str) -> None:
    with pytest.raises(ValueError, match="prefix"):
        ClientOptions(prefix=prefix)


def test_keyword_wins_over_the_dsn() -> None:
    options = ClientOptions.merge({"max_retries": 2, "policy": "failover"}, {"max_retries": 0})
    assert options.max_retries == 0
    assert options.policy == "failover"


def test_unknown_option_is_refused_with_the_name_that_was_meant_or_all_there_are() -> None:
    with pytest.raises(TypeError, match="did you mean submit_timeout"):
        ClientOptions.merge({}, {"submit_timout": 1})
    with pytest.raises(TypeError) as caught:
        ClientOptions.merge({}, {"zzz": 1})
    assert all(name in str(caught.value) for name in ClientOptions.field_names())


def test_ssl_is_not_imported_until_tls_is_asked_for() -> None:
    program = (
        "import sys, types; package = types.ModuleType('gearman_pool'); package.__path__ = sys.argv[1:];"
        "sys.modules['gearman_pool'] = package; import gearman_pool.options as options;"
        "options.ClientOptions(); options.parse_servers('gearman://h'); print('ssl' in sys.modules)"
    )
    package = str(Path(sys.modules["gearman_pool"].__path__[0]))
    done = subprocess.run(
        [sys.executable, "-c", program, package], capture_output=True, text=True, check=True, timeout=30
    )
    assert done.stdout.strip() == "False"
