"""What a command is, and the types of its options.

Rules:
* Each command has a parser of its own: subparsers refuse options between operands (``push jobs/ --priority 3 '{}'``).
* A type function raises `argparse.ArgumentTypeError`, which argparse turns into a usage error (exit status 2).
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

_UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}


@dataclass(frozen=True)
class Command:
    """One command: its name, a line that says what it does, its options, and what runs it and returns its status."""

    name: str
    summary: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]

    def parser(self) -> argparse.ArgumentParser:
        parser = argparse.ArgumentParser(
            prog=f"osqueue {self.name}", description=self.summary, allow_abbrev=False, add_help=True
        )
        self.add_arguments(parser)
        return parser

    def __call__(self, arguments: Sequence[str]) -> int:
        """Parse the arguments, options and operands mixed, and run the command."""
        return self.run(self.parser().parse_intermixed_args(arguments))


def add_target(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("target", metavar="TARGET", help="the queue's directory")


def add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON: one document, or one object a line")


def add_grace(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--grace", metavar="S", type=seconds, default=10.0, help="seconds to wait before a stop kills")


def given(**options: Any) -> dict[str, Any]:
    """The options that were given; the others are left to the defaults of what they are passed to."""
    return {name: value for name, value in options.items() if value is not None}


def seconds(text: str) -> float:
    """A duration: ``90``, ``1.5``, ``500ms``, ``30s``, ``5m``, ``1h``, ``7d``, ``2w``."""
    number = text.rstrip("abcdefghijklmnopqrstuvwxyz")
    unit = text[len(number) :] or "s"
    try:
        value = float(number) * _UNITS_S[unit]
    except (KeyError, ValueError):
        raise argparse.ArgumentTypeError(f"{text!r} is no duration; write seconds, or 500ms, 5m, 1h, 7d") from None
    if not math.isfinite(value) or value < 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no duration of zero or more seconds")
    return value


def count(text: str) -> int:
    """A whole number from 1."""
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1")
    return value
