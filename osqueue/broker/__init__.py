"""The broker: a loop around the queue's value, and what reads and writes for it."""
