"""``osqueue verify``: check every byte of a queue, without opening it."""

from __future__ import annotations

import argparse
from contextlib import closing

from osqueue.cli import exit_status
from osqueue.cli.command import Command, add_json
from osqueue.cli.exit_status import CannotOpen
from osqueue.cli.output import jobs_and, print_json, printable
from osqueue.cli.target import find_directory
from osqueue.errors import OsqueueError
from osqueue.storage import Reader, open_reader
from osqueue.verify import Findings, verify


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path", metavar="PATH", help="the queue's directory, open elsewhere or not")
    add_json(parser)


def _run(options: argparse.Namespace) -> int:
    directory = find_directory(options.path)
    try:
        reader: Reader = open_reader(directory)
    except (OsqueueError, OSError, ValueError) as error:
        raise CannotOpen(str(error)) from error
    with closing(reader):
        findings = verify(reader)
    if options.json:
        print_json(findings)
    else:
        _print(findings)
    return exit_status.FAILED if findings.problems else exit_status.DONE


def _print(findings: Findings) -> None:
    for problem in findings.problems:
        print(f"{problem.name}: {printable(problem.key)}: {printable(problem.detail)}")
    print(
        f"{jobs_and(findings.waiting, ('waits or runs', 'wait or run'))}, {findings.dead} dead, "
        f"{findings.finished} finished; "
        f"{findings.segments} segments, {findings.archive_objects} archive objects, {findings.leftovers} leftovers; "
        f"{len(findings.problems) or 'no'} problem{'s' if len(findings.problems) != 1 else ''}"
    )


VERIFY = Command("verify", "check every byte of a queue, changing nothing", _add_arguments, _run)
