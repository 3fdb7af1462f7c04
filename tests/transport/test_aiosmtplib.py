"""What transport uses of aiosmtplib and nobody promised: held here, so that an upgrade that changes it is seen."""

from __future__ import annotations

import asyncio
import gc
import ssl
from importlib.metadata import version

import aiosmtplib
import pytest

from tests.relay.certificate import Certificate
from tests.relay.scripted import Phase, Say, ScriptedRelay

SECURED = ["none", "starttls", "tls"]


def _client(relay: ScriptedRelay, security: str, tls: ssl.SSLContext | None, timeout: float = 5) -> aiosmtplib.SMTP:
    return aiosmtplib.SMTP(
        hostname="127.0.0.1",
        port=relay.port,
        use_tls=security == "tls",
        start_tls=security == "starttls",
        tls_context=None if security == "none" else tls,
        timeout=timeout,
        local_hostname="[127.0.0.1]",
    )


class _Listener(asyncio.BufferedProtocol):
    def __init__(self) -> None:
        self.heard = b""
        self.line = asyncio.Event()
        self._buffer = memoryview(bytearray(1024))

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002  asyncio's
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.heard += self._buffer[:nbytes]
        if self.heard.endswith(b"\n"):
            self.line.set()


def test_the_version_is_one_that_was_read() -> None:
    assert version("aiosmtplib").startswith("5.1.")


@pytest.mark.parametrize("security", SECURED)
def test_the_stream_can_be_handed_to_another_protocol(certificate: Certificate, security: str) -> None:
    async def hand_over(relay: ScriptedRelay) -> tuple[bytes, bool]:
        client = _client(relay, security, certificate.trusting())
        await client.connect()
        await client.ehlo()
        transport = client.transport
        assert isinstance(transport, asyncio.Transport)
        listener = _Listener()
        transport.set_protocol(listener)
        del client
        gc.collect()  # the client's end is not the stream's
        assert not transport.is_closing()
        transport.write(b"MAIL FROM:<a@acme.example>\r\n")
        await asyncio.wait_for(listener.line.wait(), 5)
        transport.abort()
        return listener.heard, transport.is_closing()

    with ScriptedRelay(tls=certificate.server(), implicit_tls=security == "tls") as relay:
        assert asyncio.run(hand_over(relay)) == (b"250 2.1.0 Ok\r\n", True)
        relay.wait_until_over()
        assert relay.seen[0].verbs[-2:] == ["EHLO", "MAIL"]


@pytest.mark.parametrize("security", ["starttls", "tls"])
def test_under_tls_there_is_an_inner_transport_whose_buffer_can_be_limited(
    certificate: Certificate, security: str
) -> None:
    async def limited(relay: ScriptedRelay) -> tuple[int, int]:
        client = _client(relay, security, certificate.trusting())
        await client.connect()
        await client.ehlo()
        outer = client.transport
        inner = outer._ssl_protocol._transport
        assert isinstance(inner, asyncio.Transport)
        assert inner is not outer
        inner.set_write_buffer_limits(high=0)
        found = inner.get_write_buffer_limits()
        outer.abort()
        return found

    with ScriptedRelay(tls=certificate.server(), implicit_tls=security == "tls") as relay:
        assert asyncio.run(limited(relay)) == (0, 0)


@pytest.mark.parametrize("security", SECURED)
def test_extensions_are_a_dictionary_in_lower_case_as_last_offered(certificate: Certificate, security: str) -> None:
    async def offered(relay: ScriptedRelay) -> dict[str, str]:
        client = _client(relay, security, certificate.trusting())
        await client.connect()
        await client.ehlo()
        client.transport.abort()
        return client.esmtp_extensions

    relay = ScriptedRelay(
        tls=certificate.server(), implicit_tls=security == "tls", extensions=("SIZE 1000", "8BITMIME", "smtpUTF8")
    )
    with relay:
        extensions = asyncio.run(offered(relay))
    assert extensions["size"].strip() == "1000"
    assert {"8bitmime", "smtputf8"} <= set(extensions)
    assert ("starttls" in extensions) is (security == "none")


def test_words_that_come_with_the_last_reply_are_not_kept_for_the_next_command() -> None:
    async def heard_after(relay: ScriptedRelay) -> bytes:
        client = _client(relay, "none", None)
        await client.connect()
        await client.ehlo()
        listener = _Listener()
        client.transport.set_protocol(listener)
        client.transport.write(b"MAIL FROM:<a@acme.example>\r\n")
        await asyncio.wait_for(listener.line.wait(), 5)
        client.transport.abort()
        return listener.heard

    with ScriptedRelay({Phase.EHLO: [Say(b"250 relay.example\r\n250 2.1.0 not asked for\r\n")]}) as relay:
        assert asyncio.run(heard_after(relay)) == b"250 2.1.0 Ok\r\n"


def test_a_relay_without_starttls_is_an_error_where_it_is_asked_for(certificate: Certificate) -> None:
    async def connect(relay: ScriptedRelay) -> None:
        await _client(relay, "starttls", certificate.trusting()).connect()

    with ScriptedRelay() as relay, pytest.raises(aiosmtplib.SMTPException, match="STARTTLS"):
        asyncio.run(connect(relay))


@pytest.mark.parametrize("security", ["starttls", "tls"])
def test_a_bad_certificate_can_be_told_from_other_failures(certificate: Certificate, security: str) -> None:
    async def connect(relay: ScriptedRelay) -> BaseException:
        try:
            await _client(relay, security, ssl.create_default_context()).connect()
        except (aiosmtplib.SMTPException, OSError) as error:
            return error
        raise AssertionError("it connected")

    with ScriptedRelay(tls=certificate.server(), implicit_tls=security == "tls") as relay:
        error: BaseException | None = asyncio.run(connect(relay))
    causes = []
    while error is not None:
        causes.append(type(error))
        error = error.__cause__ or error.__context__
    assert ssl.SSLCertVerificationError in causes
