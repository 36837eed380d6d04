"""``osqueue prune``: delete what was archived long ago."""

from __future__ import annotations

import argparse

from osqueue.cli import exit_status
from osqueue.cli.command import Command, add_json, add_target, seconds
from osqueue.cli.output import counted, jobs_and, print_json
from osqueue.cli.target import open_queue


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add_target(parser)
    parser.add_argument(
        "--older-than", metavar="AGE", type=seconds, required=True, help="30d, 12h …: what ended longer ago goes"
    )
    add_json(parser)


def _run(options: argparse.Namespace) -> int:
    with open_queue(options.target) as queue:
        pruned = queue.prune(options.older_than)
    if options.json:
        print_json({"objects": pruned.objects, "jobs": pruned.jobs, "damaged": pruned.damaged})
        return exit_status.DONE
    if pruned.damaged:
        damaged = counted(pruned.damaged, "archive object")
        print(f"{damaged} left alone, being damaged: see osqueue verify {options.target}")
    print(f"pruned {counted(pruned.objects, 'archive object')} with {jobs_and(pruned.jobs)}")
    return exit_status.DONE


PRUNE = Command("prune", "delete finished jobs from the archive, by age", _add_arguments, _run)
