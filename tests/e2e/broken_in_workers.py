"""A module that the program can import, and its workers cannot."""

from __future__ import annotations

import multiprocessing

if multiprocessing.parent_process() is not None:
    import missing_only_in_a_worker  # noqa: F401


def double(number):
    return number * 2
