"""Payloads and results: a value, and its bytes; as JSON of a declared type, or as a program's own codec has it.

Rules:
* A codec is the program's code: whatever it raises, and whatever it returns that is no bytes, is `InvalidPayload`;
  but for a `SoftTimeout`, which is its handler's.
* What cannot be said in JSON is refused, never altered: msgspec would write NaN and infinity as ``null``.
* A payload is checked where it is pushed by reading it as the worker will read it.
* Without a declared type any JSON value will do; tuples and sets come back as lists, bytes as base64 text.
"""

from __future__ import annotations

import math
from typing import Any, Generic, Protocol, TypeVar

import msgspec

from osqueue.errors import InvalidPayload, SoftTimeout

V = TypeVar("V")
V_co = TypeVar("V_co", covariant=True)

_NULL = b"null"
_SHOWN_CHARS = 80
_TOLD_CHARS = 500


class Values(Protocol[V_co]):
    """How values cross. Any thread may use it."""

    def encode(self, value: Any) -> bytes:
        """The value as bytes. Raises `InvalidPayload`."""

    def encode_checked(self, value: Any) -> bytes:
        """The value as bytes that `decode` will read. Raises `InvalidPayload`."""

    def decode(self, data: bytes) -> V_co:
        """The value that these bytes are. Raises `InvalidPayload`."""


class Codec(Protocol):
    """What a program may give in place of JSON: a class, module or object with these two."""

    def encode(self, value: Any, /) -> bytes:
        """The value as bytes."""

    def decode(self, data: bytes, /) -> Any:
        """The value that `encode` made these bytes of."""


class CodecValues(Generic[V]):
    """Values as a codec has them. Any thread may use it, if any thread may use the codec.

    Args:
        codec: what encodes and decodes.
        noun: what the values are called in messages, "payload" or "result".
    """

    def __init__(self, codec: Codec, noun: str) -> None:
        self._codec = codec
        self._noun = noun

    def encode(self, value: Any) -> bytes:
        """The value as bytes.

        Raises:
            InvalidPayload: the codec raised, or did not return bytes.
        """
        try:
            data: object = self._codec.encode(value)
        except SoftTimeout:
            raise
        except Exception as error:
            raise InvalidPayload(f"the codec cannot encode the {self._noun}: {told(error)}") from error
        if not isinstance(data, bytes):
            raise InvalidPayload(f"the codec's encode made {type(data).__name__} of the {self._noun}, and not bytes")
        return data

    def encode_checked(self, value: Any) -> bytes:
        """As `encode`: what a codec can read, it alone knows."""
        return self.encode(value)

    def decode(self, data: bytes) -> V:
        """The value that these bytes are.

        Raises:
            InvalidPayload: the codec raised.
        """
        try:
            value: V = self._codec.decode(data)
        except SoftTimeout:
            raise
        except Exception as error:
            raise InvalidPayload(f"the codec cannot decode the {self._noun}: {told(error)}") from error
        return value


def told(error: BaseException) -> str:
    """An error of somebody else's code as text; never raises."""
    try:
        return f"{type(error).__name__}: {error}"[:_TOLD_CHARS]
    except Exception:  # noqa: BLE001  a broken __str__ must not hide the error itself
        return type(error).__name__


class JsonValues(Generic[V]):
    """Values of one type as JSON. Any thread may use it.

    Args:
        value_type: what msgspec supports; `typing.Any` for any JSON value.
        noun: what the values are called in messages, "payload" or "result".
    """

    def __init__(self, value_type: Any, noun: str) -> None:
        """Raises `TypeError`: msgspec does not support the type; the message says which."""
        self._noun = noun
        self._type = value_type
        self._typed = value_type is not Any
        self._encoder = msgspec.json.Encoder()
        self._decoder: msgspec.json.Decoder[V] = msgspec.json.Decoder(value_type)

    def encode(self, value: Any) -> bytes:
        """The value as JSON.

        Raises:
            InvalidPayload: JSON cannot say it, or the other side could not read it as the declared type.
        """
        if value is None:
            return _NULL
        try:
            data = self._encoder.encode(value)
        except RecursionError as error:
            raise InvalidPayload(f"the {self._noun} is nested too deeply, or contains itself") from error
        except UnicodeEncodeError as error:
            message = f"the {self._noun} holds a lone surrogate, which is no text: decode it properly first"
            raise InvalidPayload(message) from error
        except SoftTimeout:
            raise
        except Exception as error:
            # Encoding runs the properties of the caller's own classes, which may raise anything.
            raise InvalidPayload(self._unencodable(value, error)) from error
        # NaN becomes null: only where there is a null can there have been one. So the usual value costs one search.
        if _NULL in data and (hidden := _unsayable_float(value)) is not None:
            message = f"the {self._noun} holds {hidden}, which JSON cannot say: send None or text in its place"
            raise InvalidPayload(message)
        return data

    def encode_checked(self, value: Any) -> bytes:
        """The value as JSON, after reading it back as the declared type.

        Raises:
            InvalidPayload: as `encode`, or it is not of the declared type.
        """
        data = self.encode(value)
        if self._typed:
            self.decode(data)
        return data

    def decode(self, data: bytes) -> V:
        """The value that these bytes are.

        Raises:
            InvalidPayload: they are no JSON, or not of the declared type.
        """
        try:
            return self._decoder.decode(data)
        except RecursionError as error:
            raise InvalidPayload(f"the {self._noun} is nested too deeply to be read") from error
        except (msgspec.MsgspecError, ValueError, TypeError) as error:
            # TypeError and ValueError: a ``__post_init__`` of the declared class refuses it.
            raise InvalidPayload(f"the {self._noun} is not {_type_name(self._type)}: {error}") from error

    def _unencodable(self, value: Any, error: Exception) -> str:
        way_out = "use JSON values, or a msgspec Struct, dataclass, TypedDict or attrs class"
        return f"the {self._noun} cannot be encoded: {error}; {way_out} type={type(value).__qualname__}"


def _unsayable_float(value: Any) -> str | None:
    """The first NaN or infinity inside a value that msgspec has encoded already; None if there is none."""
    waiting = [msgspec.to_builtins(value)]
    while waiting:
        item = waiting.pop()
        if isinstance(item, float):
            if not math.isfinite(item):
                return str(item)
        elif isinstance(item, dict):
            waiting.extend(item.values())
        elif isinstance(item, list | tuple | set | frozenset):
            waiting.extend(item)
    return None


def _type_name(value_type: Any) -> str:
    if value_type is Any:
        return "JSON"
    name = value_type.__qualname__ if isinstance(value_type, type) else str(value_type)
    return f"of the declared type {name[:_SHOWN_CHARS]}"
