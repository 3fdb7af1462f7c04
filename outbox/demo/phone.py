"""The founder's phone: writes replies as mail clients do, and his provider signs them."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.message import EmailMessage
from email.utils import format_datetime

import dkim  # type: ignore[import-untyped]
from nacl.signing import SigningKey

_SIGNED = [b"from", b"to", b"subject", b"date", b"message-id", b"in-reply-to", b"mime-version", b"content-type"]


@dataclass
class Phone:
    """One mail account, and the provider's key for its domain."""

    address: str
    key: SigningKey = field(default_factory=SigningKey.generate)
    selector: str = "phone"
    written: int = 0

    @property
    def domain(self) -> str:
        """The domain that signs."""
        return self.address.rpartition("@")[2]

    @property
    def record(self) -> tuple[str, str]:
        """Name and text of the TXT record that holds the public key."""
        public = base64.b64encode(bytes(self.key.verify_key)).decode()
        return f"{self.selector}._domainkey.{self.domain}", f"v=DKIM1; k=ed25519; p={public}"

    def reply(self, request: EmailMessage, text: str, *, signed: bool = True) -> bytes:
        """What the phone sends: the answer above the quoted original. Unsigned, anybody could have written it."""
        self.written += 1
        now = datetime.now(UTC)
        body = request.get_body(("plain",))
        original = str(body.get_content()) if body is not None else ""
        quoted = "\n".join(f"> {line}".rstrip() for line in original.splitlines())
        octets = (
            f"From: The Founder <{self.address}>\nTo: {request['Reply-To']}\nSubject: Re: {request['Subject']}\n"
            f"Date: {format_datetime(now)}\nMessage-ID: <{self.written}.{now.timestamp():.0f}@phone.example>\n"
            f"In-Reply-To: {request['Message-ID']}\nMIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\n"
            f"Content-Transfer-Encoding: 8bit\n\n"
            f"{text}\n\nSent from my iPhone\n\n> On {now:%d %b %Y at %H:%M}, {request['From']} wrote:\n> \n{quoted}\n"
        )
        message = octets.replace("\n", "\r\n").encode()
        return self._signature(message) + message if signed else message

    def _signature(self, message: bytes) -> bytes:
        signature: bytes = dkim.sign(
            message,
            self.selector.encode(),
            self.domain.encode(),
            base64.b64encode(bytes(self.key)),
            canonicalize=(b"relaxed", b"relaxed"),
            signature_algorithm=b"ed25519-sha256",
            include_headers=_SIGNED,
        )
        return signature
