"""Proof by Authentication-Results: in the shapes that mail servers write, against those that senders would write."""

from __future__ import annotations

import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from outbox.inbox.incoming import parse_incoming
from outbox.inbox.proof import Proof, Unproven
from outbox.inbox.results import MOST_STAMPS, verify_results
from tests.seeds import seeds

AUTHOR = "founder@acme.example"
PROVEN = Proof("authentication-results", "acme.example", "")
DATE = "Fri, 15 Jan 2027 08:00:00 +0000"
STAMP = "Authentication-Results: mx1.mail.example; dmarc=pass (p=none dis=none) header.from=acme.example"
ENTRY = f"""Received: from out7.acme.example (out7.acme.example [203.0.113.7])
\t(using TLSv1.3 with cipher TLS_AES_256_GCM_SHA384 (256/256 bits)
\t key-exchange ECDHE (prime256v1) server-signature RSA-PSS (2048 bits) server-digest SHA256)
\t(No client certificate requested)
\tby mx1.mail.example (Postfix) with ESMTPS id 281071EA00F1
\tfor <approve@outbox.example>; {DATE} (UTC)"""
WRITTEN = f"""From: The Founder <{AUTHOR}>
To: approve@outbox.example
Subject: Re: Send this?
Date: {DATE}"""
HOSTS = ("mx*.mail.example", "*.inside.mail.example", "localhost")
bounded = settings(max_examples=400, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])


def verify(
    *blocks: str, authserv_id: str = "mx*.mail.example", received_by: tuple[str, ...] = HOSTS, author: str = AUTHOR
) -> Proof | Unproven:
    """What a message with these header blocks, from the top, above what its author wrote, comes to."""
    octets = "\n".join([*blocks, WRITTEN, "", "Ship it\n"]).encode()
    return verify_results(parse_incoming(octets), author=author, authserv_id=authserv_id, received_by=received_by)


def why(*blocks: str, **given: object) -> str:
    found = verify(*blocks, **given)  # type: ignore[arg-type]
    assert isinstance(found, Unproven), found
    return found.why


def stamp(said: str, server: str = "mx1.mail.example") -> str:
    return f"Authentication-Results: {server}; {said}"


def received(
    *,
    peer: str = "mx1.mail.example",
    seen: str = "(localhost [127.0.0.1])",
    by: str = "mx1.mail.example",
    how: str = "",
) -> str:
    return f"Received: from {peer} {seen} by {by} (Postfix) with {how or 'ESMTP'} id 4A2C; {DATE}"


# In the shapes of real servers, the hosts invented.

FASTMAIL = f"""Return-Path: <founder@acme.example>
Received: from ams-compute-02.inside.mail.example (ams-compute-02.inside.mail.example [10.64.2.62])
\t by slotai03m05 (Cyrus 3.13.7-879-g3d7eacd738-fm-20260923.003-g3d7eacd7) with LMTPA;
\t {DATE}
X-Cyrus-Session-Id: slotai03m05-1790704934-1293611-2-13485307179896972488
X-Sieve: CMU Sieve 3.0
X-Spam-source: IP='203.0.113.7', Host='out7.acme.example', Country='US',
  FromHeader='example', MailFrom='example'
Received: from phl-mx-04 ([10.202.2.203])
  by ams-compute-02.inside.mail.example (LMTPProxy); {DATE}
Received: from mx1.mail.example (localhost [127.0.0.1])
\tby mailmx.inside.mail.example (Postfix) with ESMTP id A71211EA00E7
\tfor <approve@outbox.example>; {DATE} (EST)
Received: from mailmx.inside.mail.example (localhost [127.0.0.1])
    by mx1.mail.example (Authentication Milter) with ESMTP
    id 35022C783BF.281071EA00F1;
    {DATE}
ARC-Authentication-Results: i=1; mx1.mail.example;
    dmarc=pass header.from=acme.example
X-ME-Authentication-Results: mx1.mail.example;
    x-tls=pass smtp.version=TLSv1.3 smtp.cipher=TLS_AES_256_GCM_SHA384
      smtp.bits=256/256;
    x-vs=clean score=20 state=14
Authentication-Results: mx1.mail.example;
    x-csa=none;
    x-me-sender=none;
    x-ptr=pass smtp.helo=out7.acme.example
      policy.ptr=out7.acme.example
Authentication-Results: mx1.mail.example;
    bimi=skipped (DMARC Policy is not at enforcement)
Authentication-Results: mx1.mail.example;
    arc=none (no signatures found)
Authentication-Results: mx1.mail.example;
    dkim2=none (no signatures found);
    dkim=pass (2048-bit rsa key sha256) header.d=acme.example
      header.i=@acme.example header.b=ZMMr8Ob+ header.a=rsa-sha256
      header.s=s2;
    dmarc=pass policy.published-domain-policy=reject
      policy.applied-disposition=none policy.evaluated-disposition=none
      (p=reject,d=none,d.eval=none) policy.policy-from=p
      header.from=acme.example;
    iprev=pass smtp.remote-ip=203.0.113.7
      (out7.acme.example);
    spf=pass smtp.mailfrom=founder@acme.example
      smtp.helo=out7.acme.example
Received-SPF: pass
    (acme.example: Sender is authorized to use 'founder@acme.example' in 'mfrom' identity (mechanism 'ip4' matched))
    receiver=mx1.mail.example;
    identity=mailfrom
{ENTRY}"""
AMAVIS = f"""Received: from mx1.mail.example
\tby mx1.mail.example with LMTP
\tid 2AByEXPkR2UxxgAAyPVbRQ
\t(envelope-from <founder@acme.example>)
\tfor <approve@outbox.example>; {DATE}
Received: from localhost (localhost [127.0.0.1])
\tby mx1.mail.example (Postfix) with ESMTP id 64A2384064
\tfor <approve@outbox.example>; {DATE} (UTC)
X-Virus-Scanned: amavis at mail.example
Received: from mx1.mail.example ([127.0.0.1])
 by localhost (mx1.mail.example [127.0.0.1]) (amavis, port 10024) with ESMTP
 id mCjXasXjEBME for <approve@outbox.example>;
 {DATE}
Authentication-Results: mx1.mail.example; dmarc=pass (p=none dis=none) header.from=acme.example
Authentication-Results: mx1.mail.example;
\tdkim=pass (2048-bit key; unprotected) header.d=acme.example header.i=@acme.example header.b="XFVj/Bf="
DMARC-Filter: OpenDMARC Filter v1.5.0 mx1.mail.example 1E5CE814AB
{ENTRY}"""
PROTON_AS_IT_WAS = f"""X-Original-To: approve@outbox.example
Authentication-Results: mx1.mail.example; dmarc=pass (p=quarantine dis=none)
 header.from=acme.example
Authentication-Results: mx1.mail.example; spf=pass smtp.mailfrom=acme.example
Authentication-Results: mx1.mail.example; arc=none smtp.remote-ip=203.0.113.7
Authentication-Results: mx1.mail.example; dkim=pass reason="it is (quite; good)"
 (0-bit key) header.d=acme.example header.i=@acme.example
 header.b="XFVjBFda"
{ENTRY}"""
DOCKER = f"""Received: from mx1.mail.example ([172.22.1.253])
\tby 1d0a6a1c2a0e with LMTP
\tid aBcDeF (envelope-from <founder@acme.example>) for <approve@outbox.example>; {DATE}
Authentication-Results: mx1.mail.example;
\tdkim=pass header.d=acme.example header.s=s2 header.b=ZMMr8Ob;
\tspf=pass (mx1.mail.example: domain of founder@acme.example designates 203.0.113.7 as permitted sender)
\t smtp.mailfrom=founder@acme.example;
\tdmarc=pass (policy=none) header.from=acme.example
{ENTRY}"""
EXIM = f"""Received: from mx1.mail.example ([127.0.0.1])
\tby store.inside.mail.example with LMTP
\tid aBcDeF; {DATE}
Authentication-Results: mx1.mail.example;
\tiprev=pass (out7.acme.example) smtp.remote-ip=203.0.113.7;
\tspf=pass smtp.mailfrom=acme.example;
\tdkim=pass header.d=acme.example header.s=s2 header.a=rsa-sha256;
\tdmarc=pass header.from=acme.example;
\tarc=none
Received: from out7.acme.example ([203.0.113.7])
\tby mx1.mail.example with esmtps  (TLS1.3) tls TLS_AES_256_GCM_SHA384
\t(Exim 4.98)
\t(envelope-from <founder@acme.example>)
\tid 1s7be7-00076P-IC
\tfor approve@outbox.example;
\t{DATE}"""
WORKING = {
    "fastmail": FASTMAIL,
    "postfix-amavis-opendmarc-dovecot": AMAVIS,
    "proton-as-it-was-in-2023": PROTON_AS_IT_WAS,
    "rspamd-set-to-the-top-in-containers": DOCKER,
    "exim": EXIM,
}


