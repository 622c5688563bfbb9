"""Payloads to bytes and back, by the encoders shipped and by those a user may write."""

from __future__ import annotations

import array
import ast
import json
import pickle
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import gearman_pool
from gearman_pool import GearmanClient, GearmanWorker
from gearman_pool.encoders import BytesEncoder, DataEncoder, Encoder, JSONEncoder, NoopEncoder, encode_payload
from gearman_pool.errors import EncodeError, GearmanError

from .support.running import running

SECRET = "hunter2"


class TextEncoder(DataEncoder):
    """As python-gearman's documentation has it: JSON as str."""

    @classmethod
    def encode(cls, encodable_object: Any) -> Any:
        return json.dumps(encodable_object)

    @classmethod
    def decode(cls, decodable_string: Any) -> Any:
        return json.loads(decodable_string)


class PickleEncoder:
    """An encoder that has nothing from us, for use as an instance."""

    def __init__(self, protocol: int) -> None:
        self.protocol = protocol

    def encode(self, encodable_object: Any) -> bytes:
        return pickle.dumps(encodable_object, self.protocol)

    def decode(self, decodable_string: bytes) -> Any:
        return pickle.loads(decodable_string)


class Returning:
    def __init__(self, value: Any) -> None:
        self.value = value

    def encode(self, encodable_object: Any) -> Any:
        return self.value

    def decode(self, decodable_string: bytes) -> Any:
        return self.value


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(st.binary())
def test_default_encoder_leaves_bytes_as_they_are(data: bytes) -> None:
    assert encode_payload(BytesEncoder, data) is data
    assert BytesEncoder.decode(BytesEncoder.encode(data)) == data


@given(st.text())
def test_default_encoder_sends_text_as_utf8_and_gives_bytes_back(text: str) -> None:
    sent = encode_payload(BytesEncoder, text)
    assert sent == text.encode()
    assert BytesEncoder.decode(sent) == text.encode()


@given(st.binary())
def test_default_encoder_takes_whatever_is_bytes_like(data: bytes) -> None:
    for payload in (bytearray(data), memoryview(data), memoryview(bytearray(data))[::2], array.array("B", data)):
        sent = encode_payload(BytesEncoder, payload)
        assert type(sent) is bytes
        assert sent == bytes(payload)


@pytest.mark.parametrize("payload", [5, 1.5, None, [1, 2], (1,), {"a": 1}, {1}, object()])
def test_default_encoder_refuses_objects_and_names_the_way_out(payload: Any) -> None:
    with pytest.raises(EncodeError, match="JSONEncoder") as caught:
        encode_payload(BytesEncoder, payload)
    assert type(payload).__name__ in str(caught.value)


def test_encode_error_is_the_type_error_that_python_gearman_raised() -> None:
    with pytest.raises(TypeError):
        NoopEncoder.encode(None)
    with pytest.raises(GearmanError):
        NoopEncoder.encode(None)


def test_text_with_a_lone_surrogate_is_refused_without_showing_or_keeping_it() -> None:
    for encoder in (BytesEncoder, JSONEncoder, Returning(SECRET + "\ud800")):
        with pytest.raises(EncodeError) as caught:
            encode_payload(encoder, SECRET + "\ud800")
        assert SECRET not in str(caught.value)
        assert caught.value.__suppress_context__
        assert caught.value.__cause__ is None


def test_base_encoder_passes_through_what_it_is_given() -> None:
    thing = object()
    assert DataEncoder.encode(thing) is thing
    assert DataEncoder.decode(thing) is thing


@given(JSON)
def test_json_encoder_round_trips_what_json_can_say(thing: Any) -> None:
    sent = encode_payload(JSONEncoder, thing)
    assert type(sent) is bytes
    assert JSONEncoder.decode(sent) == thing


def test_json_encoder_writes_compact_utf8() -> None:
    assert JSONEncoder.encode({"a": [1, "ü"]}) == '{"a":[1,"ü"]}'.encode()


def test_json_encoder_takes_an_empty_payload_for_no_payload() -> None:
    assert encode_payload(JSONEncoder, b"") == b""
    assert JSONEncoder.decode(b"") is None
    assert JSONEncoder.decode(encode_payload(JSONEncoder, "")) == ""


