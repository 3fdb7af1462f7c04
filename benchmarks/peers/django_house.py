"""Django as post-office and mailer need it: SQLite as Django's own documentation advises for more than one writer."""

from __future__ import annotations

from pathlib import Path

import django
from django.conf import settings


def set_up(app: str, port: int, **others: object) -> None:
    """Configure Django in the current folder, and make the tables where there are none."""
    settings.configure(
        INSTALLED_APPS=["django.contrib.contenttypes", app],
        DATABASES={
            "default": {
                "ENGINE": "django.db.backends.sqlite3",
                "NAME": str(Path("queue.db").resolve()),
                "OPTIONS": {
                    "timeout": 30,
                    "transaction_mode": "IMMEDIATE",
                    "init_command": "PRAGMA journal_mode = wal; PRAGMA synchronous = FULL;",
                },
            }
        },
        TEMPLATES=[{"BACKEND": "django.template.backends.django.DjangoTemplates"}],
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
        EMAIL_HOST="127.0.0.1",
        EMAIL_PORT=port,
        USE_TZ=True,
        SECRET_KEY="benchmark",
        **others,
    )
    django.setup()


def migrate() -> None:
    """Make the tables."""
    from django.core.management import call_command

    call_command("migrate", verbosity=0)
