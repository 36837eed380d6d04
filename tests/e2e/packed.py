"""Codecs for the pools of these tests: good ones in every form, and some that misbehave."""

from __future__ import annotations

import json
import sys
import zlib


class Packed:
    """Compressed: its bytes are no JSON."""

    @staticmethod
    def encode(value):
        return zlib.compress(json.dumps(value).encode())

    @staticmethod
    def decode(data):
        return json.loads(zlib.decompress(data))


class Prefixed:
    """An object that must be made."""

    def __init__(self, prefix):
        self.prefix = prefix

    def encode(self, value):
        return self.prefix + repr(value).encode()

    def decode(self, data):
        assert data.startswith(self.prefix)
        return int(data[len(self.prefix) :])


prefixed = Prefixed(b"\xff\x00\n")


class Empty:
    """Of the empty bytes too something can be made."""

    @staticmethod
    def encode(_value):
        return b""

    @staticmethod
    def decode(data):
        return ["empty", len(data)]


class Bound:
    """Its methods want an object."""

    def encode(self, value):
        return b""

    def decode(self, data):
        return None


class Half:
    @staticmethod
    def encode(_value):
        return b""


def _codec(encode=Packed.encode, decode=Packed.decode):
    return type("Broken", (), {"encode": staticmethod(encode), "decode": staticmethod(decode)})()


def _encode_but(value, wrong):
    """A value says which side it hurts: ["result", …] only as a result."""
    if value == wrong:
        raise OSError("no room to encode")
    return Packed.encode(value)


def _exit_for(word, do):
    def guarded(value):
        if word in str(Packed.decode(value) if isinstance(value, bytes) else value):
            sys.exit(3)
        return do(value)

    return guarded


def _interrupt(data):
    raise KeyboardInterrupt


def _refuse_decode(data):
    value = Packed.decode(data)
    if value == ["unreadable"]:
        raise ValueError("these bytes say nothing")
    return value


picky = _codec(encode=lambda value: _encode_but(value, ["unsayable"]))
textual = _codec(encode=json.dumps)
forgetful = _codec(decode=_refuse_decode)
exiting_encode = _codec(encode=_exit_for("leave", Packed.encode))
exiting_decode = _codec(decode=_exit_for("leave", Packed.decode))
interrupting = _codec(decode=_interrupt)


def echo(value):
    return value


def give_unsayable(value):
    return ["unsayable"]


def give_unreadable(value):
    return ["unreadable"]


def give_leave(value):
    return ["leave"]
