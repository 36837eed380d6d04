"""``python -m osqueue``: the command line."""

from __future__ import annotations

import sys

from osqueue.cli import main

if __name__ == "__main__":
    sys.exit(main())
