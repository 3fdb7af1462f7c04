"""django-post-office: `prepare COUNT`, or `drain PORT PROCESSES BATCH THREADS LOG_LEVEL` (`-` leaves a default)."""

from __future__ import annotations

import sys

from benchmarks.mail import RECIPIENT, SENDER, subject, text
from benchmarks.peers.django_house import migrate, set_up


def prepare(count: int) -> None:
    """Queue `count` mails as `mail.send_many` stores them."""
    set_up("post_office", 25)
    migrate()
    from post_office import mail

    for start in range(0, count, 1000):
        mail.send_many(
            [
                {"sender": SENDER, "recipients": [RECIPIENT], "subject": subject(number), "message": text()}
                for number in range(start, min(start + 1000, count))
            ]
        )


def drain(port: str, processes: str, batch: str, threads: str, log_level: str) -> None:
    """What `manage.py send_queued_mail` does."""
    options: dict[str, object] = {}
    if batch != "-":
        options["BATCH_SIZE"] = int(batch)
    if threads != "-":
        options["THREADS_PER_PROCESS"] = int(threads)
    if log_level != "-":
        options["LOG_LEVEL"] = int(log_level)
    set_up("post_office", int(port), POST_OFFICE=options)
    from django.core.management import call_command

    call_command("send_queued_mail", processes=int(processes), lockfile="post_office")


if __name__ == "__main__":
    if sys.argv[1] == "prepare":
        prepare(int(sys.argv[2]))
    else:
        drain(*sys.argv[2:])
