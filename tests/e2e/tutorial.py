"""A page of Markdown as a session: what its blocks say is typed into one real shell, and what comes out is compared.

How a page is read, so that a reader sees ordinary Markdown:

* A ``console`` block is typed: a line that begins with ``$ `` is a command, lines that begin with ``> `` continue it,
  and what follows is its output, in which ``...`` stands for anything, as in doctest. ``^C`` there is a Ctrl-C, pressed
  as soon as the output before it has come. The output of a command that ends in ``&`` is waited for. What the shell
  itself says of background jobs ("[1]+  Done …") is left out.
* A block of any other kind after a paragraph that ends in "`name`:" is the file of that name.
* A block after a paragraph that says "(not run by the test)" is left out.
* Anything else is not understood, and an error.
"""

from __future__ import annotations

import doctest
import os
import re
import signal
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.e2e.program import environment, processes_of
from tests.e2e.waiting import wait_for

NOT_RUN = "(not run by the test)"
INTERRUPT = "^C\n"
COMMAND_S = 100
END_S = 20
_NOTICE = re.compile(r"^\[\d+\].*\n", re.MULTILINE)
_FILE = re.compile(r"`([\w./-]+)`:$")
# Jobs have process groups of their own, as at a terminal, so that `kill %1` and Ctrl-C reach what they reach there.
_FIRST = "set -m; trap : INT; status=0; again() { return $status; }\n"
# A command finds the status of the one before it in `$?`.
_BEFORE = "again\n"
_AFTER = "{ status=$?; printf 'done\\n' >&%d; }\n"
_PROGRAM = """
import sys
from osqueue.cli import main

if __name__ == "__main__":
    sys.exit(main())
"""


@dataclass(frozen=True)
class File:
    """A file that the reader writes."""

    line: int
    name: str
    text: str


@dataclass(frozen=True)
class Command:
    """What the reader types, and what comes then."""

    line: int
    typed: str
    output: str


@dataclass(frozen=True)
class LeftOut:
    """A block that says itself that nobody runs it."""

    line: int


Step = File | Command | LeftOut


class NotUnderstoodError(Exception):
    """A block that is neither written, nor typed, nor marked as left out."""


def steps(page: str) -> Iterator[Step]:
    """What a reader of the page does, in order."""
    paragraph = ""
    lines = iter(enumerate(page.splitlines(), 1))
    for number, line in lines:
        if not line.lstrip().startswith("```"):
            paragraph = line if line.strip() else paragraph
            continue
        language = line.strip().removeprefix("```")
        block = []
        for _, inside in lines:
            if inside.strip() == "```":
                break
            block.append(inside + "\n")
        else:
            raise NotUnderstoodError(f"line {number}: the block has no end")
        yield from _block(number, language, paragraph, block)
        paragraph = ""


def _block(number: int, language: str, paragraph: str, block: list[str]) -> Iterator[Step]:
    if paragraph.endswith((NOT_RUN, NOT_RUN + ":")):
        yield LeftOut(number)
    elif language == "console" and block and block[0].startswith("$ "):
        yield from _commands(number, block)
    elif language != "console" and (named := _FILE.search(paragraph)):
        yield File(number, named[1], "".join(block))
    else:
        raise NotUnderstoodError(
            f"line {number}: a block ({language or 'no language'}) of which nobody knows what it is"
        )


def _commands(number: int, block: list[str]) -> Iterator[Command]:
    line, typed, output = number, "", ""
    for offset, text in enumerate(block, 1):
        if text.startswith("$ "):
            if typed:
                yield Command(line, typed, output)
            line, typed, output = number + offset, text[2:], ""
        elif text.startswith("> ") and not output:
            typed += text[2:]
        else:
            output += text
    yield Command(line, typed, output)


