"""huey on SQLite with smtplib, one kept connection a thread: `prepare COUNT`, or `drain PORT THREADS`."""

from __future__ import annotations

import os
import smtplib
import sys
import threading
import time

from huey import SqliteHuey

from benchmarks.mail import RECIPIENT, SENDER, message

queue = SqliteHuey(filename="queue.db", results=False)
_kept = threading.local()


@queue.task()  # type: ignore[untyped-decorator]
def send(number: int, octets: bytes) -> None:
    """Hand one message over, on this thread's connection."""
    del number
    relay = getattr(_kept, "relay", None)
    if relay is None:
        relay = _kept.relay = smtplib.SMTP("127.0.0.1", int(os.environ["BENCHMARK_PORT"]))
    relay.sendmail(SENDER, [RECIPIENT], octets)


def prepare(count: int) -> None:
    """Queue `count` mails."""
    for number in range(count):
        send(number, message(number))


def drain(port: str, threads: str) -> None:
    """Run the consumer until nothing is queued and nothing is being sent."""
    os.environ["BENCHMARK_PORT"] = port
    count = queue.pending_count()
    done = [0]
    counted = threading.Lock()

    @queue.post_execute()  # type: ignore[untyped-decorator]
    def count_one(_task: object, _value: object, _error: object) -> None:
        with counted:
            done[0] += 1

    consumer = queue.create_consumer(
        workers=int(threads), periodic=False, initial_delay=0.005, max_delay=0.005, check_worker_health=False
    )
    consumer.start()
    while done[0] < count:
        time.sleep(0.01)
    consumer.stop(graceful=True)


if __name__ == "__main__":
    if sys.argv[1] == "prepare":
        prepare(int(sys.argv[2]))
    else:
        drain(*sys.argv[2:])
