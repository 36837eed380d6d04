"""Handlers as commands name them: ``[TASK=]module:function``, found in the current directory or on Python's path.

Rules:
* A mistyped name is refused before anything starts, by a look at the module's source: no code of the user's runs in the
  command's own process.
* Where the source does not show a function of that name, an interpreter of its own imports the module, and has the last
  word.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from osqueue.cli.exit_status import UsageError
from osqueue.jobs import DEFAULT_TASK, check_task_name, handler_name

_IMPORT = """
import os, sys
answer, name, *sys.path[:] = int(sys.argv[1]), *sys.argv[2:]
from osqueue.jobs import find_function
try:
    find_function(name)
except BaseException as error:
    os.write(answer, f"{type(error).__name__}: {error}".encode(errors="backslashreplace")[:4096])
os._exit(0)
"""


def parse_handlers(specs: Sequence[str]) -> dict[str, str]:
    """Handlers by task; one without a task's name is the handler of ``default``.

    Raises:
        UsageError: one of them is no handler, or two are for the same task.
    """
    handlers: dict[str, str] = {}
    for spec in specs:
        task, sign, name = spec.rpartition("=")
        task = task if sign else DEFAULT_TASK
        try:
            check_task_name(task)
            handler_name(name)
        except (TypeError, ValueError) as error:
            raise UsageError(
                f"{spec!r} is no handler; write module:function or TASK=module:function: {error}"
            ) from None
        if task in handlers:
            raise UsageError(f"two handlers for one task; write TASK=module:function task={task}")
        handlers[task] = name
    return handlers


def check_handler(name: str) -> None:
    """Refuse what no worker could import, as far as can be seen before one tries.

    Raises:
        UsageError: there is no such module or name, or it is no function; the message says which.
    """
    _make_importable()
    module, _, function = name.partition(":")
    source = _source_of(module)
    if source is None or not re.search(rf"^(async\s+)?def\s+{re.escape(function)}\b", source, re.MULTILINE):
        _import_elsewhere(name)


def _make_importable() -> None:
    """Put the current directory where workers look for modules."""
    if (here := os.getcwd()) not in sys.path:
        sys.path.insert(0, here)


def _source_of(module: str) -> str | None:
    """The module's source; None if it has none, or is not found without an import.

    Raises:
        UsageError: there is no such top-level module.
    """
    first, *rest = module.split(".")
    try:
        spec = importlib.util.find_spec(first)
    except (ImportError, ValueError):
        spec = None
    if spec is None:
        raise UsageError(f"there is no module {first!r} here or on Python's path handler={module}")
    for part in range(len(rest)):
        # Not `find_spec` with the whole name, which imports the packages on the way.
        full = ".".join((first, *rest[: part + 1]))
        spec = importlib.machinery.PathFinder.find_spec(full, spec.submodule_search_locations or [])
        if spec is None:
            return None
    if spec.origin is None or not spec.origin.endswith(".py"):
        return None
    try:
        return Path(spec.origin).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None


def _import_elsewhere(name: str) -> None:
    answers, answer = os.pipe()
    command = [sys.executable, "-c", _IMPORT, str(answer), name, *sys.path]
    with open(answers, "rb") as stream:
        try:
            # What the module prints as it is imported is none of this command's output.
            process = subprocess.Popen(command, pass_fds=[answer], stdin=subprocess.DEVNULL, stdout=sys.stderr)
        finally:
            os.close(answer)
        told = stream.read().decode()
        status = process.wait()
    if status and not told:
        told = f"the interpreter that tried it ended with status {status}"
    if told:
        raise UsageError(f"workers could not import the handler: {told} handler={name}")