@pytest.mark.parametrize("payload", [float("nan"), float("inf"), [float("-inf")], b"bytes", {1, 2}, object()])
def test_json_encoder_refuses_what_json_cannot_say(payload: Any) -> None:
    with pytest.raises(EncodeError) as caught:
        encode_payload(JSONEncoder, payload)
    assert isinstance(caught.value.__cause__, (TypeError, ValueError))


def test_json_encoder_refuses_to_read_what_is_no_json() -> None:
    with pytest.raises(ValueError):
        JSONEncoder.decode(b"{")


_calls: list[str] = []


def _call(text: str) -> None:
    _calls.append(text)


class _Bomb:
    """What a pickle can hold: a call that is made while it is read."""

    def __reduce__(self) -> Any:
        return _call, ("code of the payload",)


def test_no_encoder_that_is_shipped_runs_code_of_a_payload(gearmand) -> None:
    payload = pickle.dumps(_Bomb())
    for encoder in (BytesEncoder, DataEncoder, NoopEncoder):
        assert encoder.decode(payload) == payload
    with pytest.raises(ValueError):
        JSONEncoder.decode(payload)
    seen = []
    worker = GearmanWorker([gearmand.address])
    worker.register_task("echo", lambda job: seen.append(job.data) or job.data)
    with running(worker), GearmanClient([gearmand.address]) as client:
        assert client.submit("echo", payload).result(10) == payload
    assert seen == [payload]
    assert _calls == []
    # It would have, where somebody names an encoder that unpickles.
    PickleEncoder(4).decode(payload)
    assert _calls == ["code of the payload"]
    _calls.clear()


def test_package_never_loads_what_unpickles() -> None:
    package = Path(gearman_pool.__file__).parent
    for path in package.glob("**/*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, (ast.Import, ast.ImportFrom)) else []
            assert not {"pickle", "marshal", "shelve", "dill"} & {*names, getattr(node, "module", None)}, path


@pytest.mark.parametrize(
    "encoder", [TextEncoder, TextEncoder(), PickleEncoder(2)], ids=["class", "instance", "foreign"]
)
def test_users_encoder_may_be_a_class_or_an_instance_and_may_return_text(encoder: Encoder) -> None:
    sent = encode_payload(encoder, {"hello": ["there", 1]})
    assert type(sent) is bytes
    assert encoder.decode(sent) == {"hello": ["there", 1]}


@pytest.mark.parametrize("value", [bytearray(b"ab"), memoryview(b"ab"), "ab", b"ab"])
def test_users_encoder_may_return_anything_that_is_bytes_or_text(value: Any) -> None:
    sent = encode_payload(Returning(value), None)
    assert type(sent) is bytes
    assert sent == b"ab"


@pytest.mark.parametrize("value", [None, 5, ["ab"], object()])
def test_users_encoder_that_returns_something_else_is_named(value: Any) -> None:
    with pytest.raises(EncodeError, match=r"Returning\.encode\(\) returned " + type(value).__name__):
        encode_payload(Returning(value), "payload")


def test_users_encoder_that_raises_becomes_an_encode_error_that_is_chained_and_hides_the_payload() -> None:
    class Failing(DataEncoder):
        @classmethod
        def encode(cls, encodable_object: Any) -> Any:
            raise KeyError(encodable_object)

    with pytest.raises(EncodeError) as caught:
        encode_payload(Failing, SECRET)
    assert isinstance(caught.value.__cause__, KeyError)
    assert "Failing" in str(caught.value)
    assert "KeyError" in str(caught.value)
    assert SECRET not in str(caught.value)


def test_users_encode_error_reaches_the_caller_as_it_is() -> None:
    mine = EncodeError("only even numbers")

    class Picky(BytesEncoder):
        @classmethod
        def encode(cls, encodable_object: Any) -> bytes:
            raise mine

    with pytest.raises(EncodeError) as caught:
        encode_payload(Picky, b"1")
    assert caught.value is mine


def test_encoder_derived_from_the_default_is_asked_even_for_bytes() -> None:
    class Doubling(BytesEncoder):
        @classmethod
        def encode(cls, encodable_object: Any) -> bytes:
            return super().encode(encodable_object) * 2

    assert encode_payload(Doubling, b"ab") == b"abab"


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit])
def test_interrupt_inside_an_encoder_is_not_taken_for_a_failure_of_it(interrupt: type[BaseException]) -> None:
    class Interrupted(DataEncoder):
        @classmethod
        def encode(cls, encodable_object: Any) -> Any:
            raise interrupt

    with pytest.raises(interrupt):
        encode_payload(Interrupted, b"")
