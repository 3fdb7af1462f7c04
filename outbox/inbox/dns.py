"""DNS, asked for the keys of DKIM and for mail servers: no record is an answer, no answer is an error."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from outbox.core.errors import Code, Unavailable

if TYPE_CHECKING:  # dnspython takes a quarter of a second to import
    from dns.nameserver import Nameserver
    from dns.rrset import RRset

_PORT = 53
_NAME = re.compile(r"(?=.{1,253}\Z)[A-Za-z0-9_-]{1,63}(?:\.[A-Za-z0-9_-]{1,63})*")
_WITH_PORT = re.compile(r"(?:\[(.+)\]|([^:]+)):([0-9]{1,5})")


class Resolver:
    """Asks one set of name servers.

    `nameservers` are addresses, `ADDRESS:PORT` or `[ADDRESS]:PORT`; none means those of the system. `timeout` is the
    time in seconds for one question, with every repetition of it and all name servers together.
    """

    def __init__(self, nameservers: tuple[str, ...] = (), *, timeout: float = 5.0) -> None:
        self._nameservers = nameservers
        self._timeout = timeout

    def txt(self, name: str) -> tuple[bytes, ...]:
        """Every TXT record of a name, each with its strings joined (RFC 6376 3.6.2.2); aliases are followed.

        Nothing where the name or the record does not exist; Unavailable(dns_unavailable) where that is not known.
        """
        from dns.rdtypes.ANY.TXT import TXT

        return tuple(b"".join(record.strings) for record in self._ask(name, "TXT") if isinstance(record, TXT))

    def mx(self, name: str) -> tuple[str, ...]:
        """The mail servers of a domain, the preferred one first; nothing where it takes no mail (RFC 7505).

        Raises Unavailable(dns_unavailable) where that is not known.
        """
        from dns.rdtypes.ANY.MX import MX

        found = [record for record in self._ask(name, "MX") if isinstance(record, MX)]
        hosts = sorted((record.preference, str(record.exchange).lower()) for record in found)
        return tuple(host.removesuffix(".") for _, host in hosts if host != ".")

    def _ask(self, name: str, kind: str) -> RRset | tuple[()]:
        from dns.exception import DNSException
        from dns.resolver import NXDOMAIN
        from dns.resolver import Resolver as Stub

        if not _NAME.fullmatch(name):
            return ()
        try:
            stub = Stub(configure=not self._nameservers)
            if self._nameservers:
                stub.nameservers = [_nameserver(entry) for entry in self._nameservers]
            # The final dot keeps the system's search list out of it.
            answer = stub.resolve(f"{name}.", kind, raise_on_no_answer=False, lifetime=self._timeout, search=False)
        except NXDOMAIN:
            return ()
        except (DNSException, OSError) as error:
            raise Unavailable(
                Code.DNS_UNAVAILABLE,
                f"no answer from DNS about {name} ({type(error).__name__}); look at dns.nameservers or the network",
                field="dns.nameservers",
            ) from error
        return answer.rrset or ()


def _nameserver(entry: str) -> Nameserver:
    from dns.nameserver import Do53Nameserver

    found = _WITH_PORT.fullmatch(entry)
    if found is None:
        return Do53Nameserver(entry.strip("[]"), _PORT)
    return Do53Nameserver(found[1] or found[2], int(found[3]))
