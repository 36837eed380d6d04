"""Half of the seeds have a root with very little room, so that everything spills, is merged and is read again."""

from __future__ import annotations

import pytest

from osqueue.core import commit, keys, locator, sealing, segment

TIGHT = {
    (commit, "TAIL_BYTES"): 600,
    (commit, "DEFERRED_BYTES"): 300,
    (commit, "DEAD_BYTES"): 300,
    (commit, "INLINE_BYTES"): 1000,
    (keys, "INLINE_KEYS"): 2,
    (segment, "CACHE_BYTES"): 4000,
    (locator, "TOGETHER_BYTES"): 2000,
    (sealing, "HOLES_BYTES"): 60,
    (sealing, "_MERGED_AT_ONCE"): 3,
}


@pytest.fixture(autouse=True)
def room(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Odd seeds have little room."""
    seed = request.node.callspec.params["seed"] if hasattr(request.node, "callspec") else 0
    for (module, name), value in TIGHT.items() if seed % 2 else ():
        monkeypatch.setattr(module, name, value)
