"""The acts. The first is played by the commands a person would type, the others through the rooms' own doors."""

from __future__ import annotations

import email
import hashlib
import json
import sqlite3
import subprocess
import sys
from email.message import EmailMessage
from email.policy import default
from pathlib import Path

from outbox import config, drafter, inbox, operator, worker
from outbox.clock import Clock, wall
from outbox.core.draft import MICROSECONDS
from outbox.core.errors import Code, OutboxError, PolicyRefused
from outbox.core.lifecycle import State
from outbox.demo.phone import Phone
from outbox.demo.post import Post
from outbox.demo.relay import DemoRelay, Received
from outbox.demo.stage import Stage
from outbox.demo.zone import DemoZone
from outbox.drafter.intake import Wanted
from outbox.store.views import DraftView

FOUNDER = "founder@acme.example"
APPROVAL = "outbox@acme.example"
AGENT_FROM = "Acme Sales <sales@acme.example>"
CUSTOMER = "jane@customer.example"
RIVAL = "mallory@rival.example"


class Acts:
    """One outbox in one folder, a relay, the founder's phone and mailbox, and six short plays."""

    def __init__(self, folder: Path, relay: DemoRelay, post: Post, phone: Phone, zone: DemoZone, stage: Stage) -> None:
        self._folder, self._relay, self._stage = folder, relay, stage
        self._post, self._phone, self._zone = post, phone, zone

    def play(self) -> None:
        """Every act, in order."""
        self.main_job()
        self.forgery()
        self.tampering()
        self.unclear_reply()
        self.expiry()
        self.non_delegable()

    # The acts

    def main_job(self) -> None:
        """Draft, ask, reply "Ship it", send once: with the commands."""
        stage, relay = self._stage, self._relay
        stage.act("An agent drafts, the founder replies from a phone, and it is sent once")
        self._command(
            "init", "--from-domain", "acme.example", "--approver", FOUNDER, "--address", APPROVAL,
            "--mailbox", self._post.url, "--authenticity", "dkim",
            "--relay-host", "127.0.0.1", "--relay-port", str(relay.port),
        )  # fmt: skip
        self._fill_in_settings()
        text = "Dear Jane,\n\nyour offer stands: 20 seats, 4,000 a year.\n\nBest wishes,\nAcme Sales\n"
        (self._folder / "offer.txt").write_text(text)
        (self._folder / "prices.csv").write_text("seats,price\n20,4000\n")
        draft_id = self._command(
            "draft", "--agent", "sales-bot", "--from", AGENT_FROM, "--to", CUSTOMER,
            "--subject", "Your offer, café prices", "--text-file", "offer.txt", "--attach", "prices.csv",
        ).strip()  # fmt: skip
        self._command("inbox", "--once")
        self._command("worker", "--drain")
        stage.claim("the customer has received nothing", relay.to(CUSTOMER) == [])
        request = self._last_to(FOUNDER)
        stage.say("What the founder sees on his phone:")
        stage.paper(_as_seen(request))
        reply = self._reply(request, "Ship it")
        where = "and arrives over IMAP" if self._post.is_imap else "and arrives in a Maildir (Dovecot is not installed)"
        stage.say(f"What his phone sends back, signed by his provider, {where}:")
        stage.paper(reply.decode().replace("\r\n", "\n").split("\n> \n", 1)[0] + "\n> ...")
        (self._folder / "reply.eml").write_bytes(reply)
        stage.paper(self._command("inbox", "explain", "reply.eml"))
        self._command("inbox", "--once")
        self._command("worker", "--drain")
        self._command("worker", "--drain")
        sent = relay.to(CUSTOMER)
        stage.claim("the customer has received it exactly once", len(sent) == 1)
        self._prove_octets(draft_id, sent[0])
        stage.paper(self._command("show", draft_id))
        self._inbox()
        self._drain()
        stage.say("And what the founder gets, below his own reply:")
        stage.paper(_as_seen(self._last_to(FOUNDER)))
        stage.claim("the founder knows that it was sent", "] Sent: " in str(self._last_to(FOUNDER)["Subject"]))

    def _fill_in_settings(self) -> None:
        """What a person would write into the file: a login, and here also the demo's own DNS."""
        file = self._folder / "outbox.toml"
        text = file.read_text().replace("[mailbox]\n", f"[mailbox]\n{self._post.settings}")
        file.write_text(f'{text}\n[dns]\nnameservers = ["{self._zone.address}"]\n')
        self._post.write_password(self._folder / "keys" / "mailbox.password")

    def forgery(self) -> None:
        """Who has read the request has its token; that is not enough to answer in the founder's name."""
        stage = self._stage
        stage.act("Somebody who has read the request answers it in the founder's name")
        draft = self._draft("Discount", "Dear Jane,\n\nyou get 50 %.\n")
        self._inbox()
        self._drain()
        request = self._last_to(FOUNDER)
        self._reply(request, "Ship it", signed=False)
        self._inbox()
        self._drain()
        stage.claim("the draft is still pending", self._show(draft.id).state is State.PENDING)
        with operator.read(self._settings()) as records:
            why = records.replies()[-1].why
        stage.claim(f"the operator reads why: {why}", why.startswith("authenticity:"))
        answered = "changed nothing" in str(self._last_to(FOUNDER)["Subject"])
        stage.claim("and the founder, not the forger, is told", answered)
        self._reply(self._last_to(FOUNDER), "Stop")
        self._inbox()
        self._drain()
        stage.claim("he stops it by replying to that", self._show(draft.id).state is State.CANCELLED)

    def _prove_octets(self, draft_id: str, sent: Received) -> None:
        with operator.read(self._settings()) as records:
            approved, draft = records.octets(draft_id), records.show(draft_id).draft
        date, _, rest = sent.octets.partition(b"\r\n")
        self._stage.say(f"approved  sha256 {hashlib.sha256(approved).hexdigest()}")
        self._stage.say(f"received  sha256 {hashlib.sha256(rest).hexdigest()}  after its first line, {date.decode()}")
        self._stage.claim("what was received is what was approved, octet for octet", rest == approved)
        same = (sent.sender, sent.recipients) == (draft.envelope.sender, draft.envelope.recipients)
        self._stage.claim("and it went to the approved envelope", same)

    def tampering(self) -> None:
        """A thief of the file, who drops the triggers, cannot redirect an approved mail."""
        stage = self._stage
        stage.act("A thief of the database redirects an approved mail to himself")
        draft = self._draft("Contract", "Dear Jane,\n\nthe contract is ready.\n")
        with operator.open(self._settings()) as desk:
            desk.approve(draft.id, named=None)
        with sqlite3.connect(self._folder / "outbox.db") as connection:
            for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
                stolen = connection.execute("SELECT sql FROM sqlite_master WHERE name = ?", (name,)).fetchone()[0]
                connection.execute(f"DROP TRIGGER {name}")
                if name == "drafts_frozen":
                    connection.execute(
                        "UPDATE drafts SET envelope = replace(envelope, ?, ?) WHERE id = ?", (CUSTOMER, RIVAL, draft.id)
                    )
                connection.execute(stolen)
        connection.close()
        stage.say(f"He drops the triggers, changes {CUSTOMER} to {RIVAL} in the row, and puts the triggers back.")
        self._drain()
        after = self._show(draft.id)
        stage.claim("nothing left, to anyone", not self._relay.to(RIVAL) and len(self._relay.to(CUSTOMER)) == 1)
        stage.claim(
            f"the draft is {after.state}: {after.error[1] if after.error else ''}",
            after.state is State.FAILED and after.error is not None and after.error[0] == Code.DIGEST_MISMATCH,
        )
        stage.claim("and the operator was told by mail", "digest_mismatch" in str(self._last_to(FOUNDER)["Subject"]))

    def unclear_reply(self) -> None:
        """Anything but a plain yes changes nothing, and is answered."""
        stage = self._stage
        stage.act("The founder's reply can be read in two ways")
        draft = self._draft("Price", "Dear Jane,\n\nthe price is 4,000.\n")
        self._inbox()
        self._drain()
        self._reply(self._last_to(FOUNDER), "Yes, but change the price to 5,000")
        self._inbox()
        self._drain()
        stage.claim("the draft is still pending", self._show(draft.id).state is State.PENDING)
        stage.say("What he gets back:")
        stage.paper(_as_seen(self._last_to(FOUNDER)))
        self._reply(self._last_to(FOUNDER), "Reject: the price is 5,000")
        self._inbox()
        rejection = self._show(draft.id).rejection
        said = rejection.reason if rejection else ""
        stage.claim(f'his next reply is clear: rejected, and the agent reads "{said}"', said == "the price is 5,000")

    def expiry(self) -> None:
        """A draft that nobody answers in time ends by itself."""
        stage = self._stage
        stage.act("Nobody answers in time")
        draft = self._draft("Today only", "Dear Jane,\n\nonly today.\n", ttl=3600)
        self._inbox(clock=lambda: wall() + 3601 * MICROSECONDS)
        after = self._show(draft.id)
        stage.claim(f"an hour and a second later the draft is {after.state}", after.state is State.EXPIRED)
        stage.claim("and cannot be approved any more", self._refuses_approval(draft.id))

    def _refuses_approval(self, draft_id: str) -> bool:
        try:
            with operator.open(self._settings()) as desk:
                desk.approve(draft_id, named=None)
        except OutboxError as refused:
            return refused.code is Code.STATE_CONFLICT
        return False

    def non_delegable(self) -> None:
        """Some kinds of mail a program may not even draft."""
        stage = self._stage
        stage.act("An agent drafts what nobody may delegate")
        try:
            self._draft("Transfer", "Please transfer 1,000,000.\n", kind="Irreversible-Capital-Commit")
        except PolicyRefused as refused:
            stage.claim(f"refused at drafting: {refused.message}", refused.code is Code.NON_DELEGABLE_KIND)
        else:
            stage.claim("it is refused at drafting", False)
        stage.claim("in all, the customer received one mail", len(self._relay.to(CUSTOMER)) == 1)

    # What the people do

    def _command(self, *words: str) -> str:
        shown = " ".join(json.dumps(word, ensure_ascii=False) if " " in word else word for word in words)
        self._stage.command(f"outbox {shown}")
        done = subprocess.run(  # noqa: S603  this very program
            [sys.executable, "-m", "outbox", *words], cwd=self._folder, capture_output=True, text=True, check=False
        )
        self._stage.claim_silently(f"outbox {words[0]} exits 0: {done.stderr.strip()}", done.returncode == 0)
        return done.stdout

    def _settings(self) -> config.Settings:
        return config.load(self._folder / "outbox.toml")

    def _draft(self, subject: str, text: str, *, kind: str = "email", ttl: int | None = None) -> DraftView:
        wanted = Wanted(
            sender=AGENT_FROM, to=(CUSTOMER,), subject=subject, text=text, kind=kind, ttl=ttl, agent="sales-bot"
        )
        with drafter.open(self._settings()) as room:
            return room.draft(wanted).draft

    def _inbox(self, clock: Clock = wall) -> None:
        with inbox.open(self._settings(), clock=clock) as room:
            room.once()

    def _drain(self) -> None:
        with worker.open(self._settings()) as room:
            room.run(drain=True)

    def _show(self, draft_id: str) -> DraftView:
        with operator.read(self._settings()) as records:
            return records.show(draft_id).draft

    def _last_to(self, address: str) -> EmailMessage:
        return email.message_from_bytes(self._relay.to(address)[-1].octets, policy=default)

    def _reply(self, request: EmailMessage, text: str, *, signed: bool = True) -> bytes:
        octets = self._phone.reply(request, text, signed=signed)
        self._post.deliver(octets)
        return octets


def _text_of(message: EmailMessage) -> str:
    body = message.get_body(("plain",))
    return str(body.get_content()) if body is not None else ""


def _as_seen(message: EmailMessage) -> str:
    head = "".join(f"{name}: {message[name]}\n" for name in ("From", "To", "Reply-To", "Subject") if message[name])
    attached = "".join(f"[attached: {part.get_filename()}]\n" for part in message.iter_attachments())
    return f"{head}\n{_text_of(message)}{attached}"
