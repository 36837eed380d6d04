"""What the workers of these tests do before, after and in their jobs."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

from osqueue import SoftTimeout, current_job


def load(directory: str, word: str) -> dict[str, str]:
    Path(directory, f"up-{os.getpid()}").touch()
    return {"directory": directory, "word": word}


def release(state: dict[str, str]) -> None:
    Path(state["directory"], f"down-{os.getpid()}").touch()


def word(number: int) -> str:
    return current_job().worker_state["word"] * number


def pid(number: int) -> int:
    return os.getpid()


def refuse() -> None:
    raise LookupError("no such model")


def hang(directory: str) -> None:
    Path(directory, "hanging").touch()
    time.sleep(600)


def sleep(seconds: float) -> str:
    time.sleep(seconds)
    return "slept"


def sleep_and_clean_up(seconds: float) -> str:
    try:
        time.sleep(seconds)
    except SoftTimeout:
        return "cleaned up"
    return "slept"


async def sleep_async(seconds: float) -> str:
    await asyncio.sleep(seconds)
    return "slept"


def sleep_the_first_time(seconds: float) -> int:
    if current_job().attempt == 1:
        time.sleep(seconds)
    return current_job().attempt
