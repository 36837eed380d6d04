"""A disk that forgets as much at a power cut as POSIX lets it.

Each directory keeps the changes of its names since it was last synced, each file the bytes that were last synced.
`AbstractDisk.after_a_power_cut` gives every disk that may be found afterwards: any subset of those changes, and of each
unsynced file what was synced, half, all, or zeros. A rename is one change: both names or neither.
"""

from __future__ import annotations

import errno
import itertools
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from osqueue.storage.files import Entry, Identity, Space, Status

USER = 1000
Tree = tuple[object, ...] | bytes
Change = dict[str, "Node | None"]


@dataclass(eq=False)
class Node:
    """A file or a directory: as it is now, and as it is on the platter."""

    number: int
    is_directory: bool
    data: bytes = b""
    synced_data: bytes = b""
    names: dict[str, Node] = field(default_factory=dict)
    synced_names: dict[str, Node] = field(default_factory=dict)
    changes: list[Change] = field(default_factory=list)
    writes: int = 0

    def change(self, change: Change) -> None:
        self.changes.append(change)
        _apply(self.names, change)

    def tree(self) -> Tree:
        """All that can be seen of it, for comparing disks."""
        if not self.is_directory:
            return self.data
        return tuple((name, node.tree()) for name, node in sorted(self.names.items()))


class AbstractDisk:
    """`osqueue.storage.files.Files` over such a disk. ``on_call`` is told of each change before it is made."""

    def __init__(self, top: Node | None = None) -> None:
        self.top = top or Node(1, is_directory=True)
        self.on_call: Callable[[str], None] = lambda call: None
        self._open: dict[int, Node] = {}
        self._numbers = itertools.count(1000)
        self._descriptors = itertools.count(10)

    def after_a_power_cut(self) -> Iterator[AbstractDisk]:
        """Every disk that may be found."""
        nodes = _reachable(self.top)
        for chosen in itertools.product(*(_outcomes(node) for node in nodes)):
            outcome = {id(node): choice for node, choice in zip(nodes, chosen, strict=True)}
            yield AbstractDisk(_rebuilt(self.top, outcome, {}))

    # --------------------------------------------------------------------------------------------------- opening

    def open_path(self, path: str) -> int:
        return self._opened(self._node_at(path))

    def open_directory(self, name: str, at: int) -> int:
        node = self._node(name, at)
        if not node.is_directory:
            raise _error(errno.ENOTDIR)
        return self._opened(node)

    def open_to_read(self, name: str, at: int) -> int:
        return self._opened(self._node(name, at))

    def open_new(self, name: str, at: int) -> int:
        self.on_call("open_new")
        return self._opened(self._made(name, self._open[at], is_directory=False))

    def open_lock(self, name: str, at: int) -> int:
        if name in self._open[at].names:
            return self.open_to_read(name, at)
        return self.open_new(name, at)

    def close(self, descriptor: int) -> None:
        del self._open[descriptor]

    # ---------------------------------------------------------------------------------------------------- content

    def read(self, file: int, count: int) -> bytes:
        node = self._open[file]
        data, node.writes = (b"", 0) if node.writes < 0 else (node.data, -1)
        assert len(data) <= count
        return data

    def write(self, file: int, data: memoryview) -> int:
        self.on_call("write")
        count = (len(data) + 1) // 2  # short writes are allowed at any time
        self._open[file].data += bytes(data[:count])
        return count

    def overwrite(self, file: int, data: bytes) -> None:
        self.on_call("overwrite")
        self._open[file].data = data

    def sync(self, file: int) -> None:
        self.on_call("sync")
        node = self._open[file]
        node.synced_data = node.data

    # ------------------------------------------------------------------------------------------------------ names

    def sync_directory(self, directory: int) -> None:
        self.on_call("sync_directory")
        node = self._open[directory]
        node.synced_names = dict(node.names)
        node.changes.clear()

    def make_path(self, path: str) -> None:
        self.on_call("make_path")
        self._made(os.path.basename(path), self._node_at(os.path.dirname(path)), is_directory=True)

    def make_directory(self, name: str, at: int) -> None:
        self.on_call("make_directory")
        self._made(name, self._open[at], is_directory=True)

    def rename(self, name: str, new_name: str, at: int) -> None:
        self.on_call("rename")
        self._open[at].change({name: None, new_name: self._node(name, at)})

    def link(self, name: str, new_name: str, at: int) -> None:
        self.on_call("link")
        if new_name in self._open[at].names:
            raise _error(errno.EEXIST)
        self._open[at].change({new_name: self._node(name, at)})

    def unlink(self, name: str, at: int) -> None:
        self.on_call("unlink")
        self._node(name, at)
        self._open[at].change({name: None})

    # -------------------------------------------------------------------------------------------------- questions

    def status(self, descriptor: int) -> Status:
        return _status(self._open[descriptor])

    def status_of(self, name: str, at: int) -> Status:
        return _status(self._node(name, at))

    def entries(self, directory: int) -> list[Entry]:
        names = self._open[directory].names
        return [Entry(name, not node.is_directory, node.is_directory) for name, node in names.items()]

    def space(self, directory: int) -> Space:
        return Space(1 << 40, 1 << 39, None, read_only=False)

    def kind(self, directory: int) -> str:
        return "ext4"

    def user(self) -> int:
        return USER

    def try_lock(self, file: int) -> bool:
        return True

    def unlock(self, file: int) -> None:
        pass

    def _node(self, name: str, at: int) -> Node:
        node = self._open[at].names.get(name)
        if node is None:
            raise _error(errno.ENOENT)
        return node

    def _node_at(self, path: str) -> Node:
        node = self.top
        for name in path.split("/"):
            if name and name not in node.names:
                raise _error(errno.ENOENT)
            node = node.names[name] if name else node
        return node

    def _made(self, name: str, parent: Node, *, is_directory: bool) -> Node:
        if name in parent.names:
            raise _error(errno.EEXIST)
        node = Node(next(self._numbers), is_directory)
        parent.change({name: node})
        return node

    def _opened(self, node: Node) -> int:
        descriptor = next(self._descriptors)
        self._open[descriptor] = node
        return descriptor


