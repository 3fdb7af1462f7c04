"""What is known of mail providers: their servers, which addresses are one account, where an app password is made.

As their help pages had it in 2026. docs/howto has a page for each, with what cannot be written into settings.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Provider:
    """One provider; TLS from the first octet on both ports. `marks` are the characters that begin an extension.

    Mailboxes at the domains of `dotless` ignore dots, and those domains are one. `app_login` says where an app password
    is made; `signs_within` whether mail between two accounts here is DKIM-signed as all other mail is; `beware` is
    empty, or what a person must know of this provider before the first draft.
    """

    name: str
    title: str
    imap_host: str
    smtp_host: str
    app_login: str
    marks: str = "+"
    dotless: tuple[str, ...] = ()
    signs_within: bool = True
    beware: str = ""
    imap_port: int = 993
    smtp_port: int = 465

    @property
    def mailbox_url(self) -> str:
        """`mailbox.url` for the folder that mail arrives in."""
        return f"imaps://{self.imap_host}:{self.imap_port}/INBOX"

    def account(self, address: str) -> str:
        """The account that mail for an address arrives in, for comparing; it need not be an address that can log in."""
        local, _, host = address.casefold().rpartition("@")
        for mark in self.marks:
            local = local.partition(mark)[0] or local
        if host in self.dotless:
            local, host = local.replace(".", ""), self.dotless[0]
        return f"{local}@{host}"

    def is_one_account(self, address: str, other: str) -> bool:
        """Whether mail for both arrives in one mailbox: what its owner writes to himself is never signed."""
        return self.account(address) == self.account(other)

    def is_unsigned(self, sender: str, recipient: str) -> bool:
        """Whether mail from one to the other is known to carry no signature. A domain is hosted in one place."""
        domains = {self.account(one).rpartition("@")[2] for one in (sender, recipient)}
        return self.is_one_account(sender, recipient) or (len(domains) == 1 and not self.signs_within)


_GMAIL = Provider(
    name="gmail",
    title="Gmail",
    imap_host="imap.gmail.com",
    smtp_host="smtp.gmail.com",
    app_login=(
        "turn 2-Step Verification on for the Google account, then make one named Outbox at "
        "https://myaccount.google.com/apppasswords; its 16 letters are shown once"
    ),
    dotless=("gmail.com", "googlemail.com"),
    beware=(
        "Draft only from this address, or from one that is listed under Settings, Accounts, Send mail as: in any other "
        "From Gmail puts its own address, without a word."
    ),
)
_FASTMAIL = Provider(
    name="fastmail",
    title="Fastmail",
    imap_host="imap.fastmail.com",
    smtp_host="smtp.fastmail.com",
    app_login=(
        "in Fastmail's Settings, Privacy & Security, Manage app passwords and access, make one named Outbox with "
        "access to Mail (the Basic plan has none); it is shown once"
    ),
)
_PURELYMAIL = Provider(
    name="purelymail",
    title="Purelymail",
    imap_host="imap.purelymail.com",
    smtp_host="smtp.purelymail.com",
    app_login=(
        "in Purelymail's account portal (not the webmail), Users, this user, App Passwords, Add New, make one named "
        "Outbox; it is shown once"
    ),
    marks="+-.",  # its symbolic subaddressing, on unless a domain's routing turns it off
    signs_within=False,  # seen in May 2026: no DKIM-Signature, and any From (Purelymail/purelymail-issues 436)
    beware=(
        "In Purelymail's account portal turn Sending Address Restrictions on: else each user of the account, and each "
        "program that has the password of one, sends and signs as any other."
    ),
)

PROVIDERS: dict[str, Provider] = {one.name: one for one in (_GMAIL, _FASTMAIL, _PURELYMAIL)}
