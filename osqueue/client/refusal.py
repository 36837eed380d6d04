"""What the broker says when it refuses, as the error that the caller gets."""

from __future__ import annotations

from osqueue import errors
from osqueue.core.messages import Refused
from osqueue.errors import OsqueueError, code_of


def to_error(refused: Refused) -> Exception:
    """The error that a refusal stands for."""
    error = named_error(refused.code, refused.message)
    if isinstance(error, errors.Corrupt):
        error.key = refused.key or None
    return error


def named_error(code: str, message: str) -> Exception:
    """The error whose class name is ``code`` in snake case; `OsqueueError` for one that only a newer broker knows."""
    return _BY_CODE.get(code, OsqueueError)(message)


_BY_CODE: dict[str, type[Exception]] = {
    "value_error": ValueError,
    "type_error": TypeError,
    "os_error": OSError,
    **{code_of(kind): kind for kind in OSError.__subclasses__() if kind.__module__ == "builtins"},
    **{
        code_of(kind): kind
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, OsqueueError)
    },
}
