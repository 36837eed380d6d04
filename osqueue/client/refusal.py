"""What the broker says when it refuses, as the error that the caller gets."""

from __future__ import annotations

import re

from osqueue import errors
from osqueue.core.messages import Refused
from osqueue.errors import OsqueueError


def to_error(refused: Refused) -> Exception:
    """The error that a refusal stands for."""
    return named_error(refused.code, refused.message)


def named_error(code: str, message: str) -> Exception:
    """The error whose class name is ``code`` in snake case; `OsqueueError` for one that only a newer broker knows."""
    return _BY_CODE.get(code, OsqueueError)(message)


def _snake_case(name: str) -> str:
    return re.sub(r"(?<=.)(?=[A-Z])", "_", name).lower()


_BY_CODE: dict[str, type[Exception]] = {
    "value_error": ValueError,
    "type_error": TypeError,
    "os_error": OSError,
    **{_snake_case(kind.__name__): kind for kind in OSError.__subclasses__() if kind.__module__ == "builtins"},
    **{
        _snake_case(name): kind
        for name, kind in vars(errors).items()
        if isinstance(kind, type) and issubclass(kind, OsqueueError)
    },
}
