"""Ids as runs are a sequence like any other."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from osqueue.client.runs import Ids, from_runs, to_runs

ascending = st.sets(st.integers(1, 60)).map(sorted)


@given(ascending)
def test_runs_and_back_are_the_same_ids(ids):
    assert list(from_runs(to_runs(ids))) == ids


@given(ascending, ascending)
def test_ids_are_the_sequence_that_they_stand_for(ids, others):
    sequence = Ids(to_runs(ids))
    sequence.extend((one + 100, one + 100) for one in others)
    plain = ids + [one + 100 for one in others]

    assert len(sequence) == len(plain)
    assert list(sequence) == plain
    assert [sequence[at] for at in range(len(plain))] == plain
    assert [sequence[at] for at in range(-len(plain), 0)] == plain
    assert sequence[1:5] == plain[1:5]
    assert all((one in sequence) == (one in plain) for one in range(170))
    assert sequence == plain


def test_an_index_out_of_range_raises():
    with pytest.raises(IndexError):
        Ids([(1, 3)])[3]
