"""The queue as a value: no I/O, no thread, no clock, no randomness, no logging below this line."""
