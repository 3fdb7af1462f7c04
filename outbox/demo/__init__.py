"""The demonstration: the whole loop on loopback, and four tries to break it. It may open every room."""

from __future__ import annotations

import logging
import shutil
import tempfile
from pathlib import Path

from outbox.demo.stage import Stage


def run(*, keep: bool) -> None:
    """Play every act in a folder of its own. Raises OutboxError(demo_failed) where anything is not as claimed."""
    from outbox.demo.acts import Acts
    from outbox.demo.relay import DemoRelay

    logging.getLogger("outbox").setLevel(logging.CRITICAL)  # its alerts are shown as what the operator gets
    folder = Path(tempfile.mkdtemp(prefix="outbox-demo-"))
    stage = Stage()
    try:
        with DemoRelay() as relay:
            Acts(folder, relay, stage).play()
    finally:
        if keep:
            stage.say(f"The demo's folder is {folder}; try `outbox --config {folder}/outbox.toml list --system`.")
        else:
            shutil.rmtree(folder)
    stage.curtain()