@pytest.mark.parametrize("header", WORKING.values(), ids=WORKING)
def test_a_server_that_stamps_on_top_proves_it(header: str) -> None:
    assert verify(header) == PROVEN


@pytest.mark.parametrize("header", WORKING.values(), ids=WORKING)
def test_the_same_header_proves_nothing_for_another_domain(header: str) -> None:
    assert isinstance(verify(header, author="founder@other.example"), Unproven)


@pytest.mark.parametrize("header", WORKING.values(), ids=WORKING)
def test_the_same_header_proves_nothing_where_its_server_says_fail(header: str) -> None:
    assert "says dmarc=fail" in why(header.replace("dmarc=pass", "dmarc=fail"))


GMAIL = f"""Delivered-To: approve@mail.example
Received: by 2002:a05:6358:5f0c:b0:1a2:3456:789a with SMTP id d9csp2550iog;
        {DATE}
X-Received: by 2002:a5d:4ec2:: with SMTP id s2mr53157wjc.93.1479468571133;
        {DATE}
ARC-Authentication-Results: i=1; mx1.mail.example;
       dmarc=pass (p=NONE sp=QUARANTINE dis=NONE) header.from=acme.example
Return-Path: <founder@acme.example>
Received: from out7.acme.example (out7.acme.example. [203.0.113.7])
        by mx1.mail.example with ESMTPS id up6si7122038wjc.275.2027.01.15.00.00.00
        for <approve@mail.example>
        (version=TLS1_3 cipher=TLS_AES_256_GCM_SHA384 bits=256/256);
        {DATE}
Received-SPF: pass (mail.example: domain of founder@acme.example designates 203.0.113.7 as permitted sender)
Authentication-Results: mx1.mail.example;
       dkim=pass header.i=@acme.example header.s=s2 header.b="dq3/+aB=";
       spf=pass (mail.example: domain of founder@acme.example designates 203.0.113.7 as permitted sender)
        smtp.mailfrom=founder@acme.example;
       dmarc=pass (p=NONE sp=QUARANTINE dis=NONE) header.from=acme.example"""
