"""docs/contract.md against the package and its tests: nothing in it is gone, and nothing public is missing from it."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from msgspec import Struct

import osqueue
from osqueue.cli import COMMANDS

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "contract.md"
SPANS = re.compile(r"`([^`]+)`")
TABLES = ("item", "behaviour")
CALLABLE = [
    osqueue.LocalPool, osqueue.JobFuture, osqueue.CurrentJob, osqueue.Client, osqueue.Broker, osqueue.Queue,
]  # fmt: skip
FOR_THE_POOL = {"settle", "settle_error", "settle_cancelled"}
"""Methods of a future that its user has no business with."""
MADE_BY_USERS = [osqueue.LocalPool, osqueue.Queue, osqueue.Retry, osqueue.Discard]
"""Classes whose own arguments are public; the others are made by methods."""


# -------------------------------------------------------------------------------------------------------- what there is


def public_names() -> Iterator[str]:
    """Every name that the page must have, as the page writes it: ``Class.method(argument)``, ``osqueue run --file``."""
    yield from osqueue.__all__
    for kind in MADE_BY_USERS:
        yield from called(kind.__name__, kind)
    for kind in CALLABLE:
        yield from members(kind)
    for name in osqueue.__all__:
        kind = getattr(osqueue, name)
        if isinstance(kind, type) and issubclass(kind, Struct):
            yield from (f"{name}.{field}" for field in kind.__struct_fields__ if not field.startswith("_"))
    yield "Unavailable.again"
    for command in COMMANDS:
        yield f"osqueue {command.name}"
        for action in command.parser()._actions:
            if action.option_strings and action.dest != "help":
                yield f"osqueue {command.name} {max(action.option_strings, key=len)}"


def called(name: str, function: object) -> Iterator[str]:
    for argument in inspect.signature(function).parameters:  # type: ignore[arg-type]
        if argument not in {"self", "excess"}:
            yield f"{name}({argument})"


def members(kind: type) -> Iterator[str]:
    for name in vars(kind):
        if name.startswith("_") or name in FOR_THE_POOL:
            continue
        yield f"{kind.__name__}.{name}"
        bound = getattr(kind, name)
        if inspect.isroutine(bound) and not inspect.isdatadescriptor(bound):
            yield from called(f"{kind.__name__}.{name}", bound)


# --------------------------------------------------------------------------------------------------- what the page says


@cache
def rows() -> list[list[str]]:
    """The rows of the page's tables, as cells; the first of each table is its head."""
    lines = PAGE.read_text().splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]


def items() -> Iterator[str]:
    """What the first cells of tables of items name, each argument and option on its own."""
    of_items = False
    for first, *_ in rows():
        if first in TABLES:
            of_items = first == "item"
        elif of_items:
            for span in SPANS.findall(first):
                yield from spelt_out(span)


def spelt_out(span: str) -> Iterator[str]:
    if span.startswith("osqueue "):
        program, command, *options = span.split()
        yield f"{program} {command}"
        yield from (f"{program} {command} {option}" for option in options)
        return
    name, _, arguments = span.partition("(")
    yield name
    yield from (f"{name}({argument.strip()})" for argument in arguments.rstrip(")").split(",") if arguments)


def named_tests() -> list[str]:
    return sorted({span for row in rows() if not row[-1].startswith("-") for span in SPANS.findall(row[-1])})


def exists(node: str) -> bool:
    path, _, name = node.partition("::")
    return (ROOT / path).is_file() and name in names_in(path)


@cache
def names_in(path: str) -> frozenset[str]:
    """The tests of a file, without importing it."""
    tree = ast.parse((ROOT / path).read_text())
    functions = (node for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    return frozenset(node.name for node in functions if node.name.startswith("test"))


# ------------------------------------------------------------------------------------------------------------ the tests


def test_every_test_that_the_page_names_exists() -> None:
    named = named_tests()

    assert len(named) > 100
    assert [node for node in named if not exists(node)] == []


def test_every_row_names_a_test() -> None:
    heads = {"item", "behaviour"}

    assert [row for row in rows() if row[0] not in heads and not row[0].startswith("-") and "::" not in row[-1]] == []


def test_no_public_name_is_missing_from_the_page() -> None:
    assert sorted(set(public_names()) - set(items())) == []


def test_no_row_names_what_does_not_exist() -> None:
    assert sorted(set(items()) - set(public_names())) == []
