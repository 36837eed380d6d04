"""Bytes ⇄ structs, with the format number and a digest over every byte.

Rules:
* Payloads and results are spliced into JSON as they are, so they are checked first, once, at the edge (`clean`):
  one JSON value, valid UTF-8, no line break, at most 64 levels deep. Anything else stands as base64.
* A root ends in ``,"digest":"…"}`` over all bytes before it; a segment's digest is in the root's line, an archive
  object's in its name.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import TypeVar

import msgspec
from msgspec import UNSET, Raw

from osqueue.core.messages import JobRecord
from osqueue.core.model import FORMAT, Frame, Job, KeyLine, Record, Root, SegmentHead
from osqueue.errors import Corrupt

T = TypeVar("T")

MAX_DEPTH = 64
LAST_MS = 253_402_300_799_999
"""The last millisecond of the year 9999: later ones have no date."""
_DIGEST_FIELD = b',"digest":"'
_DIGEST_CHARS = 32
_TRAILER = len(_DIGEST_FIELD) + _DIGEST_CHARS + len(b'"}\n')

json_encoder = msgspec.json.Encoder()
_root_decoder = msgspec.json.Decoder(Root)
_job_decoder = msgspec.json.Decoder(Job)
_record_decoder = msgspec.json.Decoder(Record)
_key_decoder = msgspec.json.Decoder(KeyLine)
_raws_decoder = msgspec.json.Decoder(list[Raw])
_format_decoder = msgspec.json.Decoder(msgspec.defstruct("_Format", [("format", int)]))


def digest(data: bytes) -> str:
    """BLAKE2b with 128 bits, in hexadecimal."""
    return hashlib.blake2b(data, digest_size=_DIGEST_CHARS // 2).hexdigest()


# ------------------------------------------------------------------------------------------------------- edge checks


def clean(values: Sequence[bytes]) -> list[bool]:
    """Say of each value whether it may be spliced into JSON as it is."""
    different = set(values)
    if len(different) * 2 < len(values):
        known = dict(zip(different, clean(list(different)), strict=True))
        return [known[value] for value in values]
    joined = b"[" + b",".join(values) + b"]"
    if _plain(joined) and _holds_exactly(joined, values):
        return [_shallow(value) for value in values]
    return [_clean_alone(value) for value in values]


def _plain(joined: bytes) -> bool:
    # Escapes may hide half of a surrogate pair, which strict readers refuse; those go the slow way.
    return b"\n" not in joined and b"\r" not in joined and b"\\u" not in joined


def _holds_exactly(joined: bytes, values: Sequence[bytes]) -> bool:
    try:
        joined.decode()
        return list(map(bytes, _raws_decoder.decode(joined))) == list(values)
    except (UnicodeDecodeError, msgspec.DecodeError, RecursionError):
        return False


def _shallow(value: bytes) -> bool:
    if len(value) < 2 * MAX_DEPTH:
        return True
    return value.count(b"[") + value.count(b"{") <= MAX_DEPTH or _depth(value) <= MAX_DEPTH


def _depth(value: bytes) -> int:
    """Nesting of a valid JSON value."""
    deepest = depth = 0
    in_string = escaped = False
    for byte in value:
        if escaped:
            escaped = False
        elif in_string:
            in_string = byte != 0x22
            escaped = byte == 0x5C
        elif byte == 0x22:
            in_string = True
        elif byte in b"[{":
            depth += 1
            deepest = max(deepest, depth)
        elif byte in b"]}":
            depth -= 1
    return deepest


def _clean_alone(value: bytes) -> bool:
    if b"\n" in value or b"\r" in value or value != value.strip():
        return False
    try:
        value.decode()
        msgspec.json.decode(value)
    except (UnicodeDecodeError, msgspec.DecodeError, RecursionError):
        return False
    return _shallow(value) and _holds_exactly(b"[" + value + b"]", [value])


# ----------------------------------------------------------------------------------------------------------- the root


def encode_root(frame: Frame, sections: Sequence[tuple[str, bytes]]) -> bytes:
    """The root's bytes from its frame and its sections' own bytes, digest included."""
    parts = [json_encoder.encode(frame)[:-1]]
    parts.extend(b',"%b":%b' % (name.encode(), data) for name, data in sections)
    body = b"".join(parts)
    return b'%b%b%b"}\n' % (body, _DIGEST_FIELD, digest(body).encode())


def decode_root(data: bytes, *, key: str = "queue.json") -> Root:
    """Read a root.

    Raises:
        Corrupt: the digest does not match, or this is no root of a format that this version knows.
    """
    body, trailer = data[:-_TRAILER], data[-_TRAILER:]
    if trailer != _DIGEST_FIELD + digest(body).encode() + b'"}\n':
        raise corrupt(key, "its digest does not match its bytes")
    _check_format(data, key)
    try:
        return _root_decoder.decode(data)
    except msgspec.DecodeError as error:
        raise corrupt(key, str(error)) from None


def _check_format(data: bytes, key: str) -> None:
    try:
        number = _format_decoder.decode(data).format  # type: ignore[attr-defined]
    except msgspec.DecodeError as error:
        raise corrupt(key, str(error)) from None
    if number != FORMAT:
        raise corrupt(key, f"its format is {number}; this version of osqueue reads format {FORMAT} only")


def corrupt(key: str, why: str) -> Corrupt:
    """The error that says what is wrong with an object."""
    error = Corrupt(f"damaged or foreign object: {why}; see `osqueue verify` key={key}")
    error.key = key
    return error


# --------------------------------------------------------------------------------------------- segments and the archive


def check_digest(data: bytes, expected: str, *, key: str) -> None:
    """Compare an object's bytes with the digest by which it is named.

    Raises:
        Corrupt: they differ.
    """
    if digest(data) != expected:
        raise corrupt(key, "its digest does not match its bytes")


def encode_segment(number: int, epoch: int, jobs: list[Job]) -> bytes:
    """A segment's bytes: its head, then one job a line."""
    return json_encoder.encode(SegmentHead(FORMAT, number, epoch)) + b"\n" + json_encoder.encode_lines(jobs)