STALWART = f"""Delivered-To: approve@mail.example
Received: from out7.acme.example (out7.acme.example [203.0.113.7] (AS64500 Acme, DE))
\t(using TLSv1.3 with cipher TLS13_AES_256_GCM_SHA384)
\tby mx1.mail.example (Stalwart SMTP) with ESMTPS id 3DE517AF3D36E02;
\t{DATE}
Authentication-Results: mx1.mail.example;
\tdkim=pass header.d=acme.example header.s=s2 header.b=EmGbuDcw;
\tspf=pass (mx1.mail.example: domain of founder@acme.example designates 203.0.113.7 as permitted sender)
\t smtp.mailfrom=founder@acme.example;
\tiprev=pass policy.iprev=203.0.113.7;
\tdmarc=pass header.from=acme.example policy.dmarc=none"""
ICLOUD = f"""Received: from st43p00im (localhost [127.0.0.1])
\tby p00-gateway.inside.mail.example (Oracle) with ESMTP id 4A2C; {DATE}
{ENTRY}
Authentication-Results: bimi.mail.example; bimi=skipped reason="insufficient dmarc"
Authentication-Results: mx1.mail.example; dmarc=pass header.from=acme.example
Authentication-Results: dkim-verifier.mail.example;
\tdkim=pass (2048-bit key) header.d=acme.example header.i=@acme.example header.b=XubAwo48"""
YAHOO = f"""Received: from 127.0.0.1
 by mx1.mail.example pod-id NONE with HTTPS; {DATE}
Return-Path: <founder@acme.example>
X-Originating-Ip: [203.0.113.7]
Authentication-Results: mx1.mail.example;
 dkim=pass header.i=@acme.example header.s=s2;
 spf=pass smtp.mailfrom=acme.example;
 dmarc=pass(p=NONE) header.from=acme.example;
Received: from 203.0.113.7 (EHLO out7.acme.example)
 by 10.253.1.1 with SMTPs
 (version=TLS1_3 cipher=TLS_AES_128_GCM_SHA256);
 {DATE}"""
BELOW = {"gmail": GMAIL, "stalwart-and-proton-and-rspamd": STALWART, "icloud": ICLOUD, "yahoo": YAHOO}


@pytest.mark.parametrize("header", BELOW.values(), ids=BELOW)
def test_a_server_that_stamps_below_its_own_received_proves_nothing(header: str) -> None:
    said = why(header)
    assert said.startswith("the Authentication-Results of mx*.mail.example stands only below the border (")
    assert 'set approval.authenticity to "dkim" or "code"' in said


@pytest.mark.parametrize("header", BELOW.values(), ids=BELOW)
def test_the_stamps_of_those_servers_are_read_all_the_same(header: str) -> None:
    """So that it is their place alone that they are refused for."""
    above = [line for line in re.split(r"\n(?![ \t])", header) if line.startswith("Authentication-Results:")]
    assert verify(*above, ENTRY) == PROVEN


def test_a_server_that_leaves_its_name_out_is_told_so() -> None:
    microsoft = f"""Received: from AM0PR01.mail.example (2001:db8:20b:1::9)
 by AM9PR01.mail.example with HTTPS; {DATE}
Authentication-Results: spf=pass (sender IP is 203.0.113.7)
 smtp.mailfrom=acme.example; dkim=pass (signature was verified)
 header.d=acme.example;dmarc=pass action=none
 header.from=acme.example;compauth=pass reason=100
Received-SPF: Pass (protection.mail.example: domain of acme.example designates 203.0.113.7 as permitted sender)"""
    nameless = microsoft[microsoft.index("Authentication-Results") :]
    said = why(nameless, ENTRY)
    assert said.startswith("this server leaves its name out of Authentication-Results")
    assert "authentication-results cannot be used with it" in said
    assert "no Authentication-Results of mx*.mail.example stands above" in why(microsoft, ENTRY)


@pytest.mark.parametrize("said", ["dmarc=pass header.from=acme.example", "; dmarc=pass header.from=acme.example", ""])
def test_a_field_without_a_name_proves_nothing(said: str) -> None:
    assert "leaves its name out" in why(f"Authentication-Results: {said}", ENTRY)


# Where the border is.

FORGED = f"{STAMP}\nAuthentication-Results: mx2.mail.example; dkim=pass header.d=acme.example"


@pytest.mark.parametrize(
    "sent",
    [
        FORGED,
        f"{received()}\n{FORGED}\n{ENTRY}",
        f"{FORGED}\n{received()}\n{ENTRY}",
        FASTMAIL,
        AMAVIS,
    ],
    ids=["stamp", "internal-received", "stamp-above-internal-received", "a-whole-real-header", "another"],
)
def test_what_a_sender_writes_in_our_name_stands_below_the_border(sent: str) -> None:
    evil = ENTRY.replace("out7.acme.example", "mail.evil.example")
    assert "stands only below the border (Received: from mail.evil.example by mx1.mail.example)" in why(evil, sent)
    assert "says dmarc=fail" in why(stamp("dmarc=fail header.from=acme.example"), evil, sent)
    assert "says nothing of dmarc" in why(stamp("spf=pass smtp.mailfrom=evil.example"), evil, sent)
    inside = received(by="store.inside.mail.example")
    assert "says dmarc=none" in why(inside, stamp("dmarc=none header.from=acme.example"), evil, sent)


