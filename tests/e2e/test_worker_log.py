"""What the log says of workers that die."""

from __future__ import annotations

import asyncio
import logging
import os
import signal

from tests.processes import handlers
from tests.processes.yard import Yard, in_loop

DEATHS = 4


@in_loop
async def test_a_worker_that_is_killed_with_unread_jobs_is_no_error_of_the_connection(tmp_path, caplog):
    async with Yard(handlers.double, tmp_path, workers=1) as yard:
        for number in range(DEATHS):
            await yard.all_up()
            await yard.run(number)
            process = yard.supervisor._processes[0]
            os.kill(process.pid, signal.SIGSTOP)
            ids = yard.push(1, 2, 3)
            while not yard.supervisor._foreman.busy():  # noqa: ASYNC110 - it has no event
                await asyncio.sleep(0)
            await asyncio.sleep(0)  # what was decided in that turn has been written now

            os.kill(process.pid, signal.SIGKILL)
            await yard.results(*ids)

    assert [record.message for record in caplog.records if record.levelno >= logging.ERROR] == []
