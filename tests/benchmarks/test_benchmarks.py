"""A seed of the benchmarks, so that they do not rot: `make bench BENCH=--quick` runs all of them."""

from __future__ import annotations

import smtplib
from pathlib import Path

import pytest

from benchmarks.__main__ import BENCHMARKS
from benchmarks.contest import contest, steady_rate
from benchmarks.contestants import Outbox
from benchmarks.mail import RECIPIENT, SENDER, message
from benchmarks.relays import Acceptance, NotOnce, OwnSink, refuse_other_than_once
from benchmarks.results import read
from benchmarks.run import Run
from benchmarks.verdicts import lines, measured, table


def test_a_drain_of_fifty_is_measured_and_comes_exactly_once(tmp_path: Path) -> None:
    with Run(quick=True, repetitions=1) as run:
        result = run.result("drain")
        contest(run, result, "50", [Outbox(lanes=5)], 50, OwnSink)
    assert result.failed == []
    result.write(tmp_path)
    kept = read(tmp_path, BENCHMARKS)["drain"]
    assert kept.find("outbox", "50", "per_second") is not None
    cost = next(line for line in lines({"drain": kept}) if line.words == "drain: CPU seconds per 1,000")
    assert measured(cost) in table([cost])
    assert cost.met is not None


def test_a_message_that_comes_twice_is_not_the_job() -> None:
    with OwnSink() as relay, smtplib.SMTP("127.0.0.1", relay.port) as client:
        for number in (0, 1, 1):
            client.sendmail(SENDER, [RECIPIENT], message(number))
        with pytest.raises(NotOnce, match="of 2 messages 0 did not come, and 1 came again"):
            refuse_other_than_once(relay, 2)


def test_a_sink_that_is_told_to_be_late_counts_what_it_has_answered() -> None:
    with OwnSink(reply_delay=0.01, dot_delay=0.01) as relay, smtplib.SMTP("127.0.0.1", relay.port) as client:
        client.sendmail(SENDER, [RECIPIENT], message(7))
        assert relay.numbers() == {7: 1}


def test_a_steady_rate_leaves_the_first_and_the_last_tenth_out() -> None:
    late = [Acceptance(0, 0.0), *(Acceptance(number, 100 + number / 10) for number in range(1, 20))]
    assert steady_rate(late) == pytest.approx(10)


def test_what_was_not_measured_is_neither_met_nor_missed() -> None:
    assert {line.met for line in lines({})} == {None}