FROM_OUTSIDE = {
    "a-public-address": received(seen="(localhost [203.0.113.7])"),
    "a-public-address-without-a-name": received(seen="([203.0.113.7])"),
    "a-public-ipv6-address": received(seen="(localhost [IPv6:2001:db8::7])"),
    "an-address-of-carriers": received(seen="(localhost [100.64.0.7])"),
    "a-v4-mapped-public-address": received(seen="(localhost [::ffff:203.0.113.7])"),
    "a-reverse-name-that-looks-like-an-address": received(seen="(localhost[127.0.0.1] [203.0.113.7])"),
    "a-helo-in-the-comment": received(seen="([203.0.113.7] helo=[127.0.0.1])"),
    "a-helo-with-a-comment": received(seen="(localhost [127.0.0.1]) (mail.evil.example [203.0.113.7])"),
    "an-unknown-address": received(seen="(unknown [unknown])"),
    "no-address": received(seen="(localhost)"),
    "no-comment": received(seen=""),
    "an-address-without-brackets": received(seen="(127.0.0.1)"),
    "an-address-in-a-nested-comment-too": received(seen="(localhost [127.0.0.1] (was [203.0.113.7]))"),
    "a-foreign-name": received(peer="mail.evil.example"),
    "a-name-that-contains-ours": received(peer="mx1.mail.example.evil.example"),
    "a-name-in-one-label-more": received(peer="mx1.evil.mail.example"),
    "an-address-for-a-name": received(peer="[127.0.0.1]"),
    "a-foreign-server": received(by="mx1.mail.evil.example"),
    "a-server-of-one-label": received(by="mx1"),
    "a-login": received(how="ESMTPSA"),
    "a-login-without-tls": received(how="ESMTPA"),
    "http": received(how="HTTP"),
    "a-protocol-with-a-tail": received(how="ESMTP/TLS"),
    "lmtp-from-a-public-address": received(seen="([203.0.113.7])", how="LMTP"),
    "a-local-program": f"Received: by mx1.mail.example (Postfix, from userid 1001) id 4A2C; {DATE}",
    "no-from": f"Received: by mx1.mail.example (Postfix) with ESMTP id 4A2C; {DATE}",
    "no-from-with-a-login": f"Received: by mx1.mail.example (Postfix) with ESMTPA; {DATE}",
    "exim-local": f"Received: from mail by mx1.mail.example with local (Exim 4.98) id 1s7be7-00076P; {DATE}",
    "qmail-local": f"Received: (qmail 4004 invoked by uid 550); {DATE}",
    "qmail": f"Received: from localhost (HELO mx1.mail.example) (127.0.0.1) by mx1.mail.example with SMTP; {DATE}",
    "no-by": f"Received: from mx1.mail.example (localhost [127.0.0.1]) with ESMTP id 4A2C; {DATE}",
    "by-first": f"Received: by mx1.mail.example from mx1.mail.example (localhost [127.0.0.1]); {DATE}",
    "two-by": received(by="mx1.mail.example by mx2.mail.example"),
    "a-helo-with-blanks": received(peer="mail.evil.example by mx1.mail.example"),
    "a-helo-with-lmtp": received(peer=f"a by b with LMTP id c; {DATE} (", seen="[203.0.113.7])"),
    "a-helo-with-everything": received(peer=f"a by b with LMTP; {DATE}", seen="(evil [203.0.113.7])"),
    "two-dates": f"{received()}; {DATE}",
    "no-date": received().partition(";")[0],
    "words-for-a-date": received().replace(DATE, "by with from"),
    "an-open-comment": received(seen="(localhost [127.0.0.1]"),
    "a-comment-too-much": received(seen="(localhost [127.0.0.1]))"),
    "an-open-quote": received(peer='"mx1.mail.example'),
    "a-quoted-name": received(peer='"mx1.mail.example"'),
    "a-control-character": received(peer="mx1\x01.mail.example"),
    "nothing": "Received:",
    "a-clause-without-a-value": f"Received: from mx1.mail.example (a [127.0.0.1]) by mx1.mail.example with; {DATE}",
    "a-comment-before-the-name": f"Received: from (a [127.0.0.1]) mx1.mail.example by mx1.mail.example; {DATE}",
    "longer-than-any": received(seen="(localhost [127.0.0.1])" + " (x)" * 5000),
}


@pytest.mark.parametrize("line", FROM_OUTSIDE.values(), ids=FROM_OUTSIDE)
def test_a_received_that_is_not_surely_from_inside_is_the_border(line: str) -> None:
    assert "stands only below the border (" in why(line, STAMP, ENTRY)
    assert verify(STAMP, line) == PROVEN


FROM_INSIDE = {
    "loopback": received(),
    "ipv6-loopback": received(seen="(localhost [IPv6:::1])"),
    "rfc-1918-10": received(seen="(compute.inside.mail.example [10.202.2.203])"),
    "rfc-1918-172": received(seen="(unknown [172.31.255.1])"),
    "rfc-1918-192": received(seen="(unknown [192.168.1.1])"),
    "ipv6-of-ones-own": received(seen="([IPv6:fd12:3456::1])"),
    "ipv6-link": received(seen="([fe80::1])"),
    "v4-mapped": received(seen="([::ffff:10.1.2.3])"),
    "with-the-server-s-own-address": received(by="mx1.mail.example (mx1.mail.example [198.51.100.1])"),
    "with-a-port": received(seen="([10.1.2.3]:25)"),
    "upper-case": received(peer="MX1.MAIL.EXAMPLE", by="Localhost", how="esmtp"),
    "over-tls": received(seen="(a [10.1.2.3]) (using TLSv1.3 with cipher X (256/256 bits))", how="ESMTPS"),
    "no-protocol": f"Received: from phl-mx-04 ([10.202.2.203]) by ams-2.inside.mail.example (MEProxy); {DATE}",
    "a-name-of-one-label": received(peer="mx1", how="SMTP"),
    "lmtp": f"Received: from mx1.mail.example by mx1.mail.example with LMTP id x; {DATE}",
    "lmtp-to-one-label": received(by="slotai03m05", how="LMTPA"),
    "lmtp-by-unix-socket": f"Received: from murder ([unix socket]) by mx1.mail.example (Cyrus 3.8) with LMTPA; {DATE}",
    "lmtp-without-from": f"Received: by mx1.mail.example (Dovecot) with LMTP id x; {DATE}",
    "a-quoted-recipient": received().replace("; ", ' for <"a;by b"@outbox.example>; '),
    "no-weekday-no-seconds": received().replace(DATE, "15 Jan 2027 08:00 GMT (winter)"),
    "folded": received().replace(" by ", "\n\t by "),
}


@pytest.mark.parametrize("line", FROM_INSIDE.values(), ids=FROM_INSIDE)
def test_a_received_from_inside_is_passed(line: str) -> None:
    assert verify(line, STAMP, ENTRY) == PROVEN
    assert verify(line, line, line, STAMP, ENTRY) == PROVEN


