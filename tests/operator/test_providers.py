"""What is known of each provider, and which addresses are one account there."""

from __future__ import annotations

import pytest

from outbox.cli.main import outbox
from outbox.operator.providers import PROVIDERS
from tests.contracts.markdown import page

ONE_ACCOUNT = [
    ("gmail", "founder@gmail.com", "founder@gmail.com"),
    ("gmail", "founder@gmail.com", "Founder@GMAIL.com"),
    ("gmail", "founder@gmail.com", "f.oun.der@gmail.com"),
    ("gmail", "f.ounder@gmail.com", "founder+work@googlemail.com"),
    ("gmail", "founder@acme.example", "founder+work@acme.example"),
    ("fastmail", "founder@acme.example", "FOUNDER+x@acme.example"),
    ("purelymail", "founder@acme.example", "founder+x@acme.example"),
    ("purelymail", "founder@acme.example", "founder.x@acme.example"),
    ("purelymail", "founder@acme.example", "founder-x@acme.example"),
]
TWO_ACCOUNTS = [
    ("gmail", "founder@gmail.com", "founders@gmail.com"),
    ("gmail", "founder@gmail.com", "founder@gmail.com.acme.example"),
    ("gmail", "founder@gmail.com", "founder@acme.example"),
    ("gmail", "f.ounder@acme.example", "founder@acme.example"),
    ("fastmail", "f.ounder@acme.example", "founder@acme.example"),
    ("fastmail", "founder-x@acme.example", "founder@acme.example"),
    ("purelymail", "founder@acme.example", "founder@other.example"),
]


@pytest.mark.parametrize(("provider", "one", "other"), ONE_ACCOUNT)
def test_one_account_is_known_by_whatever_address_it_is_called(provider: str, one: str, other: str) -> None:
    assert PROVIDERS[provider].is_one_account(one, other)
    assert PROVIDERS[provider].is_one_account(other, one)
    assert PROVIDERS[provider].is_unsigned(one, other)


@pytest.mark.parametrize(("provider", "one", "other"), TWO_ACCOUNTS)
def test_two_accounts_are_two(provider: str, one: str, other: str) -> None:
    assert not PROVIDERS[provider].is_one_account(one, other)
    assert not PROVIDERS[provider].is_unsigned(one, other)


def test_mail_between_two_users_of_one_domain_at_purelymail_is_unsigned() -> None:
    assert PROVIDERS["purelymail"].is_unsigned("founder@acme.example", "outbox@acme.example")
    assert not PROVIDERS["fastmail"].is_unsigned("founder@acme.example", "outbox@acme.example")


def test_an_address_that_begins_with_a_mark_keeps_a_name() -> None:
    accounts = {PROVIDERS["purelymail"].account(address) for address in ("-@acme.example", "+@acme.example")}
    assert "@acme.example" not in accounts


def test_the_command_line_offers_the_providers_that_there_are() -> None:
    (flag,) = [one for one in outbox.commands["init"].params if one.name == "provider"]
    assert list(flag.type.choices) == list(PROVIDERS)  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", PROVIDERS)
def test_a_provider_is_called_as_it_is_listed_and_spoken_to_over_tls_alone(name: str) -> None:
    provider = PROVIDERS[name]
    assert provider.name == name
    assert provider.mailbox_url == f"imaps://{provider.imap_host}:993/INBOX"
    assert provider.smtp_port == 465


@pytest.mark.parametrize("name", PROVIDERS)
def test_each_provider_has_a_page_that_begins_with_its_command(name: str) -> None:
    said = page(f"docs/howto/{name}.md")
    assert said.startswith(f"# {PROVIDERS[name].title}\n")
    assert f"outbox init --dir separate --provider {name} " in said
