"""Tokenize every source file of the standard library in worker processes, and add up what was found.

Run it with ``--path jobs/``, stop it, kill it, run it again: it goes on. Files that are broken on purpose fail at once.
"""

from __future__ import annotations

import argparse
import json
import sysconfig
import time
import tokenize
from collections import Counter
from pathlib import Path

from osqueue import LocalPool

KINDS = {tokenize.NAME: "names", tokenize.OP: "operators", tokenize.STRING: "strings", tokenize.COMMENT: "comments"}
BROKEN = (SyntaxError, tokenize.TokenError, UnicodeDecodeError)


def source_files() -> list[str]:
    """Every source file of the standard library, in an order that does not change."""
    root = Path(sysconfig.get_path("stdlib"))
    found = (path for path in root.rglob("*.py") if not {"site-packages", "dist-packages"} & set(path.parts))
    return sorted(map(str, found))


def count_tokens(path: str) -> dict[str, int]:
    """Count what is in one file; raises what `tokenize` raises."""
    with open(path, "rb") as source:
        tokens = list(tokenize.tokenize(source.readline))
        counts = {"files": 1, "bytes": source.tell(), "lines": tokens[-1].start[0] - 1, "tokens": len(tokens)}
    return counts | Counter(KINDS.get(token.type, "other tokens") for token in tokens)


def main() -> None:
    parser = argparse.ArgumentParser(description="Tokenize the standard library in worker processes.")
    parser.add_argument("--path", help="keep the queue in this directory, and go on with what is there")
    parser.add_argument("--workers", type=int, help="worker processes (default: one a CPU)")
    options = parser.parse_args()
    files, began = source_files(), time.monotonic()
    with LocalPool(count_tokens, workers=options.workers, path=options.path, no_retry_on=BROKEN) as pool:
        before = pool.stats()
        pool.push_many(files[before.pushed :])  # nothing, if all was pushed earlier
        after = pool.join()
        took, jobs = time.monotonic() - began, after.succeeded + after.dead - before.succeeded - before.dead
        records = [pool.get(job_id) for job_id in range(1, len(files) + 1)]
        pool.discard([job.id for job in pool.dead()])  # seen here, and on record in the archive
    totals: Counter[str] = Counter()
    for record in records:
        totals.update(json.loads(record.result) if record.state == "succeeded" and record.result else {})
    for name, total in totals.items():
        print(f"{name:14}{total:12,}")
    failed = sum(record.state == "dead" for record in records)
    print(f"{jobs} jobs in {took:.1f} s, {jobs / took:.0f}/s; {failed} failed (files that are broken on purpose)")


if __name__ == "__main__":
    main()