@pytest.mark.parametrize("line", FROM_INSIDE.values(), ids=FROM_INSIDE)
def test_below_the_first_stamp_the_next_received_is_the_border(line: str) -> None:
    """Mail within one provider: every hop is inside, and what its sender wrote begins right below them."""
    assert "says nothing of dmarc" in why(stamp("x-local-ip=pass"), line, STAMP, ENTRY)


def test_a_received_of_a_host_that_is_not_listed_is_the_border() -> None:
    assert verify(received(), STAMP, ENTRY, received_by=()) == PROVEN
    inside = received(peer="mx1.mail.example", by="store.inside.mail.example")
    assert verify(inside, STAMP, ENTRY) == PROVEN
    said = why(inside, STAMP, ENTRY, received_by=())
    assert "list them in approval.received_by" in said
    assert "(Received: from mx1.mail.example by store.inside.mail.example)" in said


def test_without_a_border_there_is_no_proof() -> None:
    assert "no Received shows where it came in from outside" in why(STAMP)
    assert "no Received shows where it came in from outside" in why(
        received(), STAMP.replace("mx1", "mail"), received()
    )


def test_a_header_that_is_not_one_proves_nothing() -> None:
    assert why("this is no field", STAMP, ENTRY) == "its header is too long, or not a header, to be relied on"
    assert why(STAMP, ENTRY, *["X: y"] * 1000) == "its header is too long, or not a header, to be relied on"


# Whose name it must have.


@pytest.mark.parametrize(
    ("pattern", "server"),
    [
        ("mx1.mail.example", "mx1.mail.example"),
        ("mx1.mail.example", "MX1.Mail.Example"),
        ("mx1.mail.example", '"mx1.mail.example"'),
        ("mx1.mail.example", '"mx1\\.mail.example"'),
        ("mx1.mail.example", "mx1.mail.example 1"),
        ("mx1.mail.example", "(a) mx1.mail.example (b) 1 (c)"),
        ("mx*.mail.example", "mx.mail.example"),
        ("mx*.mail.example", "mx-12a.mail.example"),
        ("*.mail.example", "anything.mail.example"),
        ("*.*.example", "mx1.mail.example"),
        ("mx*a.mail.example", "mx-a.mail.example"),
        ("localhost", "localhost"),
    ],
)
def test_a_name_that_the_pattern_means_is_ours(pattern: str, server: str) -> None:
    assert verify(stamp("dmarc=pass header.from=acme.example", server), ENTRY, authserv_id=pattern) == PROVEN


@pytest.mark.parametrize(
    ("pattern", "server"),
    [
        ("mx1.mail.example", "mx1.mail.example.evil.example"),
        ("mx1.mail.example", "evil.mx1.mail.example"),
        ("mx1.mail.example", "mx1-mail.example"),
        ("mx1.mail.example", "mx1xmail.example"),
        ("mx1.mail.example", "mx1.mail.example."),
        ("mx1.mail.example", "mx1.mail.example:25"),
        ("mx1.mail.example", "mx1.mail.example/1"),
        ("mx1.mail.example", "=?utf-8?q?mx1.mail.example?="),
        ("mx1.mail.example", '"mx1.mail.example "'),
        ("mx*.mail.example", "mx1.evil.mail.example"),
        ("mx*.mail.example", "mx.evil.example"),
        ("mx*.mail.example", "mx_1.mail.example"),
        ("mx*.mail.example", "mx\u0131.mail.example"),
        ("mx*.mark.example", "mx1.mar\u212a.example"),
        ("*.mail.example", ".mail.example"),
        ("*.mail.example", "mail.example"),
        ("*.mail.example", "a.b.mail.example"),
        ("*.mail.example", "a" * 64 + ".mail.example"),
        ("*.*.*.*.*", ".".join(["a" * 60] * 5)),
        ("", "mx1.mail.example"),
        ("", '""'),
    ],
)
def test_a_name_that_the_pattern_does_not_mean_is_not_ours(pattern: str, server: str) -> None:
    said = why(stamp("dmarc=pass header.from=acme.example", server), ENTRY, authserv_id=pattern)
    assert said.startswith(f"no Authentication-Results of {pattern} stands above") or "leaves its name out" in said


@pytest.mark.parametrize("version", ["2", "0", "1 1", "one", '"2"'])
def test_a_version_that_nobody_knows_is_not_read(version: str) -> None:
    assert "cannot be read" in why(stamp("dmarc=pass header.from=acme.example", f"mx1.mail.example {version}"), ENTRY)


def test_the_names_that_do_stand_there_are_told() -> None:
    said = why(*(stamp("dmarc=pass", f"{name}.mail.example") for name in "edcba"), ENTRY)
    assert "those of a.mail.example, b.mail.example, c.mail.example do: is approval.authserv_id right?" in said


# What it must say.

SAYING_PASS = {
    "plain": "dmarc=pass header.from=acme.example",
    "upper-case": "DMARC=PASS HEADER.FROM=ACME.EXAMPLE",
    "quoted-domain": 'dmarc=pass header.from="acme.example"',
    "comments-everywhere": '(a(b)) dmarc=(c)pass (d\\)) reason=(e)"f;g" (h) header.from (i) = (j) acme.example (k)',
    "a-method-version": "dmarc/1=pass header.from=acme.example",
    "a-comment-without-a-blank": "dmarc=pass(p=NONE,sp=QUARANTINE) header.from=acme.example;",
    "policy-properties": "dmarc=pass header.from=acme.example policy.dmarc=none",
    "a-value-of-marks": "x-tls=pass version=TLSv1.2 bits=128/128; dmarc=pass header.from=acme.example",
    "a-value-with-equals": "dkim=pass header.b=ab+/c==; dmarc=pass header.from=acme.example",
    "an-empty-value": "spf=none smtp.mailfrom=; dmarc=pass header.from=acme.example",
    "a-bounce": "spf=none smtp.mailfrom=<>; dmarc=pass header.from=acme.example",
    "a-quoted-local-part": 'spf=pass smtp.mailfrom="a; b"@acme.example; dmarc=pass header.from=acme.example',
    "an-ipv6-address": "iprev=pass smtp.remote-ip=2001:db8::7; dmarc=pass header.from=acme.example",
    "empty-parts": ";; dmarc=pass header.from=acme.example;;",
    "dmarc-in-another-name": "x-dmarc=fail; policy.dmarc=fail x.dmarc=no; dmarc=pass header.from=acme.example",
    "dmarc-in-prose": "bimi=skipped (DMARC policy is not enforced); dmarc=pass header.from=acme.example",
}


