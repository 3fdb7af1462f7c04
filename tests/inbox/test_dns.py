"""Asking DNS: no record is an answer, no answer is an error; over a real server on loopback."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest
from dns.nameserver import Do53Nameserver

from outbox.core.errors import Code, Unavailable
from outbox.inbox.dns import Resolver, _nameserver
from tests.inbox.zone import Zone

KEY = "s1._domainkey.acme.example"


@pytest.fixture
def zone() -> Iterator[Zone]:
    with Zone() as served:
        yield served


@pytest.fixture
def resolver(zone: Zone) -> Resolver:
    return Resolver((zone.address,), timeout=5.0)


def test_the_strings_of_a_record_are_joined(zone: Zone, resolver: Resolver) -> None:
    record = b"v=DKIM1; p=" + b"A" * 400
    zone.publish(KEY, record)
    assert resolver.txt(KEY) == (record,)


def test_every_record_of_a_name_is_returned(zone: Zone, resolver: Resolver) -> None:
    zone.publish(KEY, b"v=DKIM1; p=AAAA", b"v=spf1 -all")
    assert set(resolver.txt(KEY)) == {b"v=DKIM1; p=AAAA", b"v=spf1 -all"}


def test_octets_beyond_ascii_come_as_they_are(zone: Zone, resolver: Resolver) -> None:
    zone.publish(KEY, bytes(range(256)))
    assert resolver.txt(KEY) == (bytes(range(256)),)


def test_an_alias_is_followed(zone: Zone, resolver: Resolver) -> None:
    zone.publish("s1.dkim.mailer.example", b"v=DKIM1; p=AAAA")
    zone.alias(KEY, "s1.dkim.mailer.example")
    assert resolver.txt(KEY) == (b"v=DKIM1; p=AAAA",)


def test_an_alias_that_leads_nowhere_has_no_record(zone: Zone, resolver: Resolver) -> None:
    zone.alias(KEY, "gone.mailer.example")
    assert resolver.txt(KEY) == ()


def test_a_name_that_does_not_exist_has_no_record(resolver: Resolver) -> None:
    assert resolver.txt(KEY) == ()


def test_a_name_with_other_records_alone_has_no_record(zone: Zone, resolver: Resolver) -> None:
    zone.serve_mail("acme.example", "10 mx.acme.example.")
    assert resolver.txt("acme.example") == ()


@pytest.mark.parametrize("record", [b"v=DKIM1; p=" + b"A" * 200, b"v=DKIM1; p=" + b"A" * 2000], ids=["said", "long"])
def test_what_does_not_fit_is_asked_for_again_over_tcp(zone: Zone, resolver: Resolver, record: bytes) -> None:
    zone.publish(KEY, record)
    zone.truncate(KEY)
    assert resolver.txt(KEY) == (record,)
    assert zone.asked == [(KEY, "TXT", "udp"), (KEY, "TXT", "tcp")]


@pytest.mark.parametrize("rcode", ["SERVFAIL", "REFUSED", "NOTIMP", "YXDOMAIN"])
def test_an_error_of_the_server_is_no_answer(zone: Zone, resolver: Resolver, rcode: str) -> None:
    zone.publish(KEY, b"v=DKIM1; p=AAAA")
    zone.fail(KEY, rcode)
    with pytest.raises(Unavailable, match=f"no answer from DNS about {KEY}") as caught:
        resolver.txt(KEY)
    assert caught.value.code is Code.DNS_UNAVAILABLE
    assert caught.value.field == "dns.nameservers"


@pytest.mark.timeout(20)
def test_silence_ends_when_the_time_is_over(zone: Zone) -> None:
    zone.silence(KEY)
    with pytest.raises(Unavailable):
        Resolver((zone.address,), timeout=0.3).txt(KEY)
    assert (KEY, "TXT", "udp") in zone.asked


@pytest.mark.timeout(20)
def test_a_server_that_is_not_there_is_no_answer() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as reserved:
        reserved.bind(("127.0.0.1", 0))
        port = reserved.getsockname()[1]
    with pytest.raises(Unavailable):
        Resolver((f"127.0.0.1:{port}",), timeout=0.3).txt(KEY)


def test_the_second_server_is_asked_where_the_first_fails(zone: Zone) -> None:
    zone.publish(KEY, b"v=DKIM1; p=AAAA")
    with Zone() as broken:
        broken.fail(KEY)
        assert Resolver((broken.address, zone.address)).txt(KEY) == (b"v=DKIM1; p=AAAA",)
        assert broken.asked


@pytest.mark.parametrize(
    "name", ["", ".", "a..b", "-" * 64, "a" * 60 + ".b" * 120, "a b", "a\\.b", "a\x00b", "é.example"]
)
def test_what_is_no_name_is_not_asked_for(zone: Zone, resolver: Resolver, name: str) -> None:
    assert resolver.txt(name) == ()
    assert zone.asked == []


def test_mail_servers_come_by_preference(zone: Zone, resolver: Resolver) -> None:
    zone.serve_mail("acme.example", "20 b.mx.example.", "10 A.mx.example.")
    assert resolver.mx("acme.example") == ("a.mx.example", "b.mx.example")


def test_a_domain_that_takes_no_mail_has_no_mail_server(zone: Zone, resolver: Resolver) -> None:
    zone.serve_mail("acme.example", "0 .")
    assert resolver.mx("acme.example") == ()


def test_a_failure_about_mail_servers_is_no_answer(zone: Zone, resolver: Resolver) -> None:
    zone.fail("acme.example")
    with pytest.raises(Unavailable):
        resolver.mx("acme.example")


@pytest.mark.parametrize(
    ("entry", "server"),
    {
        "192.0.2.1": ("192.0.2.1", 53),
        "192.0.2.1:5353": ("192.0.2.1", 5353),
        "2001:db8::1": ("2001:db8::1", 53),
        "[2001:db8::1]": ("2001:db8::1", 53),
        "[2001:db8::1]:5353": ("2001:db8::1", 5353),
    }.items(),
)
def test_a_server_is_named_with_or_without_a_port(entry: str, server: tuple[str, int]) -> None:
    named = _nameserver(entry)
    assert isinstance(named, Do53Nameserver)
    assert (named.address, named.port) == server


def test_importing_the_resolver_does_not_import_dnspython() -> None:
    program = "import sys, outbox.inbox.dns; sys.exit('dns.resolver' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
