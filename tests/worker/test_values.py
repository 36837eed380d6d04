"""Values and their bytes: as JSON, and as a codec of the program has them."""

from __future__ import annotations

import datetime as dt
import decimal
import enum
import math
from dataclasses import dataclass, field
from typing import Any, TypedDict

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from osqueue.errors import InvalidPayload, SoftTimeout
from osqueue.values import CodecValues, JsonValues

ANY = JsonValues(Any, "payload")

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@dataclass
class Reading:
    value: float
    note: str | None = None
    parts: list[float] = field(default_factory=list)


class Record(msgspec.Struct):
    value: float | None
    inner: Reading | None = None


class Shape(TypedDict):
    sides: int


class Odd(enum.Enum):
    NOT_A_NUMBER = math.nan


@given(JSON)
def test_json_values_come_back_as_they_were(value):
    assert ANY.decode(ANY.encode(value)) == value


@pytest.mark.parametrize(
    "value",
    [
        math.nan,
        math.inf,
        -math.inf,
        [1.0, None, [math.nan]],
        {"a": {"b": (0.0, math.inf)}},
        {1.5, math.nan},
        Reading(math.nan),
        Reading(1.0, parts=[math.inf]),
        Record(None, Reading(1.0, None, [math.nan])),
        Odd.NOT_A_NUMBER,
    ],
)
def test_nan_and_infinity_are_refused_wherever_they_hide(value):
    with pytest.raises(InvalidPayload, match="JSON cannot say"):
        ANY.encode(value)


@pytest.mark.parametrize(
    "value",
    [None, [None, 1.5], {"null": "null"}, "null", Record(None), Reading(1.0), (None, decimal.Decimal("NaN"))],
)
def test_nulls_that_stand_for_none_are_no_reason_to_refuse(value):
    assert b"null" in ANY.encode(value)


@pytest.mark.parametrize("value", ["\ud800", ["a", {"b": "x\udfff"}], {"\ud800": 1}])
def test_lone_surrogates_are_refused_and_named(value):
    with pytest.raises(InvalidPayload, match="lone surrogate"):
        ANY.encode(value)


class Plain:
    pass


@pytest.mark.parametrize("value", [object(), Plain(), {"f": print}, {(1, 2): 3}, 1j, [Plain()]])
def test_what_json_cannot_say_is_refused_with_the_way_out(value):
    with pytest.raises(InvalidPayload, match=r"cannot be encoded.*use JSON values"):
        ANY.encode(value)


def test_a_value_that_contains_itself_is_refused():
    value: list[object] = []
    value.append(value)

    with pytest.raises(InvalidPayload, match="contains itself"):
        ANY.encode(value)


def test_untyped_tuples_and_sets_come_back_as_lists_and_bytes_as_base64_text():
    assert ANY.decode(ANY.encode({"t": (1, 2), "s": {3}, "b": b"\xff", 4: "int keys"})) == {
        "t": [1, 2],
        "s": [3],
        "b": "/w==",
        "4": "int keys",
    }


@pytest.mark.parametrize(
    ("value_type", "value"),
    [
        (Reading, Reading(1.5, "x", [2.0])),
        (Record, Record(1.0, Reading(2.0, None, [1.0]))),
        (Shape, {"sides": 3}),
        (dict[int, set[str]], {1: {"a"}}),
        (tuple[int, bytes], (1, b"\xff")),
        (dt.datetime, dt.datetime(2024, 1, 2, 3, 4, 5, tzinfo=dt.UTC)),
        (list[Reading | None], [None, Reading(1.0, "x", [2.0])]),
    ],
)
def test_typed_values_come_back_as_their_type(value_type, value):
    values = JsonValues[Any](value_type, "payload")

    assert values.decode(values.encode_checked(value)) == value


@pytest.mark.parametrize(
    ("value_type", "value"),
    [(int, "1"), (Reading, {"note": "no value"}), (Shape, {"sides": "three"}), (list[int], [1, None]), (int, None)],
)
def test_a_value_of_another_type_is_refused_where_it_is_pushed(value_type, value):
    with pytest.raises(InvalidPayload, match="the payload is not of the declared type"):
        JsonValues[Any](value_type, "payload").encode_checked(value)


def test_a_refusal_by_the_types_own_check_is_an_invalid_payload():
    class Positive(msgspec.Struct):
        x: int

        def __post_init__(self) -> None:
            if self.x <= 0:
                raise ValueError("x must be positive")

    with pytest.raises(InvalidPayload, match="x must be positive"):
        JsonValues[Any](Positive, "payload").encode_checked({"x": 0})


@pytest.mark.parametrize("data", [b"", b"NaN", b'1},{"id":9', b"\xff", b'"\xed\xa0\x80"', b"[" * 5_000])
def test_bytes_that_are_no_json_are_refused(data):
    with pytest.raises(InvalidPayload):
        ANY.decode(data)


def late(*_):
    raise SoftTimeout("the job ran longer than its soft timeout")


class SlowCodec:
    """Still on its way when its handler's soft timeout comes."""

    encode = decode = late


class SlowZone(dt.tzinfo):
    utcoffset = late


@pytest.mark.parametrize(
    "cross",
    [
        lambda: CodecValues(SlowCodec(), "payload").encode(None),
        lambda: CodecValues(SlowCodec(), "payload").decode(b""),
        lambda: ANY.encode(dt.datetime(2024, 1, 2, tzinfo=SlowZone())),
    ],
)
def test_a_soft_timeout_while_a_value_crosses_is_the_handlers(cross):
    with pytest.raises(SoftTimeout):
        cross()