@pytest.mark.parametrize("said", SAYING_PASS.values(), ids=SAYING_PASS)
def test_a_pass_for_the_from_domain_is_proof(said: str) -> None:
    assert verify(stamp(said), ENTRY) == PROVEN


@pytest.mark.parametrize(
    "header_from", ["b\u00fccher.example", "xn--bcher-kva.example", "XN--BCHER-KVA.EXAMPLE", '"b\u00fccher.example"']
)
def test_the_domain_may_be_in_unicode_or_not(header_from: str) -> None:
    found = verify(stamp(f"dmarc=pass header.from={header_from}"), ENTRY, author="founder@xn--bcher-kva.example")
    assert found == Proof("authentication-results", "xn--bcher-kva.example", "")


NOT_SAYING_PASS = {
    "auth": "auth=pass smtp.auth=founder@acme.example smtp.mailfrom=founder@acme.example",
    "dkim": "dkim=pass header.d=acme.example header.i=@acme.example",
    "spf": "spf=pass smtp.mailfrom=founder@acme.example",
    "all-but-dmarc": "auth=pass; dkim=pass header.d=acme.example; spf=pass; iprev=pass; compauth=pass; bimi=pass",
    "none": "none",
    "nothing": "",
    "dmarc-none": "dmarc=none header.from=acme.example",
    "dmarc-fail": "dmarc=fail header.from=acme.example",
    "dmarc-unknown": "dmarc=unknown header.from=acme.example",
    "dmarc-bestguesspass": "dmarc=bestguesspass header.from=acme.example",
    "dmarc-success": "dmarc=success(p=REJECT) header.from=acme.example",
    "dmarc-temperror": "dmarc=temperror header.from=acme.example",
    "dmarc-passed": "dmarc=passed header.from=acme.example",
    "dmarc-pass-comma": "dmarc=pass, header.from=acme.example",
    "dmarc-pass-equals": "dmarc=pass=fail header.from=acme.example",
    "dmarc-quoted-pass": 'dmarc="pass" header.from=acme.example',
    "dmarc-half-quoted-pass": 'dmarc=pa"ss" header.from=acme.example',
    "dmarc-empty": "dmarc= header.from=acme.example",
    "dmarc-nothing": "dmarc=",
    "dmarc-alone": "dmarc",
    "dmarc-version-2": "dmarc/2=pass header.from=acme.example",
    "dmarc-of-others": "x-dmarc=pass header.from=acme.example; dmarc2=pass header.from=acme.example",
    "an-encoded-word": "=?utf-8?q?dmarc=3Dpass_header=2Efrom=3Dacme=2Eexample?=",
    "an-encoded-result": "dmarc==?utf-8?q?pass?= header.from=acme.example",
    "an-encoded-domain": "dmarc=pass header.from==?utf-8?q?acme=2Eexample?=",
    "letters-that-look-alike": "dmar\u0441=pass header.from=acme.example",
    "no-header-from": "dmarc=pass (p=none) smtp.mailfrom=acme.example header.d=acme.example",
    "header-from-elsewhere": "dmarc=pass; dkim=pass header.from=acme.example",
    "two-header-from": "dmarc=pass header.from=acme.example header.from=acme.example",
    "another-domain": "dmarc=pass header.from=evil.example",
    "a-subdomain": "dmarc=pass header.from=mail.acme.example",
    "the-parent": "dmarc=pass header.from=example",
    "a-longer-name": "dmarc=pass header.from=acme.example.evil.example",
    "a-trailing-dot": "dmarc=pass header.from=acme.example.",
    "an-address": "dmarc=pass header.from=founder@acme.example",
    "an-address-of-others": "dmarc=pass header.from=acme.example@evil.example",
    "an-empty-header-from": 'dmarc=pass header.from=""',
    "a-unicode-name": "dmarc=pass header.from=acm\u0435.example",
    "a-unicode-address": "dmarc=pass header.from=\u00e9@acme.example",
    "a-longest-unicode-name": "dmarc=pass header.from=" + "\u00e9" * 4000,
    "both": "dmarc=pass header.from=acme.example; dmarc=fail header.from=acme.example",
    "both-the-other-way": "dmarc=fail header.from=acme.example; dmarc=pass header.from=acme.example",
    "twice": "dmarc=pass header.from=acme.example; dmarc=pass header.from=acme.example",
}


@pytest.mark.parametrize("said", NOT_SAYING_PASS.values(), ids=NOT_SAYING_PASS)
def test_anything_but_one_pass_for_the_from_domain_is_none(said: str) -> None:
    assert why(stamp(said), ENTRY)


@pytest.mark.parametrize(
    "other",
    ["dmarc=fail header.from=acme.example", "dmarc=none", "dmarc=temperror", "dmarc=pass header.from=evil.example"],
)
def test_every_field_of_ours_must_agree(other: str) -> None:
    passing = stamp("dmarc=pass header.from=acme.example", "mx2.mail.example")
    assert verify(passing, stamp("spf=fail; dkim=fail"), ENTRY) == PROVEN
    assert why(passing, stamp(other), ENTRY).startswith("mx1.mail.example says dmarc=")
    assert why(stamp(other), passing, ENTRY).startswith("mx1.mail.example says dmarc=")
    assert verify(passing, stamp(other, "mx1.elsewhere.example"), ENTRY) == PROVEN