def decode_segment(data: bytes, *, expected_digest: str, key: str) -> list[Job]:
    """The jobs of a segment.

    Raises:
        Corrupt: the digest or the format does not match.
    """
    decoded = _decode_lines(_job_decoder, data, expected_digest, key)
    if not decoded:
        raise corrupt(key, "it holds no job")
    return decoded


def encode_keys(number: int, epoch: int, entries: list[KeyLine]) -> bytes:
    """The bytes of an object of keys: its head, then one entry a line."""
    return json_encoder.encode(SegmentHead(FORMAT, number, epoch)) + b"\n" + json_encoder.encode_lines(entries)


def decode_keys(data: bytes, *, expected_digest: str, key: str) -> list[KeyLine]:
    """The entries of an object of keys.

    Raises:
        Corrupt: the digest or the format does not match.
    """
    return _decode_lines(_key_decoder, data, expected_digest, key)


def _decode_lines(decoder: msgspec.json.Decoder[T], data: bytes, expected_digest: str, key: str) -> list[T]:
    """What follows an object's head."""
    check_digest(data, expected_digest, key=key)
    head, _, lines = data.partition(b"\n")
    _check_format(head, key)
    try:
        return decoder.decode_lines(lines)
    except msgspec.DecodeError as error:
        raise corrupt(key, str(error)) from None


def encode_record(record: Record) -> bytes:
    """One line of the archive, without its line break."""
    return json_encoder.encode(record)


def decode_record(line: bytes, *, key: str = "archive") -> JobRecord:
    """A line of the archive, as users see it.

    Raises:
        Corrupt: the line is no record.
    """
    try:
        record = _record_decoder.decode(line)
    except msgspec.DecodeError as error:
        raise corrupt(key, str(error)) from None
    return JobRecord(
        id=record.id,
        task=record.task,
        state=record.state,
        priority=0 if record.priority is UNSET else record.priority,
        payload=_either(record.payload, record.payload_base64) or b"",
        attempts=record.attempts,
        errors=record.errors,
        result=_either(record.result, record.result_base64) if record.state == "succeeded" else None,
        pushed_at=record.pushed_at,
        started_at=record.started_at,
        finished_at=record.finished_at,
        worker=record.worker,
        key=None if record.key is UNSET else record.key,
    )


def _either(raw: object, base64: object) -> bytes | None:
    if isinstance(raw, Raw):
        return bytes(raw)
    return base64 if isinstance(base64, bytes) else None


# ---------------------------------------------------------------------------------------------------------------- time


@lru_cache(maxsize=4096)
def iso(ms: int) -> str:
    """ISO 8601 UTC with milliseconds."""
    seconds, rest = divmod(ms, 1000)
    return f"{_iso_seconds(seconds)}.{rest:03d}Z"


@lru_cache(maxsize=4096)
def _iso_seconds(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def hour(ms: int) -> str:
    """The archive's bucket for a moment: ``YYYY-MM-DDTHH``."""
    return _iso_seconds(ms // 1000)[:13]
