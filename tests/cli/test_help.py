from __future__ import annotations

from pathlib import Path

import pytest

from osqueue import __version__
from tests.cli.command_line import osqueue, succeed

COMMANDS = [
    "run",
    "work",
    "serve",
    "push",
    "status",
    "list",
    "show",
    "history",
    "requeue",
    "discard",
    "cancel",
    "prune",
    "verify",
]


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
def test_without_a_command_all_commands_are_listed(arguments: list[str], tmp_path: Path) -> None:
    output = succeed(*arguments, cwd=tmp_path)

    assert [name for name in COMMANDS if f"\n  {name}" not in output] == []


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_explains_itself(command: str, tmp_path: Path) -> None:
    assert f"osqueue {command}" in succeed(command, "--help", cwd=tmp_path)


def test_the_version_is_printed(tmp_path: Path) -> None:
    assert succeed("--version", cwd=tmp_path) == f"osqueue {__version__}\n"


def test_an_unknown_command_is_wrong_usage_and_names_the_nearest(tmp_path: Path) -> None:
    done = osqueue("stauts", "jobs", cwd=tmp_path)

    assert done.returncode == 2
    assert "did you mean 'status'?" in done.stderr


def test_an_unknown_option_is_wrong_usage(tmp_path: Path) -> None:
    assert osqueue("status", "jobs", "--colour", cwd=tmp_path).returncode == 2
