"""The command line: ``osqueue COMMAND …``.

Each command is a `Command` in a file of its group; here they are listed, found by name and run, and what ends them
becomes an exit status (`osqueue.cli.exit_status`).
"""

from __future__ import annotations

import contextlib
import difflib
import logging
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from types import FrameType

import osqueue
from osqueue.cli import change, exit_status, inspection, prune, push, run, serve, verification, work
from osqueue.cli.command import Command
from osqueue.host import refuse_windows

COMMANDS: tuple[Command, ...] = (
    run.RUN,
    work.WORK,
    serve.SERVE,
    push.PUSH,
    *inspection.COMMANDS,
    *change.COMMANDS,
    prune.PRUNE,
    verification.VERIFY,
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit status; wrong usage raises ``SystemExit(2)``, as argparse does."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    logging.basicConfig(level=logging.WARNING, format="osqueue: %(message)s", stream=sys.stderr)
    if sys.stdout is None:
        # Before anything is done: the next file that is opened would get its descriptor, and what is printed.
        _say("standard output is closed; > /dev/null drops it")
        return exit_status.STORE_FAILED
    try:
        with _sigterm_raises():
            refuse_windows()
            status = _dispatch(arguments)
            sys.stdout.flush()
            return status
    except BrokenPipeError:
        _forget_output()
        return exit_status.OUTPUT_CLOSED
    except (Exception, KeyboardInterrupt) as error:
        status_of_error = exit_status.of(error)
        if status_of_error is None:
            raise
        _say(str(error) or _named(error))
        return status_of_error


def _dispatch(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_help())
        return exit_status.DONE
    if arguments[0] in ("-V", "--version"):
        print(f"osqueue {osqueue.__version__}")
        return exit_status.DONE
    name, *rest = arguments
    for command in COMMANDS:
        if command.name == name:
            return command(rest)
    near = difflib.get_close_matches(name, [command.name for command in COMMANDS], n=1)
    hint = f"; did you mean {near[0]!r}?" if near else "; `osqueue --help` lists them"
    raise exit_status.UsageError(f"there is no command {name!r}{hint}")


def _help() -> str:
    lines = ["usage: osqueue COMMAND …", "", "A durable job queue in a directory.", "", "commands:"]
    lines += [f"  {command.name:9}{command.summary}" for command in COMMANDS]
    lines += ["", "`osqueue COMMAND --help` says more. `osqueue --version` prints the version."]
    return "\n".join(lines)


@contextlib.contextmanager
def _sigterm_raises() -> Iterator[None]:
    def raise_terminated(_signum: int, _frame: FrameType | None) -> None:
        raise exit_status.Terminated("stopped by SIGTERM")

    previous = signal.signal(signal.SIGTERM, raise_terminated)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def _forget_output() -> None:
    # The interpreter flushes standard output once more as it ends, which would raise again.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _named(error: BaseException) -> str:
    return "stopped by Ctrl-C" if isinstance(error, KeyboardInterrupt) else type(error).__name__


def _say(message: str) -> None:
    print(f"osqueue: {message}", file=sys.stderr)
