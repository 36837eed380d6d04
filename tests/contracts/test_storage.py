"""What every storage does: one suite, which each implementation joins by one line."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from osqueue.errors import Corrupt
from osqueue.storage import (
    MARKER_KEY,
    ROOT_KEY,
    Conflict,
    MemoryStorage,
    NotFound,
    Standing,
    Storage,
    Version,
    find_queue,
    has_room,
    mark,
    open_directory,
)

Opener = Callable[[Path], Storage]

STORAGES: dict[str, Opener] = {
    "memory": lambda place: MemoryStorage(),
    "directory": lambda place: open_directory(place / "queue"),
    "directory without fsync": lambda place: open_directory(place / "queue", durable=False),
}


@pytest.fixture(params=list(STORAGES))
def open_storage(request: pytest.FixtureRequest) -> Opener:
    return STORAGES[request.param]


@pytest.fixture
def storage(open_storage: Opener, tmp_path: Path) -> Iterator[Storage]:
    with closing(open_storage(tmp_path)) as opened:
        yield opened


# ------------------------------------------------------------------------------------------------- compare and swap


def test_what_was_swapped_in_is_read_in_that_version(storage: Storage) -> None:
    version = storage.compare_and_swap(ROOT_KEY, b"one", None)

    assert storage.read(ROOT_KEY) == (b"one", version)


def test_a_swap_in_the_expected_version_replaces(storage: Storage) -> None:
    first = storage.compare_and_swap(ROOT_KEY, b"one", None)

    second = storage.compare_and_swap(ROOT_KEY, b"two", first)

    assert second != first
    assert storage.read(ROOT_KEY) == (b"two", second)


def test_a_swap_in_the_version_that_was_read_replaces(storage: Storage) -> None:
    storage.create(ROOT_KEY, b"one")
    _, version = storage.read(ROOT_KEY)

    storage.compare_and_swap(ROOT_KEY, b"two", version)

    assert storage.read(ROOT_KEY)[0] == b"two"


def test_a_swap_in_an_older_version_is_refused_and_changes_nothing(storage: Storage) -> None:
    first = storage.compare_and_swap(ROOT_KEY, b"one", None)
    second = storage.compare_and_swap(ROOT_KEY, b"two", first)

    with pytest.raises(Conflict) as refused:
        storage.compare_and_swap(ROOT_KEY, b"three", first)

    assert refused.value.key == ROOT_KEY
    assert storage.read(ROOT_KEY) == (b"two", second)


def test_a_swap_that_expects_nothing_is_refused_when_there_is_something(storage: Storage) -> None:
    storage.create(ROOT_KEY, b"one")

    with pytest.raises(Conflict):
        storage.compare_and_swap(ROOT_KEY, b"two", None)

    assert storage.read(ROOT_KEY)[0] == b"one"


def test_a_swap_that_expects_something_is_refused_when_there_is_nothing(storage: Storage) -> None:
    with pytest.raises(Conflict):
        storage.compare_and_swap(ROOT_KEY, b"one", Version("1"))

    with pytest.raises(NotFound):
        storage.read(ROOT_KEY)


def test_a_version_never_comes_back_though_the_bytes_do(storage: Storage) -> None:
    versions: list[Version] = []

    version = None
    for number in range(100):
        version = storage.compare_and_swap(ROOT_KEY, b"even" if number % 2 else b"odd!", version)
        versions.append(version)

    assert len(set(versions)) == 100
    for old in versions[:-1]:
        with pytest.raises(Conflict):
            storage.compare_and_swap(ROOT_KEY, b"late", old)


# ----------------------------------------------------------------------------------------------- create and delete


def test_creating_the_same_bytes_again_is_done(storage: Storage) -> None:
    storage.create("segments/1.json", b"one")

    storage.create("segments/1.json", b"one")

    assert storage.read("segments/1.json")[0] == b"one"


def test_creating_other_bytes_is_refused_and_the_first_stay(storage: Storage) -> None:
    storage.create("segments/1.json", b"one")

    with pytest.raises(Conflict) as refused:
        storage.create("segments/1.json", b"two")

    assert refused.value.key == "segments/1.json"
    assert storage.read("segments/1.json")[0] == b"one"


def test_a_missing_object_is_not_found(storage: Storage) -> None:
    with pytest.raises(NotFound) as missing:
        storage.read("segments/1.json")

    assert missing.value.key == "segments/1.json"


def test_a_deleted_object_is_gone_and_its_key_free(storage: Storage) -> None:
    storage.create("segments/1.json", b"one")

    storage.delete("segments/1.json")

    with pytest.raises(NotFound):
        storage.read("segments/1.json")
    storage.create("segments/1.json", b"two")
    assert storage.read("segments/1.json")[0] == b"two"


def test_deleting_what_is_missing_is_fine(storage: Storage) -> None:
    storage.delete("segments/1.json")
    storage.create("segments/2.json", b"two")
    storage.delete("segments/1.json")

    assert list(storage.list("")) == ["segments/2.json"]


@pytest.mark.parametrize(
    "data", [b"", b"\n", bytes(range(256)), b"\0" * 5_000_000], ids=["none", "line", "all", "many"]
)
def test_bytes_come_back_as_they_were(storage: Storage, data: bytes) -> None:
    storage.create("segments/1", data)
    storage.compare_and_swap(ROOT_KEY, data, None)

    assert storage.read("segments/1")[0] == data
    assert storage.read(ROOT_KEY)[0] == data


# ------------------------------------------------------------------------------------------------------------ list

KEYS = ["archive/2026-01-01T10/1.jsonl", "archive/2026-01-01T10/2.jsonl", "archive/2026-01-01T11/3.jsonl"]
KEYS += ["queue.json", "segments-old", "segments/1.json", "segments/10.json", "segments/2.json"]


@pytest.mark.parametrize(
    "prefix",
    ["", "a", "archive/", "archive/2026-01-01T1", "archive/2026-01-01T11/", "segments", "segments/", "segments/1", "z"],
)
def test_listing_gives_the_keys_that_begin_so_in_ascending_order(storage: Storage, prefix: str) -> None:
    for key in reversed(KEYS):
        storage.create(key, b"")

    assert list(storage.list(prefix)) == [key for key in KEYS if key.startswith(prefix)]


def test_listing_below_what_never_was_is_empty(storage: Storage) -> None:
    assert list(storage.list("archive/2026-01-01T10/")) == []


# ------------------------------------------------------------------------------------------------------------ keys

BAD_KEYS = ["", "/a", "a/", "a//b", "../a", "a/../b", "a/..", "a..b", "a/./b", ".hidden", "a/.tmp-1", "A", "a b", "ä"]
BAD_KEYS += ["a\n", "a\0", "-a", "a\\b"]


@pytest.mark.parametrize("key", BAD_KEYS)
@pytest.mark.parametrize("verb", ["read", "create", "delete", "compare_and_swap"])
def test_a_key_that_could_leave_its_place_is_a_value_error(storage: Storage, verb: str, key: str) -> None:
    calls: dict[str, Callable[[], object]] = {
        "read": lambda: storage.read(key),
        "create": lambda: storage.create(key, b""),
        "delete": lambda: storage.delete(key),
        "compare_and_swap": lambda: storage.compare_and_swap(key, b"", None),
    }

    with pytest.raises(ValueError, match="key"):
        calls[verb]()

    assert list(storage.list("")) == []


# ------------------------------------------------------------------------------------------------- opening, closing


def test_after_closing_every_call_is_a_value_error(storage: Storage) -> None:
    storage.close()
    storage.close()

    for call in (
        lambda: storage.read("a"),
        lambda: storage.create("a", b""),
        lambda: storage.delete("a"),
        lambda: storage.compare_and_swap("a", b"", None),
        lambda: storage.list(""),
    ):
        with pytest.raises(ValueError, match="closed"):
            call()


def test_there_is_room_at_first(storage: Storage) -> None:
    assert has_room(storage)


def test_objects_are_made_and_deleted_beside_a_thread_that_swaps(storage: Storage) -> None:
    stopped = threading.Event()

    def swap() -> int:
        version, swaps = None, 0
        while not stopped.is_set() or swaps < 20:
            version = storage.compare_and_swap(ROOT_KEY, b"%d" % swaps, version)
            swaps += 1
        return swaps

    def make(number: int) -> None:
        key = f"archive/2026-01-01T0{number % 5}/{number}.jsonl"
        storage.create(key, b"%d" % number)
        assert storage.read(key)[0] == b"%d" % number
        assert key in list(storage.list("archive/"))
        if number % 2:
            storage.delete(key)

    with ThreadPoolExecutor(5) as threads:
        swapping = threads.submit(swap)
        try:
            list(threads.map(make, range(60)))
        finally:
            stopped.set()

        swaps = swapping.result()
    assert storage.read(ROOT_KEY)[0] == b"%d" % (swaps - 1)
    assert len(list(storage.list("archive/"))) == 30


# -------------------------------------------------------------------------------------------------------- creation


def test_an_empty_storage_becomes_a_queue_by_root_and_marker(storage: Storage) -> None:
    assert find_queue(storage) is Standing.EMPTY

    storage.compare_and_swap(ROOT_KEY, b"{}", None)
    assert find_queue(storage) is Standing.UNMARKED

    mark(storage)
    mark(storage)
    assert find_queue(storage) is Standing.QUEUE


@pytest.mark.parametrize("left", [MARKER_KEY, "segments/1-1.jsonl", "archive/2026-01-01T10/1-1.1-2.ab.jsonl"])
def test_parts_of_a_queue_without_a_root_are_damage_and_not_a_new_queue(storage: Storage, left: str) -> None:
    storage.create(left, b"{}")

    with pytest.raises(Corrupt, match="lost its root") as damaged:
        find_queue(storage)

    assert damaged.value.key == ROOT_KEY


# ------------------------------------------------------------------------------------------- any sequence of calls

SOME_KEYS = st.sampled_from(["queue.json", "segments/1", "segments/2", "archive/h/1"])
SOME_BYTES = st.sampled_from([b"", b"one", b"two"])
CALLS = st.lists(
    st.one_of(
        st.tuples(st.just("swap"), SOME_KEYS, SOME_BYTES, st.integers(0, 3)),
        st.tuples(st.just("create"), SOME_KEYS, SOME_BYTES, st.just(0)),
        st.tuples(st.just("delete"), st.sampled_from(["segments/1", "archive/h/1"]), st.just(b""), st.just(0)),
    ),
    max_size=20,
)


class Model:
    """The five verbs over a dict, with versions that are the storage's own; each call says what should come of it."""

    def __init__(self, storage: Storage) -> None:
        self.storage = storage
        self.bytes: dict[str, bytes] = {}
        self.versions: dict[str, list[Version | None]] = {}

    def swap(self, key: str, data: bytes, age: int) -> None:
        known = self.versions.setdefault(key, [None])
        actual = self.storage.read(key)[1] if key in self.bytes else None
        expected = actual if age == 0 else known[-min(age, len(known))]
        if expected != actual:
            with pytest.raises(Conflict):
                self.storage.compare_and_swap(key, data, expected)
            return
        known.append(self.storage.compare_and_swap(key, data, expected))
        self.bytes[key] = data

    def create(self, key: str, data: bytes, age: int) -> None:
        if self.bytes.setdefault(key, data) == data:
            self.storage.create(key, data)
            return
        with pytest.raises(Conflict):
            self.storage.create(key, data)

    def delete(self, key: str, data: bytes, age: int) -> None:
        self.storage.delete(key)
        self.bytes.pop(key, None)


@given(calls=CALLS)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_sequence_of_calls_is_that_of_a_dictionary(
    open_storage: Opener, tmp_path_factory: pytest.TempPathFactory, calls: list[tuple[str, str, bytes, int]]
) -> None:
    with closing(open_storage(tmp_path_factory.mktemp("any"))) as storage:
        model = Model(storage)

        for verb, key, data, age in calls:
            getattr(model, verb)(key, data, age)

        assert {key: storage.read(key)[0] for key in storage.list("")} == model.bytes
