"""Initializers and finalizers, as a pool is given them."""

from __future__ import annotations

import multiprocessing
import pickle
import threading
from functools import partial
from multiprocessing.context import get_spawning_popen

import pytest

from osqueue.lifecycle import lifecycle
from tests.processes import course_handlers as course


def generator():
    yield


def two(first, second):
    return first, second


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        (lambda: None, "a lambda"),
        (partial(course.load), "a partial of 'load'"),
        ([].append, "the builtin append"),
        (course.Unreadable, "an object of type type"),
        (generator, "yields"),
        ("no colon", "a text names a function as 'package.module:function'"),
        (5, "an object of type int"),
    ],
)
@pytest.mark.parametrize("field", ["initializer", "finalizer"])
def test_what_a_worker_could_not_find_or_call_is_refused_by_the_arguments_name(field, spec, told):
    functions = {"initializer": None, "finalizer": None, field: spec}

    with pytest.raises(TypeError, match=f"^{field}: .*{told}"):
        lifecycle(functions["initializer"], (), functions["finalizer"])


def test_functions_are_kept_by_name():
    own = lifecycle(course.load, [1], "somewhere:release")

    assert own.initializer == "tests.processes.course_handlers:load"
    assert own.finalizer == "somewhere:release"
    assert own.initargs.unpack() == (1,)


@pytest.mark.parametrize("initargs", [(), (1,), (1, 2, 3)])
def test_an_initializer_takes_its_arguments(initargs):
    with pytest.raises(TypeError, match="initializer: two cannot be called with initargs"):
        lifecycle(two, initargs, None)


def test_a_finalizer_takes_the_state():
    with pytest.raises(TypeError, match="finalizer: two cannot be called with the worker's state alone"):
        lifecycle(None, (), two)


@pytest.mark.parametrize("initargs", ["model.bin", {"path": 1}, 5, None])
def test_initargs_are_a_tuple(initargs):
    with pytest.raises(TypeError, match="initargs is a tuple"):
        lifecycle(course.load, initargs, None)


def test_initargs_without_an_initializer_are_a_mistake():
    with pytest.raises(ValueError, match="initargs"):
        lifecycle(None, (1,), None)


@pytest.mark.parametrize("value", [threading.Lock(), lambda: None, (n for n in [1])])
def test_what_cannot_be_sent_to_a_worker_is_refused_by_its_place_and_type(value):
    with pytest.raises(TypeError, match=f"initargs: item 1, of type {type(value).__qualname__}, cannot be sent"):
        lifecycle(course.load, (0, value), None)

    assert get_spawning_popen() is None


def test_what_multiprocessing_sends_only_to_a_process_that_it_starts_is_taken():
    context = multiprocessing.get_context("spawn")
    reader, writer = context.Pipe()
    values = (context.Lock(), context.Queue(), context.Value("i"), context.Event(), reader)
    with pytest.raises(RuntimeError):
        pickle.dumps(values[0])

    lifecycle(course.load, values, None)

    reader.close()
    writer.close()
