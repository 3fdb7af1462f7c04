"""The demonstration: the whole loop on loopback, and five tries to break it. It may open every room."""

from __future__ import annotations

import logging
import shutil
import tempfile
from pathlib import Path

from outbox.demo.stage import Stage


def run(*, keep: bool) -> None:
    """Play every act in a folder of its own. Raises OutboxError(demo_failed) where anything is not as claimed."""
    from outbox.demo.acts import FOUNDER, Acts
    from outbox.demo.phone import Phone
    from outbox.demo.post import Post
    from outbox.demo.relay import DemoRelay
    from outbox.demo.zone import DemoZone

    logging.getLogger("outbox").setLevel(logging.CRITICAL)  # its alerts are shown as what the operator gets
    folder = Path(tempfile.mkdtemp(prefix="outbox-demo-"))
    stage = Stage()
    phone = Phone(FOUNDER)
    try:
        with DemoRelay() as relay, Post(folder) as post, DemoZone(*phone.record) as zone:
            Acts(folder, relay, post, phone, zone, stage).play()
    finally:
        if keep:
            stage.say(f"The demo's folder is {folder}; try `outbox --config {folder}/outbox.toml list --system`.")
        else:
            shutil.rmtree(folder)
    stage.curtain()
