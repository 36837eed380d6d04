"""Handlers and their names."""

from __future__ import annotations

import math
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from osqueue.jobs import Handlers, class_name, find, find_function, handler_name, handler_types
from tests.processes import handlers

if TYPE_CHECKING:
    from nowhere import Unknown

ROOT = Path(__file__).parents[2]


class Keeper:
    def method(self, payload):
        return payload

    @staticmethod
    def static(payload):
        return payload

    def __call__(self, payload):
        return payload


def hidden(payload):
    return payload


shown = hidden


def hidden(payload):
    return payload


def two(first, second):
    return first


def keyword_only(*, payload):
    return payload


def with_default(payload, retries=3):
    return payload


def generator(payload):
    yield payload


async def async_generator(payload):
    yield payload


def unresolvable(payload: Unknown) -> Unknown:
    return payload


def unreadable(payload: Keeper) -> Keeper:
    return payload


def typed(payload: dict[str, int]) -> list[int]:
    return list(payload.values())


class MyError(Exception):
    class Inner(Exception):
        pass


def nested():
    def inner(payload):
        return payload

    return inner


@pytest.mark.parametrize(
    ("handler", "told"),
    [
        (lambda payload: payload, "a lambda"),
        (nested(), "nested function"),
        (partial(two, 1), "a partial of 'two'"),
        (Keeper().method, "the method Keeper.method"),
        (Keeper.method, "the method Keeper.method"),
        (Keeper.static, "the method Keeper.static"),
        (Keeper(), "an object of type Keeper"),
        (Keeper, "an object of type type"),
        (math.sqrt, "the builtin sqrt"),
        (len, "the builtin len"),
        (3, "an object of type int"),
        (None, "an object of type NoneType"),
    ],
)
def test_what_workers_could_not_find_is_refused_with_the_way_out(handler, told):
    with pytest.raises(TypeError) as caught:
        Handlers(handler)

    assert told in str(caught.value)
    assert "write it as a function with def" in str(caught.value)


def test_a_function_whose_name_leads_elsewhere_is_refused():
    with pytest.raises(TypeError, match="leads to something else"):
        Handlers(shown)
    assert Handlers(hidden).names == {"default": "tests.worker.test_jobs:hidden"}


@pytest.mark.parametrize("handler", [two, keyword_only])
def test_a_function_that_cannot_take_a_payload_alone_is_refused(handler):
    with pytest.raises(TypeError, match="cannot be called with a payload alone"):
        Handlers(handler)


@pytest.mark.parametrize("handler", [generator, async_generator])
def test_a_function_that_yields_is_refused(handler):
    with pytest.raises(TypeError, match="yields"):
        Handlers(handler)


@pytest.mark.parametrize("text", ["", "f", "module.f", ":f", "m:", "m:f:g", "m:f()", "m/f:g", "m :f", ".m:f", "m:a.b"])
def test_a_text_that_names_no_function_is_refused(text):
    with pytest.raises(TypeError, match=r"'package\.module:function'"):
        handler_name(text)


def test_a_text_is_not_imported_here():
    assert Handlers("no.such.module:handler").names == {"default": "no.such.module:handler"}


def test_a_dict_names_tasks():
    both = Handlers({"double": handlers.double, "echo": "somewhere:echo"})

    assert both.tasks == ["double", "echo"]
    assert both.payloads("double").encode_checked(1) == b"1"


@pytest.mark.parametrize("names", [{}, {"": with_default}, {"x" * 65: with_default}, {"\ud800": with_default}])
def test_bad_task_names_are_refused(names):
    with pytest.raises(ValueError, match="handler:"):
        Handlers(names)


def test_a_task_name_that_is_no_text_is_refused():
    with pytest.raises(TypeError, match="a task's name is a text"):
        Handlers({1: with_default})  # type: ignore[dict-item]


@pytest.mark.parametrize(
    ("handler", "types"),
    [
        (typed, (dict[str, int], list[int])),
        (with_default, (Any, Any)),
        (unresolvable, (Any, Any)),
        (unreadable, (Any, Any)),
        ("m:f", (Any, Any)),
    ],
)
def test_types_are_those_annotated_or_any_json(handler, types):
    assert handler_types(handler) == types


def test_declared_types_win():
    assert handler_types(typed, payload_type=dict) == (dict, list[int])
    assert handler_types("m:f", result_type=int) == (Any, int)


@pytest.mark.parametrize("field", ["payload_type", "result_type"])
@pytest.mark.parametrize("value_type", [Keeper, object, list[Keeper], 3])
def test_a_declared_type_that_json_cannot_be_read_as_is_refused(field, value_type):
    with pytest.raises(TypeError, match=field):
        Handlers(with_default, **{field: value_type})


def test_names_lead_back_to_what_they_name():
    assert find_function(handler_name(typed)) is typed
    assert find(class_name(MyError.Inner)) is MyError.Inner
    assert find(class_name(OSError)) is OSError


def test_a_name_that_leads_nowhere_says_so():
    with pytest.raises(ImportError, match="module math has no nothing"):
        find("math:nothing")
    with pytest.raises(TypeError, match="is no function"):
        find_function("math:pi")


@pytest.mark.parametrize("kind", [int, ValueError(), "ValueError", None])
def test_only_exception_classes_are_taken(kind):
    with pytest.raises(TypeError, match="exception classes are wanted"):
        class_name(kind)


def test_an_exception_class_that_workers_could_not_find_is_refused():
    class Local(Exception):
        pass

    with pytest.raises(TypeError, match="workers cannot import"):
        class_name(Local)


CODE = """
import sys
sys.path.insert(0, {root!r})
from osqueue.jobs import Handlers
def handler(payload): return payload
try:
    Handlers(handler)
except TypeError as error:
    print(error)
"""


@pytest.mark.parametrize("arguments", [["-c", CODE], ["-"]])
def test_a_function_of_a_program_without_a_file_is_refused_with_the_way_out(arguments):
    arguments = [argument.format(root=str(ROOT)) for argument in arguments]
    text = CODE.format(root=str(ROOT))

    done = subprocess.run(
        [sys.executable, *arguments], input=text, capture_output=True, text=True, timeout=60, check=True
    )

    assert "put it into a file" in done.stdout
