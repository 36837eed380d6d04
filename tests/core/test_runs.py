"""Sets of slots against plain sets."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from osqueue.core.model import RunLine
from osqueue.core.runs import Runs, expand

slots = st.tuples(st.integers(0, 2), st.integers(0, 200))
kinds = st.tuples(st.integers(1, 2), st.booleans())


def _runs(members: dict[tuple[int, int], tuple[int, bool]]) -> Runs:
    runs = Runs()
    for (object_, slot), (attempt, alone) in members.items():
        runs.add(object_, slot, slot, attempt, alone=alone)
    return runs


def _members(runs: Runs) -> dict[tuple[int, int], tuple[int, bool]]:
    return {
        (object_, slot): (attempt, alone)
        for object_, first, last, attempt, alone in runs
        for slot in range(first, last + 1)
    }


@given(st.dictionaries(slots, kinds))
def test_a_set_has_what_was_added_in_any_order(members: dict[tuple[int, int], tuple[int, bool]]) -> None:
    runs = _runs(members)

    assert _members(runs) == members
    assert runs.slots == len(members)
    for address, kind in members.items():
        found = runs.find(*address)
        assert found is not None
        assert found[2:] == kind


@given(st.dictionaries(slots, kinds), st.integers(0, 2), st.integers(0, 200), st.integers(0, 60))
def test_cutting_takes_out_what_lies_between_and_nothing_else(
    members: dict[tuple[int, int], tuple[int, bool]], object_: int, first: int, length: int
) -> None:
    runs = _runs(members)

    cut = runs.cut(object_, first, first + length)

    gone = {(object_, slot) for a, b, _, _ in cut for slot in range(a, b + 1)}
    assert gone == {address for address in members if address[0] == object_ and first <= address[1] <= first + length}
    assert _members(runs) == {address: kind for address, kind in members.items() if address not in gone}
    assert runs.slots == len(members) - len(gone)


@given(st.dictionaries(slots, kinds), st.lists(st.tuples(slots, st.integers(1, 2))))
def test_removing_takes_out_one_slot_of_one_attempt_and_names_its_run(
    members: dict[tuple[int, int], tuple[int, bool]], asked: list[tuple[tuple[int, int], int]]
) -> None:
    runs = _runs(members)
    left = dict(members)

    for address, attempt in asked + [(address, 1) for address in members]:
        before = runs.find(*address)
        removed = runs.remove(*address, attempt)
        kind = left.get(address)
        if kind is None or kind[0] != attempt:
            assert removed is None
            continue
        assert removed == before
        assert removed is not None
        assert removed[2:] == left.pop(address)

    assert _members(runs) == left
    assert runs.slots == len(left)
    assert not left or all(runs.of(object_) for object_ in runs.objects())


@given(st.dictionaries(slots, kinds))
def test_lines_on_disk_say_the_same_and_stay_within_their_bound(
    members: dict[tuple[int, int], tuple[int, bool]],
) -> None:
    runs = _runs(members)

    data = msgspec.json.encode(runs.lines())

    assert _members(Runs(expand(msgspec.json.decode(data, type=list[RunLine])))) == members
    assert len(data) <= runs.potential_bytes() + 2


def test_every_second_slot_of_a_full_segment_is_a_line_with_a_bitmap() -> None:
    runs = Runs((7, slot, slot, 1, False) for slot in range(0, 10_000, 2))

    [line] = runs.lines()

    assert len(line.mask) < 1700
    assert Runs(expand([line])).slots == 5000


def test_addresses_follow_their_jobs() -> None:
    runs = Runs([(0, 5, 9, 1, False), (3, 0, 1, 2, True)])

    runs.move({0: {6: (4, 0), 7: (4, 1)}})

    assert list(runs) == [(0, 5, 5, 1, False), (0, 8, 9, 1, False), (3, 0, 1, 2, True), (4, 0, 1, 1, False)]
