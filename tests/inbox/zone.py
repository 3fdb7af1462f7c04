"""A DNS server on loopback whose answers, silences and refusals the test sets."""

from __future__ import annotations

import contextlib
import socketserver
import struct
import threading
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset
from dns.rcode import Rcode
from dns.rdatatype import RdataType
from dns.rdtypes.ANY.TXT import TXT

_TTL = 60
_LARGEST_UDP = 512
_LONGEST_STRING = 255


@dataclass
class Zone:
    """Names are without a final dot. `asked` has every question as name, type and transport, in order."""

    asked: list[tuple[str, str, str]] = field(default_factory=list)
    _records: dict[tuple[str, RdataType], list[str] | list[TXT]] = field(default_factory=dict)
    _aliases: dict[str, str] = field(default_factory=dict)
    _failing: dict[str, Rcode] = field(default_factory=dict)
    _silent: set[str] = field(default_factory=set)
    _truncated: set[str] = field(default_factory=set)
    _servers: list[socketserver.BaseServer] = field(default_factory=list)
    _threads: list[threading.Thread] = field(default_factory=list)

    def publish(self, name: str, *records: bytes) -> None:
        """TXT records, each cut into strings of 255 octets; none takes the name away."""
        self._aliases.pop(name, None)
        self._records.pop((name, RdataType.TXT), None)
        if records:
            self._records[name, RdataType.TXT] = [
                TXT(dns.rdataclass.IN, RdataType.TXT, _strings(record)) for record in records
            ]

    def serve_mail(self, name: str, *hosts: str) -> None:
        """MX records such as "10 mx1.example."."""
        self._records[name, RdataType.MX] = list(hosts)

    def alias(self, name: str, target: str) -> None:
        """A CNAME, which is answered together with what it leads to."""
        self._aliases[name] = target

    def fail(self, name: str, rcode: str = "SERVFAIL") -> None:
        """Answer questions about this name with an error."""
        self._failing[name] = dns.rcode.from_text(rcode)

    def silence(self, name: str) -> None:
        """Leave questions about this name without an answer."""
        self._silent.add(name)

    def truncate(self, name: str) -> None:
        """Say over UDP that the answer does not fit."""
        self._truncated.add(name)

    def heal(self) -> None:
        """No failure, silence or truncation any more, and no question asked."""
        for broken in (self._failing, self._silent, self._truncated, self.asked):
            broken.clear()

    @property
    def address(self) -> str:
        """For dns.nameservers."""
        host, port = self._servers[0].server_address[:2]
        return f"{host!s}:{port}"

    def __enter__(self) -> Self:
        zone = self

        class Datagram(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                octets, sock = self.request
                if answer := zone.answer(octets, "udp"):
                    sock.sendto(answer, self.client_address)

        class Stream(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                (length,) = struct.unpack("!H", self.rfile.read(2))
                if answer := zone.answer(self.rfile.read(length), "tcp"):
                    self.wfile.write(struct.pack("!H", len(answer)) + answer)

        self._servers = _bound(Datagram, Stream)
        for server in self._servers:
            thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
            thread.start()
            self._threads.append(thread)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for server, thread in zip(self._servers, self._threads, strict=True):
            server.shutdown()
            thread.join()
            server.server_close()

    def answer(self, octets: bytes, transport: str) -> bytes | None:
        """The octets of the answer to a question, or None for silence."""
        query = dns.message.from_wire(octets)
        (question,) = query.question
        name = question.name.to_text(omit_final_dot=True).lower()
        self.asked.append((name, dns.rdatatype.to_text(question.rdtype), transport))
        if name in self._silent:
            return None
        response = dns.message.make_response(query)
        response.flags |= dns.flags.RA
        if name in self._failing:
            response.set_rcode(self._failing[name])
        elif transport == "udp" and name in self._truncated:
            response.flags |= dns.flags.TC
        else:
            self._fill(response, name, question.rdtype)
        wire = response.to_wire(max_size=65535)
        if transport == "udp" and len(wire) > _LARGEST_UDP:
            response.flags |= dns.flags.TC
            response.answer.clear()
            wire = response.to_wire()
        return wire

    def _fill(self, response: dns.message.Message, name: str, kind: RdataType) -> None:
        target = self._aliases.get(name)
        if target is not None:
            response.answer.append(dns.rrset.from_text(f"{name}.", _TTL, "IN", "CNAME", f"{target}."))
        owner = target or name
        found = self._records.get((owner, kind))
        if found is None:
            if not any(owner == known for known, _ in self._records):
                response.set_rcode(Rcode.NXDOMAIN)
        elif kind == RdataType.TXT:
            response.answer.append(dns.rrset.from_rdata_list(f"{owner}.", _TTL, found))
        else:
            response.answer.append(dns.rrset.from_text(f"{owner}.", _TTL, "IN", kind, *found))


def _strings(record: bytes) -> list[bytes]:
    return [record[start : start + _LONGEST_STRING] for start in range(0, len(record), _LONGEST_STRING)] or [b""]


def _bound(
    datagram: type[socketserver.BaseRequestHandler], stream: type[socketserver.BaseRequestHandler]
) -> list[socketserver.BaseServer]:
    """A UDP and a TCP server on one port that both could have."""
    while True:
        udp = socketserver.UDPServer(("127.0.0.1", 0), datagram)
        with contextlib.suppress(OSError):
            return [udp, socketserver.TCPServer(udp.server_address, stream)]
        udp.server_close()