class Session:
    """One shell in a directory. Its ``with`` block ends as the session does: nothing that was started may run on.

    Args:
        directory: where the reader works; what the session itself needs lies beside it.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir()
        self._output = (directory.parent / "output.txt").open("a+b")
        self._seen = 0
        # Not below the directory: multiprocessing makes sockets in it, whose paths must be short.
        self._temporary = tempfile.TemporaryDirectory(prefix="tutorial-")
        commands, self._commands = os.pipe()
        self._ended, ended = os.pipe()
        self._after = _AFTER % ended
        self._shell = subprocess.Popen(
            ["bash", "--norc", f"/dev/fd/{commands}"],
            cwd=directory,
            env=self._environment(),
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=self._output,
            pass_fds=(commands, ended),
            process_group=0,
        )
        os.close(commands)
        os.close(ended)
        os.set_blocking(self._ended, False)
        os.write(self._commands, _FIRST.encode())

    def _environment(self) -> dict[str, str]:
        """The reader's, in which `python` and `osqueue` are those of the interpreter that runs this."""
        programs = self._directory.parent / "bin"
        programs.mkdir()
        script = programs / "osqueue-program"
        script.write_text(_PROGRAM)
        for name, arguments in (("python", ""), ("osqueue", f"'{script}'")):
            (programs / name).write_text(f"#!/bin/sh\nexec '{sys.executable}' {arguments} \"$@\"\n")
            (programs / name).chmod(0o755)
        return {
            **environment(),
            "PATH": f"{programs}:{os.environ['PATH']}",
            "PYTHONUNBUFFERED": "1",  # as at a terminal: output and errors in the order in which they are said
            "TMPDIR": self._temporary.name,
            "LC_ALL": "C.UTF-8",
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        os.close(self._commands)
        try:
            if error is None:
                assert self._shell.wait(COMMAND_S) == 0
                wait_for(lambda: not processes_of(self._directory), END_S)
        finally:
            self._shell.kill()
            self._shell.wait()
            for pid in processes_of(self._directory):
                os.kill(pid, signal.SIGKILL)
            os.close(self._ended)
            self._output.close()
            self._temporary.cleanup()

    def write(self, file: File) -> None:
        path = self._directory / file.name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(file.text)

    def type(self, command: Command) -> None:
        """Type a command and compare what comes; fail with both if that is something else."""
        os.write(self._commands, (_BEFORE + command.typed + self._after).encode())
        before, interrupted, _ = command.output.partition(INTERRUPT)
        if interrupted:
            self._wait_for(lambda: _fits(before, self._new()), command)
            self._interrupt()
        self._wait_for(self._is_ended, command)
        wanted = command.output.replace(INTERRUPT, "")
        if command.typed.rstrip().endswith("&"):
            self._wait_for(lambda: _fits(wanted, self._new()), command)
        seen, got = self._seen + len(self._raw()), self._new()
        assert _fits(wanted, got), self._difference(command, got)
        self._seen = seen

    def _new(self) -> str:
        """What came since the last command's output, without what the shell says itself."""
        return _NOTICE.sub("", self._raw().decode())

    def _raw(self) -> bytes:
        return os.pread(self._output.fileno(), 1 << 20, self._seen)

    def _is_ended(self) -> bool:
        try:
            return os.read(self._ended, 5) == b"done\n"
        except BlockingIOError:
            return False

    def _wait_for(self, condition: Callable[[], bool], command: Command) -> None:
        try:
            wait_for(lambda: condition() or self._shell.poll() is not None, COMMAND_S)
            assert self._shell.returncode is None, "the shell has ended"
        except AssertionError as error:
            raise AssertionError(self._difference(command, self._new())) from error

    def _interrupt(self) -> None:
        """Ctrl-C: the group in the foreground, which is the shell's newest child."""
        [*_, newest] = Path(f"/proc/{self._shell.pid}/task/{self._shell.pid}/children").read_text().split()
        os.killpg(int(newest), signal.SIGINT)

    def _difference(self, command: Command, got: str) -> str:
        texts = [("typed", command.typed), ("wanted", command.output), ("got", got)]
        shown = "\n".join(f"{name}:\n{textwrap.indent(text, '    ')}" for name, text in texts)
        return f"line {command.line} of the page\n{shown}"


def _fits(wanted: str, got: str) -> bool:
    return doctest.OutputChecker().check_output(wanted, got, doctest.ELLIPSIS)
