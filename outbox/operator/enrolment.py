"""Enrol an approver for one-time codes: make the secret that his authenticator app and the inbox share.

Whoever has read the secret can approve where `approval.authenticity` is "code", so it leaves its file only as a QR code
on a terminal, or where somebody asked for it in so many words.
"""

from __future__ import annotations

import base64
import os
import secrets
from dataclasses import dataclass, field
from pathlib import Path

from outbox.config import Settings
from outbox.core.address import comparable
from outbox.core.errors import Code, ConfigError, NotPermitted

SECRET_OCTETS = 20  # RFC 4226 section 4, R6: 160 bits recommended,
LEAST_SECRET_OCTETS = 16  # 128 required
ISSUER = "Outbox"


@dataclass(frozen=True, slots=True)
class Enrolment:
    """One approver's secret in base32, the file that holds it, and whether it was made just now."""

    approver: str
    file: Path
    made: bool
    secret: str = field(repr=False)

    @property
    def uri(self) -> str:
        """What an authenticator app reads out of the QR code: TOTP with SHA-1, six digits, 30 s (RFC 6238)."""
        from pyotp import TOTP

        return TOTP(self.secret).provisioning_uri(name=self.approver, issuer_name=ISSUER)

    @property
    def octets(self) -> bytes:
        """What the file holds."""
        return f"{self.secret}\n".encode("ascii")

    @property
    def groups(self) -> str:
        """The secret in groups of four, for typing it in."""
        return " ".join(self.secret[start : start + 4] for start in range(0, len(self.secret), 4))


def new_secret() -> str:
    """A fresh secret in base32, without padding."""
    return base64.b32encode(secrets.token_bytes(SECRET_OCTETS)).decode("ascii")


def enrol(settings: Settings, address: str, *, again: bool = False) -> Enrolment:
    """Make an approver's secret where he has none, or with `again` another one; else return the one that he has.

    Raises NotPermitted where he is no approver, ConfigError where the file cannot be read or written.
    """
    approver = _registered(settings, address)
    file = settings.code_file(approver)
    if "/" in approver and settings.details_of(approver).code_file is None:
        raise unfit_name(approver)
    if os.path.lexists(file) and not again:
        return Enrolment(approver, file, made=False, secret=_secret_of(settings, approver, file))
    enrolment = Enrolment(approver, file, made=True, secret=new_secret())
    try:
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if again:
            _replace(file, enrolment.octets)
        else:
            write_new(file, enrolment.octets, 0o600)
    except OSError as error:
        words = f"{file} cannot be written: {error.strerror}"
        raise ConfigError(Code.SECRET_UNREADABLE, words, field=f"approver.{approver}.code_file") from error
    return enrolment


def unfit_name(approver: str) -> ConfigError:
    """What to raise for an approver after whom no file can be named."""
    words = f'{approver}: no file can be named after this address; name one as code_file under [approver."{approver}"]'
    return ConfigError(Code.CONFIG_INVALID, words, field=f"approver.{approver}.code_file")


def write_new(file: Path, octets: bytes, mode: int) -> None:
    """Write a file that was not there, durably. Raises FileExistsError."""
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    with os.fdopen(descriptor, "wb") as opened:
        opened.write(octets)
        opened.flush()
        os.fsync(descriptor)


def _replace(file: Path, octets: bytes) -> None:
    """The old secret or the new one, whenever the machine stops: never half of one."""
    written = file.with_name(f".{file.name}.{secrets.token_hex(4)}")
    write_new(written, octets, 0o600)
    written.replace(file)


def _registered(settings: Settings, address: str) -> str:
    for approver in settings.approvers:
        if comparable(approver) == comparable(address):
            return approver
    raise NotPermitted(Code.APPROVER_UNKNOWN, f"{address} is not in approval.approvers", field="ADDRESS")


def _secret_of(settings: Settings, approver: str, file: Path) -> str:
    text = "".join(settings.code_text(approver).split()).rstrip("=").upper()
    try:
        octets = base64.b32decode(text + "=" * (-len(text) % 8))
    except ValueError:
        octets = b""
    if len(octets) < LEAST_SECRET_OCTETS:
        words = f"{file} holds no secret of {LEAST_SECRET_OCTETS * 8} bits; `outbox enrol {approver} --again` makes one"
        raise ConfigError(Code.SECRET_UNREADABLE, words, field=f"approver.{approver}.code_file")
    return text
