"""The demonstration: the whole loop on loopback. It may open every room."""


def run(*, keep: bool) -> None:
    """Run it."""
    del keep