def _reachable(node: Node) -> list[Node]:
    """The node and all that may be found below it, whichever changes survive."""
    found = {id(node): node}
    below = [*node.names.values(), *node.synced_names.values()]
    below += [changed for change in node.changes for changed in change.values() if changed is not None]
    for child in below:
        found.update((id(inner), inner) for inner in _reachable(child))
    return list(found.values())


def _outcomes(node: Node) -> list[object]:
    """What may become of it: sets of surviving changes of a directory, contents of a file."""
    if node.is_directory:
        numbers = range(len(node.changes))
        return [chosen for count in range(len(numbers) + 1) for chosen in itertools.combinations(numbers, count)]
    if node.data == node.synced_data:
        return [node.data]
    half = node.data[: len(node.data) // 2]
    return list(dict.fromkeys([node.synced_data, half, node.data, bytes(len(node.data))]))


def _rebuilt(node: Node, outcome: dict[int, object], done: dict[int, Node]) -> Node:
    if id(node) in done:
        return done[id(node)]
    copy = done[id(node)] = Node(node.number, node.is_directory)
    chosen = outcome[id(node)]
    if isinstance(chosen, bytes):
        copy.data = copy.synced_data = chosen
        return copy
    assert isinstance(chosen, tuple)
    names = dict(node.synced_names)
    for number in chosen:
        _apply(names, node.changes[number])
    copy.names = {name: _rebuilt(child, outcome, done) for name, child in names.items()}
    copy.synced_names = dict(copy.names)
    return copy


def _apply(names: dict[str, Node], change: Change) -> None:
    for name, node in change.items():
        if node is None:
            names.pop(name, None)
        else:
            names[name] = node


def _status(node: Node) -> Status:
    return Status(
        identity=Identity(node.number, 0, len(node.data)),
        device=1,
        owner=USER,
        permissions=0o700,
        is_file=not node.is_directory,
        is_directory=node.is_directory,
    )


def _error(number: int) -> OSError:
    return OSError(number, os.strerror(number))
