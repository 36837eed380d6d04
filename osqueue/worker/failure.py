"""What a handler raised, as text that crosses: type name, message, traceback.

Rules:
* Nothing of the exception itself crosses, so nothing needs to be picklable.
* The traceback begins at the handler: frames of osqueue and of its event loop above it are left out.
* Message and traceback are at most 2 KiB each; of a longer traceback the end is kept, which says what happened.
"""

from __future__ import annotations

import asyncio
import os
import traceback
from types import TracebackType

from osqueue import errors
from osqueue.core.messages import JobError

MAX_TEXT_BYTES = 2048
_CUT = "… "
_OWN_DIRECTORIES = tuple(
    os.path.join(os.path.dirname(os.path.abspath(str(module.__file__))), "") for module in (errors, asyncio)
)


def describe(error: BaseException, *, attempt: int) -> JobError:
    """The error as data; never raises."""
    return JobError(
        error_type=type(error).__name__,
        message=cut_end(_message(error)),
        traceback=keep_end(_traceback(error)),
        attempt=attempt,
    )


def handler_frames(faults: str) -> str:
    """A report of `faulthandler` without osqueue's own frames, at most 2 KiB of its beginning.

    Its frames stand innermost first, so the handler's come before ours.
    """
    kept = []
    for line in faults.splitlines():
        if any(f'File "{directory}' in line for directory in _OWN_DIRECTORIES):
            break
        kept.append(line)
    return cut_end("\n".join(kept).strip())


def cut_end(text: str) -> str:
    """At most 2 KiB of the text's beginning, as clean UTF-8."""
    data = text.encode(errors="backslashreplace")
    if len(data) <= MAX_TEXT_BYTES:
        return data.decode()
    room = MAX_TEXT_BYTES - len(_CUT.encode())
    return data[:room].decode(errors="ignore") + _CUT


def keep_end(text: str) -> str:
    """At most 2 KiB of the text's end, as clean UTF-8."""
    data = text.encode(errors="backslashreplace")
    if len(data) <= MAX_TEXT_BYTES:
        return data.decode()
    room = MAX_TEXT_BYTES - len(_CUT.encode())
    return _CUT + data[-room:].decode(errors="ignore")


def _message(error: BaseException) -> str:
    try:
        return str(error)
    except BaseException as second:  # noqa: BLE001
        # A broken __str__ must not hide that the attempt failed; SystemExit from it neither.
        return f"(its message cannot be read: {type(second).__name__})"


def _traceback(error: BaseException) -> str:
    try:
        return "".join(traceback.format_exception(type(error), error, _from_handler(error.__traceback__)))
    except BaseException as second:  # noqa: BLE001
        # Formatting calls __str__ and reads source files: as above.
        return f"(its traceback cannot be written: {type(second).__name__})"


def _from_handler(frames: TracebackType | None) -> TracebackType | None:
    """The frames from the first that is not ours; none at all if every one is."""
    while frames is not None and _is_ours(frames):
        frames = frames.tb_next
    return frames


def _is_ours(frame: TracebackType) -> bool:
    return os.path.abspath(frame.tb_frame.f_code.co_filename).startswith(_OWN_DIRECTORIES)