SMUGGLED = {
    "in-a-comment": "dmarc=fail (dmarc=pass header.from=acme.example)",
    "in-a-comment-alone": "spf=pass (x; dmarc=pass header.from=acme.example; y)",
    "in-a-nested-comment": "spf=pass (x (y; dmarc=pass header.from=acme.example))",
    "behind-an-escaped-parenthesis": "spf=pass (x \\) ; dmarc=pass header.from=acme.example )",
    "in-quotes": 'spf=pass reason="x; dmarc=pass header.from=acme.example; y"',
    "behind-an-escaped-quote": 'spf=pass reason="x\\"; dmarc=pass header.from=acme.example; \\"y"',
    "in-a-local-part": 'spf=pass smtp.mailfrom="x; dmarc=pass header.from=acme.example; y"@evil.example',
    "in-a-property": "spf=pass dmarc=pass header.from=acme.example",
    "in-a-value": "spf=pass smtp.mailfrom=dmarc=pass header.from=acme.example",
    "the-property-in-a-comment": "dmarc=pass (header.from=acme.example)",
    "the-property-in-quotes": 'dmarc=pass reason="header.from=acme.example"',
    "a-comment-in-a-word": "dm(x)arc=pass header.from=acme.example",
    "a-comment-in-the-result": "dmarc=pa(x)ss header.from=acme.example",
    "the-truth-in-an-injected-comment": (
        "spf=pass smtp.mailfrom=x; dmarc=pass header.from=acme.example; y=z (@evil.example;"
        " dmarc=fail header.from=acme.example; dkim=pass header.s=a)b=c"
    ),
    "the-truth-in-injected-quotes": (
        'spf=pass smtp.mailfrom=x; dmarc=pass header.from=acme.example; y=z z="@evil.example;'
        ' dmarc=fail header.from=acme.example; dkim=pass header.s="b'
    ),
    "the-truth-beside-an-injection": (
        "spf=pass smtp.mailfrom=x; dmarc=pass header.from=acme.example; y=z@evil.example;"
        " dmarc=fail header.from=acme.example"
    ),
}


@pytest.mark.parametrize("said", SMUGGLED.values(), ids=SMUGGLED)
def test_comments_and_quotes_and_values_smuggle_nothing_in(said: str) -> None:
    assert why(stamp(said), ENTRY)
    assert why(stamp(said), stamp("dkim=pass header.d=acme.example"), ENTRY)


MALFORMED = {
    "an-open-comment": "dmarc=pass header.from=acme.example (",
    "a-closed-comment": "dmarc=pass header.from=acme.example )",
    "an-open-quote": 'dmarc=pass header.from=acme.example "',
    "an-open-quoted-pair": "dmarc=pass header.from=acme.example (\\)",
    "a-backslash": "dmarc=pass header.from=acme.example \\",
    "a-nul": "dmarc=pass header.from=acme.example \x00",
    "a-vertical-tab": "dmarc=pass\x0bheader.from=acme.example",
    "a-bare-word": "dmarc=pass header.from=acme.example yes",
    "a-quoted-word": 'dmarc=pass header.from=acme.example "yes"',
    "two-equals": "dmarc=pass header.from=acme.example a = = b",
    "no-name": "=pass; dmarc=pass header.from=acme.example",
    "a-quoted-name": '"dkim"=pass; dmarc=pass header.from=acme.example',
    "a-quoted-none": '"none"; dmarc=pass header.from=acme.example',
    "a-quoted-equals": 'dkim"="pass; dmarc=pass header.from=acme.example',
    "longer-than-any": "dmarc=pass header.from=acme.example; " + "x=y; " * 4000,
}


@pytest.mark.parametrize("said", MALFORMED.values(), ids=MALFORMED)
def test_what_cannot_be_read_is_not_passed_over(said: str) -> None:
    """It may be the one that says fail."""
    assert "cannot be read" in why(stamp(said), ENTRY)
    assert "cannot be read" in why(STAMP, stamp(said), ENTRY)


def test_a_flood_of_stamps_proves_nothing() -> None:
    assert verify(*[STAMP] * MOST_STAMPS, ENTRY) == PROVEN
    assert "more than 50 Authentication-Results" in why(*[STAMP] * (MOST_STAMPS + 1), ENTRY)


def test_other_fields_with_such_names_do_not_count() -> None:
    for name in ("ARC-Authentication-Results", "X-Authentication-Results", "Original-Authentication-Results"):
        said = why(f"{name}: mx1.mail.example; dmarc=pass header.from=acme.example", ENTRY)
        assert said.startswith("no Authentication-Results")


# What people are told, and hostile floods.

WHYS = [
    [STAMP],
    [ENTRY, STAMP],
    [ENTRY],
    [f"Received: {'x' * 9000}", STAMP],
    [received(peer="\u202eevil\u200b" + "x" * 9000, seen="([203.0.113.7])"), STAMP],
    [received(by="\u202eevil\u200b" + "x" * 9000), STAMP],
    [stamp("dmarc=\u202e" + "x" * 9000), ENTRY],
    [stamp("dmarc=pass header.from=\u202e" + "x" * 9000), ENTRY],
    [stamp("dmarc=pass header.from=a", "\u202eevil" + "x" * 9000), ENTRY],
    [stamp("(("), ENTRY],
    [stamp("spf=pass"), ENTRY],
    [stamp("dmarc=pass"), ENTRY],
    ["Authentication-Results: spf=pass", ENTRY],
    ["no field", STAMP, ENTRY],
]


@pytest.mark.parametrize("blocks", WHYS, ids=[str(number) for number in range(len(WHYS))])
def test_why_is_one_short_clause_that_can_be_shown(blocks: list[str]) -> None:
    assert_shown(why(*blocks))


def assert_shown(said: str) -> None:
    assert re.fullmatch(r"[a-z][ -~]{10,499}", said), said
    assert said[-1] not in ".;:,"


