"""Payloads from a file of lines: ``--file items.jsonl``, ``--file -``, ``--lines``."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from types import TracebackType
from typing import BinaryIO, Self

import msgspec

from osqueue.cli.exit_status import UsageError

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class BrokenLine(UsageError):
    """A line that is no payload; the message names the file and the line."""


class LineSource:
    """The lines of a file or of standard input, read as they are asked for. One thread at a time.

    Args:
        file: a path, or ``-`` for standard input.
        lines: take each line as a string; otherwise each is one JSON value, and empty ones are passed over.
    """

    def __init__(self, file: str, *, lines: bool) -> None:
        self._is_standard_input = file == "-"
        self.name = "standard input" if self._is_standard_input else file
        self.line = 0
        self._lines = lines
        self._stream = _open(file)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if not self._is_standard_input:
            self._stream.close()

    def values(self) -> Iterator[object]:
        """Each line's value.

        Raises:
            BrokenLine: a line is not UTF-8, or not JSON.
        """
        for text in self._texts():
            yield text if self._lines else self._decoded(text)

    def encoded(self) -> Iterator[bytes]:
        """Each line's value as JSON without needless spaces, its numbers as they were written.

        Raises:
            BrokenLine: a line is not UTF-8, or not JSON.
        """
        for text in self._texts():
            if self._lines:
                yield msgspec.json.encode(text)
                continue
            self._decoded(text)
            yield msgspec.json.format(text.encode(), indent=-1)

    def where(self) -> str:
        """The place of the line that was read last."""
        return f"{self.name}:{self.line}"

    def _texts(self) -> Iterator[str]:
        for raw in self._stream:
            self.line += 1
            text = self._text(raw.rstrip(b"\r\n").removeprefix(_BYTE_ORDER_MARK if self.line == 1 else b""))
            if self._lines or text.strip():
                yield text

    def _text(self, raw: bytes) -> str:
        try:
            return raw.decode()
        except UnicodeDecodeError as error:
            raise BrokenLine(f"{self.where()}: not UTF-8 at byte {error.start + 1} of the line") from None

    def _decoded(self, text: str) -> object:
        try:
            return decode_json(text)
        except UsageError as error:
            hint = "; --lines takes each line as a string" if self.line == 1 else ""
            raise BrokenLine(f"{self.where()}: {error}{hint}") from None


def decode_json(text: str) -> object:
    """One JSON value.

    Raises:
        UsageError: the text is none.
    """
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError, UnicodeEncodeError) as error:
        raise UsageError(f"not JSON: {_reason(text, error)}") from None


def _reason(text: str, error: Exception) -> str:
    """What is wrong with it, where msgspec says only that the data was truncated."""
    if isinstance(error, RecursionError):
        return "nested too deeply"
    if not text.strip():
        return "there is nothing; write null for a job without a payload"
    if isinstance(error, UnicodeEncodeError):
        return "it is not UTF-8"
    if _holds_lone_surrogate(text):
        return r"it holds half of a surrogate pair (\ud800 to \udfff), which is no text"
    return str(error)


def _holds_lone_surrogate(text: str) -> bool:
    try:
        json.dumps(json.loads(text), ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return True
    except (ValueError, RecursionError):
        return False
    return False


def _open(file: str) -> BinaryIO:
    if file == "-":
        if sys.stdin is None:
            raise UsageError("standard input is closed")
        return sys.stdin.buffer
    try:
        return open(file, "rb")
    except OSError as error:
        raise UsageError(f"cannot read {file}: {error.strerror}") from error
