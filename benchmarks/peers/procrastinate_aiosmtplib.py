"""procrastinate on PostgreSQL with aiosmtplib on kept connections: `prepare COUNT`, or `drain PORT CONCURRENCY`.

BENCHMARK_POSTGRES says where the database is.
"""

from __future__ import annotations

import asyncio
import os
import sys

import aiosmtplib
import procrastinate

from benchmarks.mail import RECIPIENT, SENDER, message

app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=os.environ["BENCHMARK_POSTGRES"]))
_idle: list[aiosmtplib.SMTP] = []


@app.task(name="send")  # type: ignore[untyped-decorator]
async def send(octets: str) -> None:
    """Hand one message over, on a connection that is kept."""
    relay = _idle.pop() if _idle else await _connected()
    await relay.sendmail(SENDER, [RECIPIENT], octets)
    _idle.append(relay)


async def _connected() -> aiosmtplib.SMTP:
    port = int(os.environ["BENCHMARK_PORT"])
    relay = aiosmtplib.SMTP(hostname="127.0.0.1", port=port, start_tls=False)
    await relay.connect()
    return relay


async def prepare(count: int) -> None:
    """Make its tables anew, and queue `count` mails."""
    async with app.open_async():
        await app.connector.execute_query_async("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
        await app.schema_manager.apply_schema_async()
        for start in range(0, count, 1000):
            numbers = range(start, min(start + 1000, count))
            await send.batch_defer_async(*({"octets": message(number).decode()} for number in numbers))


async def drain(port: str, concurrency: str) -> None:
    """Run a worker until nothing is queued."""
    os.environ["BENCHMARK_PORT"] = port
    async with app.open_async():
        await app.run_worker_async(concurrency=int(concurrency), wait=False, install_signal_handlers=False)


if __name__ == "__main__":
    asyncio.run(prepare(int(sys.argv[2])) if sys.argv[1] == "prepare" else drain(*sys.argv[2:]))
