"""The tutorial's session, typed as it stands in docs/tutorial.md."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from tests.e2e.program import REPOSITORY
from tests.e2e.tutorial import Command, File, LeftOut, NotUnderstoodError, Session, Step, steps

TUTORIAL = REPOSITORY / "docs" / "tutorial.md"


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_the_tutorial_works_line_by_line_as_typed(tmp_path: Path) -> None:
    not_typed = []
    with Session(tmp_path / "tutorial") as session:
        for step in steps(TUTORIAL.read_text()):
            match step:
                case File():
                    session.write(step)
                case Command() if re.search(r"\bjq\b", step.typed) and shutil.which("jq") is None:
                    not_typed.append(step.typed)
                case Command():
                    session.type(step)

    if not_typed:
        pytest.skip(f"all the rest works, but jq is not installed: {not_typed}")


def test_only_the_installation_is_left_out_of_the_tutorial() -> None:
    page = TUTORIAL.read_text()

    left_out = [page.splitlines()[step.line] for step in steps(page) if isinstance(step, LeftOut)]

    assert left_out == ["$ pip install ."]


# ------------------------------------------------------------------------------------------------- how a page is read


def read(page: str) -> list[Step]:
    return list(steps(page))


def test_a_block_is_a_file_a_session_or_marked_as_left_out() -> None:
    page = """
Write this to `a/b.py`:

```python
print("```")
```

Now for `cat`:

```console
$ cat <<END
> one
> END
one
$ true
```

For later (not run by the test):

```sh
make
```
"""

    assert read(page) == [
        File(4, "a/b.py", 'print("```")\n'),
        Command(11, "cat <<END\none\nEND\n", "one\n"),
        Command(15, "true\n", ""),
        LeftOut(20),
    ]


@pytest.mark.parametrize(
    "page",
    [
        "Look:\n\n```python\nprint(1)\n```\n",
        "`a.py`:\n\n```python\n```\n\n```python\n```\n",
        "```console\nls\n```\n",
        "```console\n```\n",
        "```\n$ ls\n```\n",
        "```console\n$ ls\n",
    ],
    ids=["no name", "a name for one block", "no prompt", "empty", "no kind", "no end"],
)
def test_a_block_that_is_none_of_these_is_refused(page: str) -> None:
    with pytest.raises(NotUnderstoodError, match="line"):
        read(page)


# ------------------------------------------------------------------------------------------------- what a session does


def type_all(tmp_path: Path, page: str) -> None:
    with Session(tmp_path / "session") as session:
        for step in read(page):
            assert isinstance(step, Command)
            session.type(step)


def test_a_session_has_statuses_jobs_and_ctrl_c(tmp_path: Path) -> None:
    type_all(
        tmp_path,
        """
```console
$ false
$ echo $?
1
$ cd / && pwd
/
$ cat <<END
> two
>   lines
> END
two
  lines
$ python -c 'import time; print("ready"); time.sleep(100); print("later")'
ready
^C
Traceback (most recent call last):
...
KeyboardInterrupt
$ echo $?
130
$ sleep 100 &
$ kill %1; wait
$ sh -c 'sleep 0.2; echo later' &
later
```
""",
    )


@pytest.mark.parametrize("typed", ["echo two", "echo one; echo two", "true", "echo one >&2; exit 3"])
def test_other_output_than_the_pages_fails(typed: str, tmp_path: Path) -> None:
    with pytest.raises(AssertionError):
        type_all(tmp_path, f"```console\n$ {typed}\none\n```\n")


def test_a_process_that_is_left_fails_and_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.e2e.tutorial.END_S", 0.2)

    with pytest.raises(AssertionError):
        type_all(tmp_path, "```console\n$ sleep 100 &\n```\n")
