"""What every test may rely on, however the tests were started."""

from __future__ import annotations

import signal

# A shell that starts the tests in the background has them ignore SIGINT, and the programs that they start would too.
signal.signal(signal.SIGINT, signal.default_int_handler)
