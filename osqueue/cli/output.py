"""How records and counts are printed.

Rules:
* ``--json`` prints payloads and results as the JSON that they are; other bytes as ``payload_base64``,
  ``result_base64``, as on disk.
* For people, whatever came from a payload, an error or a name is made printable: no stored byte controls a terminal.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice

import msgspec

from osqueue.core.codec import clean
from osqueue.core.messages import JobRecord

_ROWS_MEASURED = 200
_WIDEST_PAYLOAD = 60


def print_json(value: object) -> None:
    sys.stdout.write(msgspec.json.encode(value).decode() + "\n")


def record_document(record: JobRecord) -> dict[str, object]:
    """A record as one JSON object: the archive's fields, then those of a job that still lives."""
    return {
        "id": record.id,
        "task": record.task,
        **_value("payload", record.payload),
        "state": record.state,
        "priority": record.priority,
        "attempts": record.attempts,
        "errors": record.errors,
        **_value("result", record.result),
        "pushed_at": record.pushed_at,
        "due_at": record.due_at,
        "started_at": record.started_at,
        "finished_at": record.finished_at,
        "worker": record.worker,
        **({} if record.key is None else {"key": record.key}),
        "progress": record.progress,
        "progress_message": record.progress_message,
    }


def _value(name: str, data: bytes | None) -> dict[str, object]:
    if data is None:
        return {name: None}
    if clean([data])[0]:
        return {name: msgspec.Raw(data)}
    return {f"{name}_base64": data}


def jobs_and(count: int, verbs: tuple[str, str] = ("", "")) -> str:
    """How many jobs, and what they do: ``1 job waits``, ``2 jobs wait``; ``verbs`` are of one and of many."""
    one, many = verbs
    return (f"1 job {one}" if count == 1 else f"{count} jobs {many}").rstrip()


def counted(count: int, noun: str) -> str:
    """How many things: ``1 segment``, ``2 segments``."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def printable(text: str) -> str:
    """The text with everything that is not printable escaped, on one line."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def shown(data: bytes | None) -> str:
    """A payload or result for people."""
    return "" if data is None else printable(data.decode("utf-8", "backslashreplace"))


def moment(text: str | None) -> str:
    """An ISO 8601 time for people: whole seconds, and a Z for UTC."""
    return f"{text[:19].replace('T', ' ')}Z" if text else ""


def print_table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print aligned columns as the rows come; the last column is cut to the terminal's width.

    Widths follow the header and the first rows, so that a million rows need no memory.
    """
    source = iter(rows)
    first = list(islice(source, _ROWS_MEASURED))
    if not first:
        return
    columns = [_Column(header, cells) for header, *cells in zip(headers, *first, strict=True)]
    for row in chain([headers], first, source):
        sys.stdout.write(_line(row, columns) + "\n")


class _Column:
    """A column's width, and its side: numbers stand right."""

    def __init__(self, header: str, cells: Sequence[str]) -> None:
        self._width = max(map(len, (header, *cells)))
        self._is_number = all(map(str.isdigit, cells))

    def aligned(self, cell: str) -> str:
        return cell.rjust(self._width) if self._is_number else cell.ljust(self._width)

    def cut(self, cell: str, room: int) -> str:
        """The cell of a last column."""
        text = cell if len(cell) <= room else cell[: room - 1] + "…"
        return text.rjust(min(self._width, room)) if self._is_number else text


def _line(row: Sequence[str], columns: Sequence[_Column]) -> str:
    *cells, last = row
    start = "".join(f"{column.aligned(cell)}  " for cell, column in zip(cells, columns, strict=False))
    return start + columns[-1].cut(last, _room(len(start)))


def _room(taken: int) -> int:
    if not sys.stdout.isatty():
        return _WIDEST_PAYLOAD
    return max(shutil.get_terminal_size().columns - taken, 10)


def indented(text: str) -> Iterator[str]:
    """Lines of a longer text, such as a traceback, each printable and indented."""
    return (f"    {printable(line)}" for line in text.expandtabs().splitlines())
