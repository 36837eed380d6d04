"""Codecs and their names."""

from __future__ import annotations

import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from osqueue.codec import codec_name, load_codec
from osqueue.errors import InvalidPayload
from osqueue.jobs import Handlers
from osqueue.values import CodecValues
from tests.e2e import packed
from tests.processes import handlers

NOWHERE: Any = types.ModuleType("nowhere")
NOWHERE.encode, NOWHERE.decode = packed.Packed.encode, packed.Packed.decode

ROOT = Path(__file__).parents[2]


class Outer:
    class Inner(packed.Packed):
        pass


@pytest.mark.parametrize(
    ("codec", "name"),
    [
        (packed.Packed, "tests.e2e.packed:Packed"),
        (packed.prefixed, "tests.e2e.packed:prefixed"),
        (Outer.Inner, "tests.worker.test_codec:Outer.Inner"),
        ("tests.e2e.packed:prefixed", "tests.e2e.packed:prefixed"),
        ("tests.worker.test_codec:Outer.Inner", "tests.worker.test_codec:Outer.Inner"),
    ],
)
def test_a_codec_has_the_name_under_which_workers_find_it(codec, name):
    assert codec_name(codec) == name
    assert load_codec(name) is (load_codec(codec) if isinstance(codec, str) else codec)


def test_a_module_is_a_codec_by_its_own_name(monkeypatch):
    module: Any = types.ModuleType("as_module")
    module.encode, module.decode = packed.Packed.encode, packed.Packed.decode
    monkeypatch.setitem(sys.modules, "as_module", module)

    assert codec_name(module) == codec_name("as_module") == "as_module"
    assert load_codec("as_module") is module


def test_an_object_is_found_in_another_module_than_that_of_its_class(monkeypatch):
    module: Any = types.ModuleType("elsewhere")
    module.mine = packed.Prefixed(b"!")
    monkeypatch.setitem(sys.modules, "elsewhere", module)

    assert codec_name(module.mine) == "elsewhere:mine"


@pytest.mark.parametrize(
    ("codec", "says"),
    [
        (packed.Prefixed(b""), "no name of a module leads a worker to the object of type Prefixed"),
        (lambda value: value, r"the object of type function has no encode\(\)"),
        (NOWHERE, "cannot import a module of the name nowhere"),
        (packed.Half, r"has no decode\(\)"),
        (packed.Bound, "static method"),
        ("tests.e2e.packed:Half", r"tests.e2e.packed:Half has no decode\(\)"),
        ("json", r"json has no encode\(\)"),
        ("tests.e2e.packed:missing", "cannot be imported: module tests.e2e.packed has no missing"),
        ("no_such_module:codec", "no_such_module:codec cannot be imported"),
        ("not a name", "'package.module:object'"),
        (7, r"the object of type int has no encode\(\)"),
    ],
)
def test_what_a_worker_could_not_find_or_use_is_refused_with_the_way_out(codec, says):
    with pytest.raises(TypeError, match=f"codec: .*{says}"):
        codec_name(codec)


def test_a_class_of_a_function_is_refused():
    class Local(packed.Packed):
        pass

    with pytest.raises(TypeError, match="does not lead a worker to this class"):
        codec_name(Local)


def test_what_was_typed_in_is_refused_with_the_way_out():
    source = "from tests.e2e.packed import Prefixed\nfrom osqueue.codec import codec_name\nmine = Prefixed(b'')\n"
    typed = f"{source}\ntry: codec_name(mine)\nexcept TypeError as error: print(error)\n"
    done = subprocess.run([sys.executable, "-"], input=typed, cwd=ROOT, capture_output=True, text=True, check=True)

    assert "__main__:mine was typed in" in done.stdout
    assert "put it into a file" in done.stdout


@pytest.mark.parametrize("types_", [{"payload_type": int}, {"result_type": int}])
def test_a_codec_takes_the_place_of_types(types_):
    with pytest.raises(ValueError, match="codec: it takes the place of payload_type and result_type"):
        Handlers(handlers.echo, codec=packed.Packed, **types_)


def test_all_payloads_and_results_cross_as_the_codec_has_them():
    made = Handlers({"a": handlers.echo, "b": "some.module:function"}, codec=packed.Packed)

    for values in (made.payloads("a"), made.results("a"), made.payloads("b"), made.results("b")):
        data = values.encode_checked({"x": [1, None]})
        assert data == packed.Packed.encode({"x": [1, None]})
        assert values.decode(data) == {"x": [1, None]}


def test_what_a_codec_raises_or_returns_that_is_no_bytes_is_an_invalid_payload():
    def values(codec: Any) -> CodecValues[Any]:
        return CodecValues(codec, "payload")

    with pytest.raises(InvalidPayload, match="cannot encode the payload: OSError: no room to encode"):
        values(packed.picky).encode(["unsayable"])
    with pytest.raises(InvalidPayload, match="made str of the payload, and not bytes"):
        values(packed.textual).encode(1)
    with pytest.raises(InvalidPayload, match="cannot decode the payload: error"):
        values(packed.Packed).decode(b"no zlib")


def test_an_error_whose_text_cannot_be_had_is_told_by_its_name():
    class BrokenError(Exception):
        def __str__(self):
            raise RuntimeError

    def refuse(value):
        raise BrokenError

    with pytest.raises(InvalidPayload, match="BrokenError"):
        CodecValues(packed._codec(encode=refuse), "payload").encode(1)
