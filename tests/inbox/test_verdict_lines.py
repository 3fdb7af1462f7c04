"""What the first line says, and what may stand below it: the table in tests/corpus/verdicts."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest

from outbox.inbox.verdict import APPROVING, BUILT_IN, CANCELLING, REJECTING, Verdict, Words, read_verdict
from tests.inbox.letters import CORPUS

CASES: list[dict[str, Any]] = tomllib.loads((CORPUS / "verdicts" / "lines.toml").read_text(encoding="utf-8"))["case"]
LISTS = [(Verdict.APPROVE, APPROVING), (Verdict.REJECT, REJECTING), (Verdict.CANCEL, CANCELLING)]
EVERY_WORD = [(verdict, word) for verdict, words in LISTS for word in words]


@pytest.mark.parametrize("case", CASES, ids=[case.get("name") or ascii(case["text"])[:60] for case in CASES])
def test_a_text_is_read_as_meant(case: dict[str, Any]) -> None:
    text = case["text"].replace("\r\n", "\n").replace("\r", "\n")  # as every text part is read
    reading = read_verdict(
        text,
        case.get("closing", ()),
        [case.get("original", "")],
        with_code=case.get("with_code", False),
        address=case.get("address", ""),
    )
    assert reading.verdict == case["verdict"], reading.why
    assert case.get("reason") is None or reading.reason == case["reason"]
    assert (reading.code or "") == case.get("code", "")


def test_the_words_are_those_of_the_contract() -> None:
    assert set(APPROVING) == {
        "ship it", "send it", "approve", "approved", "yes", "ok to send", "lgtm", "go ahead",
        "ja", "senden", "absenden", "abschicken", "versenden", "freigeben", "freigegeben", "genehmigt",
        "oui", "envoyer", "envoyez", "envoie", "approuver", "approuvé", "approuve", "bon pour envoi", "vas-y",
        "allez-y", "sí", "enviar", "envíalo", "envíelo", "aprobar", "aprobado", "aprobada", "adelante",
    }  # fmt: skip
    assert set(REJECTING) == {
        "reject", "no", "don't send", "do not send", "don't send it", "do not send it",
        "ablehnen", "abgelehnt", "nein", "nicht senden", "nicht absenden", "nicht abschicken", "nicht versenden",
        "refuser", "refusé", "rejeter", "rejeté", "non", "ne pas envoyer", "n'envoyez pas", "n'envoie pas",
        "rechazar", "rechazado", "rechazada", "no enviar", "no lo envíes", "no lo envíe",
    }  # fmt: skip
    assert set(CANCELLING) == {
        "cancel", "stop", "hold", "stopp", "stoppen", "halt", "anhalten", "abbrechen",
        "annuler", "annulez", "arrêter", "arrêtez", "arrête", "cancelar", "cancela", "detener", "parar", "para",
    }  # fmt: skip


def test_no_word_stands_in_two_lists() -> None:
    assert len({*APPROVING, *REJECTING, *CANCELLING}) == len(EVERY_WORD)
    assert Words(frozenset(APPROVING), frozenset(REJECTING), frozenset(CANCELLING)) == BUILT_IN


@pytest.mark.parametrize(("verdict", "word"), EVERY_WORD, ids=[word for _, word in EVERY_WORD])
@pytest.mark.parametrize("form", ["{}", "{}.", "{}!", "  {}  ", "\n\n{}\n", "{}\n\n> anything\n"])
def test_every_word_says_the_same_in_every_dress(verdict: Verdict, word: str, form: str) -> None:
    for dressed in (word, word.upper(), word.title().replace("'S", "'s"), word.replace("'", "\u2019")):
        assert read_verdict(form.format(dressed)).verdict is verdict


@pytest.mark.parametrize("word", [word for _, word in EVERY_WORD])
def test_no_word_is_one_with_anything_around_it(word: str) -> None:
    for text in (f"not {word}", f"{word}?", f"{word}, maybe", f"> {word}", f'"{word}"', f"{word}\u200b", f"{word} now"):
        assert read_verdict(text).verdict is Verdict.UNCLEAR, text


@pytest.mark.parametrize("word", REJECTING)
def test_every_rejecting_word_takes_a_reason(word: str) -> None:
    for colon in (":", " :", "\u00a0:", "\uff1a"):
        reading = read_verdict(f"{word.capitalize()}{colon} the price, and more")
        assert (reading.verdict, reading.reason) == (Verdict.REJECT, "the price, and more")


def test_an_approval_with_a_remark_says_which_remark() -> None:
    reading = read_verdict("Ship it\nbut fix the price first")
    assert (reading.excerpt, "price" in reading.why) == ("but fix the price first", False)


def test_a_reason_is_kept_up_to_its_limit_and_no_further() -> None:
    reading = read_verdict("Reject: " + "x " * 1250)
    assert (reading.verdict, len(reading.reason or "")) == (Verdict.REJECT, 2000)
    reading = read_verdict("Reject:\n" + "x\n" * 9000)
    assert (reading.verdict, len(reading.reason or "")) == (Verdict.REJECT, 2000)


def test_a_line_beyond_reason_is_unclear() -> None:
    assert read_verdict("no " * 5000).verdict is Verdict.UNCLEAR
    assert read_verdict("Reject: " + "x" * 100_000).verdict is Verdict.UNCLEAR
    assert read_verdict("Ship it\n" + "x" * 100_000).verdict is Verdict.UNCLEAR
    assert read_verdict("Ship it\n> " + "x" * 100_000).verdict is Verdict.UNCLEAR


def test_words_of_the_settings_are_compared_like_the_others() -> None:
    words = BUILT_IN.with_more(("Passt so",), ("Zurück an den Absender",), ("Moment mal!",))
    assert read_verdict("PASST  SO.", words=words).verdict is Verdict.APPROVE
    assert read_verdict("zurück an den absender: falsch", words=words).reason == "falsch"
    assert read_verdict("Moment mal", words=words).verdict is Verdict.CANCEL
    assert read_verdict("Passt so").verdict is Verdict.UNCLEAR


@pytest.mark.parametrize(
    ("approve", "reject", "cancel", "named"),
    [
        (("Stop",), (), (), "'Stop'"),
        ((), ("YES!",), (), "'YES!'"),
        ((), (), ("nein",), "'nein'"),
        (("eins",), ("Eins",), (), "'Eins'"),
        (("",), (), (), "''"),
        ((" . ",), (), (), "' . '"),
        ((), ("x" * 61,), (), "'xxx"),
        (("> yes",), (), (), "'> yes'"),
    ],
    ids=["approve and cancel", "reject and approve", "cancel and reject", "two of its own", "empty", "a mere full stop",
         "too long", "a quote"],
)  # fmt: skip
def test_a_word_that_could_be_mistaken_is_refused_by_name(
    approve: tuple[str, ...], reject: tuple[str, ...], cancel: tuple[str, ...], named: str
) -> None:
    with pytest.raises(ValueError, match=named):
        BUILT_IN.with_more(approve, reject, cancel)


def test_a_word_that_is_known_already_may_be_listed_again() -> None:
    assert BUILT_IN.with_more(("Ship it",), ("no",), ("STOP",)) == BUILT_IN
