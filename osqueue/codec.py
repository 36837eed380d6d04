"""Codecs and their names: what a program gives in place of JSON, and how its workers come by the same.

    LocalPool(…, codec=Packed)   ->  "shop.packing:Packed"   ->  worker: import shop.packing, take Packed

Rules:
* A codec crosses to the workers by name, never as a pickle, as handlers do (`osqueue.jobs`).
* So it is refused, where the pool is made, if a worker could not find the very same object by that name.
* An object is looked for in the module of its class first, then in the others that are imported.
"""

from __future__ import annotations

import inspect
import re
import sys
import types
from collections.abc import Iterator
from typing import cast

from osqueue.jobs import FILE_WAY_OUT, find, looked_up, main_has_file, refuse_skipped_main
from osqueue.values import Codec

_TEXT = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*(:[^\W\d]\w*(\.[^\W\d]\w*)*)?")
_VERBS = ("encode", "decode")
_WAY_OUT = (
    "give a module, a class with static methods, an object that a name at the top level of a module leads to, "
    "or 'package.module:object'"
)


def codec_name(codec: Codec | str) -> str:
    """The ``module:name``, or the module's name, under which a worker finds this codec.

    Raises:
        TypeError: it would not, or it is no codec; the message says what to do instead.
    """
    if isinstance(codec, str):
        _check_verbs(load_codec(_checked_text(codec)), codec)
        return codec
    _check_verbs(codec, _described(codec))
    return _name_of(codec)


def load_codec(name: str) -> Codec:
    """The codec of this name.

    Raises:
        TypeError: it cannot be imported. Other errors come from its module.
    """
    try:
        return cast(Codec, find(name))
    except ImportError as error:
        raise TypeError(f"codec: {name} cannot be imported: {error}") from error


def _checked_text(text: str) -> str:
    if not _TEXT.fullmatch(text):
        raise TypeError(f"codec: a text names it as 'package.module:object', got {text!r}")
    return text


def _name_of(codec: object) -> str:
    if isinstance(codec, types.ModuleType):
        if sys.modules.get(codec.__name__) is not codec:
            raise TypeError(f"codec: workers cannot import a module of the name {codec.__name__}: {_WAY_OUT}")
        name = codec.__name__
    elif isinstance(codec, type):
        name = f"{codec.__module__}:{codec.__qualname__}"
        if looked_up(codec.__module__, codec.__qualname__) is not codec:
            raise TypeError(f"codec: {name} does not lead a worker to this class: {_WAY_OUT}")
    else:
        name = _name_of_object(codec)
    if name.partition(":")[0] == "__main__" and not main_has_file():
        raise TypeError(f"codec: {name} was typed in, workers cannot import it: {FILE_WAY_OUT}")
    refuse_skipped_main("codec", name)
    return name


def _name_of_object(codec: object) -> str:
    for module in _modules(codec):
        for name, value in list(vars(module).items()):
            if value is codec:
                return f"{module.__name__}:{name}"
    raise TypeError(f"codec: no name of a module leads a worker to {_described(codec)}: {_WAY_OUT}")


def _described(codec: object) -> str:
    if isinstance(codec, type | types.ModuleType):
        return f"the {'class' if isinstance(codec, type) else 'module'} {codec.__name__}"
    return f"the object of type {type(codec).__qualname__}"


def _modules(codec: object) -> Iterator[types.ModuleType]:
    """Where an object may have its name: beside its class, elsewhere, and at last in the program itself."""
    home, main = type(codec).__module__, "__main__"
    others = [name for name in list(sys.modules) if name not in (home, main)]
    for name in (home, *others, main):
        module = sys.modules.get(name)
        # Under another name than its own a module is found by the program alone.
        if isinstance(module, types.ModuleType) and module.__name__ == name:
            yield module


def _check_verbs(codec: object, described: str) -> None:
    for verb in _VERBS:
        method = getattr(codec, verb, None)
        if not callable(method):
            raise TypeError(f"codec: {described} has no {verb}(); a codec has encode(value) -> bytes and decode(bytes)")
        try:
            signature = inspect.signature(method)
        except (TypeError, ValueError):
            continue  # built in: it says nothing of its arguments
        try:
            signature.bind(None)
        except TypeError as error:
            unbound = "; make it a static method, or give an object of the class" if isinstance(codec, type) else ""
            raise TypeError(
                f"codec: {verb}() of {described} cannot be called with one argument: {error}{unbound}"
            ) from error
