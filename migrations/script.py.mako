"""${message}

Literal SQL only: a migration says what it did on its day, whatever the code has become since.
"""

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}


def upgrade() -> None:
    ...
