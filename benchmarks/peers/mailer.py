"""django-mailer: `prepare COUNT`, or `drain PORT`."""

from __future__ import annotations

import sys

from benchmarks.mail import RECIPIENT, SENDER, subject, text
from benchmarks.peers.django_house import migrate, set_up


def prepare(count: int) -> None:
    """Queue `count` mails as its backend does."""
    set_up("mailer", 25, EMAIL_BACKEND="mailer.backend.DbBackend")
    migrate()
    from django.core.mail import EmailMessage, get_connection

    messages = [EmailMessage(subject(number), text(), SENDER, [RECIPIENT]) for number in range(count)]
    get_connection().send_messages(messages)


def drain(port: int) -> None:
    """What `manage.py send_mail` does."""
    set_up("mailer", port, EMAIL_BACKEND="mailer.backend.DbBackend")
    from django.core.management import call_command

    call_command("send_mail")


if __name__ == "__main__":
    if sys.argv[1] == "prepare":
        prepare(int(sys.argv[2]))
    else:
        drain(int(sys.argv[2]))