FLOODS = {
    "open-parentheses": "(",
    "pairs-of-parentheses": "()",
    "backslashes-in-a-comment": "(\\",
    "quotes": '"',
    "backslashed-quotes": '"\\',
    "blanks": " ",
    "tabs": "\t",
    "semicolons": ";",
    "equals": "=",
    "dmarc": "dmarc ",
    "dmarc-with-versions": "dmarc/1 ",
    "digits": "dmarc/11111111111111111111",
    "brackets": "[",
    "words": "a ",
    "pairs": "a=b ",
    "joined-values": 'a="b"',
    "from": "from ",
    "dots": "a.",
    "stars": "mx-",
    "beyond-ascii": "\u00e9",
}


@pytest.mark.timeout(20)
@pytest.mark.parametrize("flood", seeds(FLOODS, 8))
def test_a_header_of_256_kb_is_read_in_time(flood: str) -> None:
    unit = FLOODS[flood]
    whole = unit * (250_000 // len(unit.encode()))
    parts = [unit * (16_000 // len(unit)) for _ in range(15)]
    for many in ([whole], parts):
        for head in ("mx1.mail.example; dmarc=pass header.from=acme.example; ", "", "from a ([127.0.0.1"):
            for name in ("Authentication-Results", "Received"):
                lines = [f"{name}: {head}{value}" for value in many]
                for blocks in ([*lines, ENTRY], [ENTRY, *lines], [STAMP, *lines, ENTRY]):
                    found = verify(*blocks)
                    assert found == PROVEN or isinstance(found, Unproven)


# Whatever stands there.

PIECES = [
    "dmarc", "=", "pass", "fail", ";", " ", "(", ")", '"', "\\", "header.from", "acme.example", "dmarc=pass", "none",
    "header.from=acme.example", "spf=pass", "mx1.mail.example", "1", "/", "\t", "\u00e9", "\x00", "reason=", ".",
]  # fmt: skip
soups = st.one_of(
    st.text(max_size=120),
    st.lists(st.sampled_from(PIECES), max_size=30).map("".join),
    st.lists(st.sampled_from(PIECES), max_size=20).map(" ".join),
    st.lists(st.sampled_from([*SAYING_PASS.values(), *NOT_SAYING_PASS.values(), *SMUGGLED.values()]), max_size=3).map(
        "; ".join
    ),
)


def outside_comments_and_quotes(text: str) -> str | None:
    """The text without them, found another way than the parser does it; None where they are not closed."""
    kept, depth, quoted, escaped = [], 0, False, False
    for character in text:
        if escaped:
            escaped = False
        elif character == "\\" and (depth or quoted):
            escaped = True
        elif quoted:
            quoted = character != '"'
        elif character == '"' and not depth:
            quoted = True
            kept.append("Q")
        elif character == "(":
            depth += 1
            kept.append(" ")
        elif character == ")":
            depth -= 1
            if depth < 0:
                return None
        elif not depth:
            kept.append(character)
    return None if depth or quoted or escaped else "".join(kept)


@given(soups)
@bounded
def test_a_stamp_is_proof_only_where_its_plain_text_says_pass(said: str) -> None:
    line = re.sub(r"[\r\n]+", " ", said)
    found = verify(stamp(line), ENTRY)
    if isinstance(found, Unproven):
        assert_shown(found.why)
        return
    plain = outside_comments_and_quotes(line)
    assert plain is not None
    assert re.search(r"(^|;)\s*dmarc\s*(/1)?\s*=\s*pass(\s|;|$)", plain, re.IGNORECASE), plain
    assert "fail" not in re.findall(r"(?:^|;)\s*dmarc\s*=\s*(\w+)", plain.lower())
    assert re.search(r"\sheader\.from\s*=\s*(acme\.example|Q)", plain, re.IGNORECASE), plain


@given(soups)
@bounded
def test_whatever_the_whole_field_is_nothing_raises(value: str) -> None:
    line = re.sub(r"[\r\n]+", " ", value)
    for blocks in ([f"Authentication-Results: {line}", ENTRY], [f"Received: {line}", STAMP], [received(), line, STAMP]):
        found = verify(*blocks)
        assert found == PROVEN or isinstance(found, Unproven)
        if isinstance(found, Unproven):
            assert_shown(found.why)


lines_of_a_sender = st.lists(
    st.one_of(
        st.sampled_from([STAMP, FORGED, FASTMAIL, AMAVIS, DOCKER, ENTRY, "X-Nothing: x", "DKIM-Signature: v=1"]),
        st.sampled_from([*FROM_INSIDE.values(), *FROM_OUTSIDE.values()]),
        soups.map(lambda text: "Authentication-Results: " + re.sub(r"[\r\n]+", " ", text)),
        soups.map(lambda text: "Received: " + re.sub(r"[\r\n]+", " ", text)),
    ),
    max_size=8,
)
ours_on_top = st.sampled_from(
    [
        [],
        [received(by="store.inside.mail.example", how="LMTP")],
        [stamp("dmarc=fail header.from=acme.example")],
        [stamp("spf=pass smtp.mailfrom=evil.example")],
        [received(), received(), stamp("none")],
        [stamp("dmarc=pass header.from=evil.example", "mx2.mail.example")],
    ]
)
helos = st.sampled_from(
    [
        "mail.evil.example",
        "mx1.mail.example",
        "localhost",
        "mx1",
        "[127.0.0.1]",
        "from",
        "by",
        "with",
        "a(b",
        'a"b',
        "a;b",
    ]
)


@given(ours_on_top, helos, lines_of_a_sender)
@bounded
def test_nothing_that_a_sender_writes_below_our_own_received_is_proof(
    on_top: list[str], helo: str, sent: list[str]
) -> None:
    entry = received(peer=helo, seen="(mail.evil.example [203.0.113.66])", how="ESMTPS")
    assert isinstance(verify(*on_top, entry, *sent), Unproven)
