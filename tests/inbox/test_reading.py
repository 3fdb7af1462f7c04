"""How the text of a letter is found: its parts, and what makes it unclear which words were written."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from outbox.inbox.incoming import parse_incoming, read_letter, unflowed, why_automatic
from outbox.inbox.verdict import Verdict, read_letter_verdict, read_verdict
from tests.house import APPROVAL, FOUNDER
from tests.inbox.letters import Asked, text_of
from tests.inbox.parts import HTML, PLAIN, letter_of, reading_of

bounded = settings(max_examples=200, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])


class TestParts:
    """Which parts are read, and how they must agree."""

    def test_every_inline_plain_part_is_read_together(self) -> None:
        assert (
            letter_of(f"{PLAIN}Ship it", f"{PLAIN}but fix the price", kind="mixed").plain
            == "Ship it\nbut fix the price"
        )

    def test_without_a_plain_part_the_html_part_is_read(self) -> None:
        assert reading_of(f"{HTML}<p>Ship it</p>").verdict is Verdict.APPROVE
        assert reading_of(f"{HTML}<p>Ship it</p>", f"{HTML}<p>but fix the price</p>").verdict is Verdict.UNCLEAR

    @pytest.mark.parametrize(
        ("plain", "html"),
        [
            ("Ship it", "<p>Stop</p>"),
            ("Ship it", "<p>Ship it</p><p>but fix the price</p>"),
            ("Ship it\n\nbut fix the price", "<p>Ship it</p>"),
            ("Stop", "<p>Ship it</p>"),
            ("No", "<p>Stop</p>"),
            ("Reject: too dear", "<p>Yes</p>"),
            ("", "<p>Ship it</p>"),
            ("Ship it", "<p></p>"),
            ("> Ship it", "<p>Ship it</p>"),
            ("Ship it", "<blockquote type=cite>Ship it</blockquote>"),
        ],
    )
    def test_where_plain_and_html_say_different_things_it_is_unclear(self, plain: str, html: str) -> None:
        reading = reading_of(PLAIN + plain, HTML + html)
        assert (reading.verdict, reading.why) == (Verdict.UNCLEAR, "its plain and its HTML part say different things")

    def test_where_both_reject_the_reason_of_the_plain_part_is_kept(self) -> None:
        reading = reading_of(f"{PLAIN}Reject: too\ndear", f"{HTML}<div>Reject: too dear, says Jane</div>")
        assert (reading.verdict, reading.reason) == (Verdict.REJECT, "too dear")

    def test_the_code_must_stand_in_both(self) -> None:
        same = letter_of(
            f"{PLAIN}Ship it\n123456", f'{HTML}<div>Ship it</div><div><a href="tel:123456">123 456</a></div>'
        )
        other = letter_of(f"{PLAIN}Ship it\n123456", f"{HTML}<div>Ship it</div><div>654321</div>")
        assert read_letter_verdict(same, with_code=True).code == "123456"
        assert read_letter_verdict(other, with_code=True).verdict is Verdict.UNCLEAR
        assert read_letter_verdict(same).verdict is Verdict.UNCLEAR

    def test_a_text_part_of_another_kind_makes_it_unclear(self) -> None:
        reading = reading_of(
            f"{PLAIN}Ship it", "Content-Type: text/enriched\n\nbut <bold>fix</bold> the price", kind="mixed"
        )
        assert (reading.verdict, reading.why) == (Verdict.UNCLEAR, "it has a text/enriched part, which is not read")

    @pytest.mark.parametrize("disposition", ["attachment", 'inline; filename="notes.txt"'])
    def test_a_file_is_no_text(self, disposition: str) -> None:
        file = f"Content-Type: text/plain\nContent-Disposition: {disposition}\n\nShip it"
        assert letter_of(f"{PLAIN}hm", file, kind="mixed").plain == "hm"
        assert letter_of(file).why == "it has no text part"

    @pytest.mark.parametrize("kind", ["application/pkcs7-mime; smime-type=signed-data", "application/pgp-encrypted"])
    def test_what_is_sealed_is_said_to_be_sealed(self, kind: str) -> None:
        letter = letter_of(f"Content-Type: {kind}\n\nMIIB")
        assert (letter.plain, letter.html, "S/MIME or PGP" in letter.why) == (None, None, True)

    def test_a_part_whose_header_some_readers_end_earlier_is_unclear(self) -> None:
        part = "Content-Type: text/plain\n \nNote: only after Jane agrees\n\nShip it"
        reading = reading_of(part, f"{HTML}<p>Ship it</p>")
        assert (reading.verdict, reading.why) == (Verdict.UNCLEAR, "a part's header can be read in two ways")
        assert why_automatic(parse_incoming(part.encode())) is not None

    def test_the_mark_of_an_encoding_is_no_character(self) -> None:
        assert reading_of(f"{PLAIN}\ufeffShip it").verdict is Verdict.APPROVE
        assert reading_of(f"{PLAIN}\n\ufeffShip it").verdict is Verdict.UNCLEAR

    @pytest.mark.parametrize(
        ("charset", "text"),
        [
            ("iso-8859-1", "Grüße"), ("iso-8859-2", "Příliš"), ("iso-8859-5", "Привет"), ("iso-8859-7", "λάθος"),
            ("iso-8859-8", "שלום"), ("iso-8859-9", "şğı"), ("iso-8859-15", "5 €"), ("windows-1250", "Źdźbło"),
            ("windows-1251", "Привет"), ("windows-1252", "5 € “x”"), ("windows-1256", "سلام"), ("koi8-r", "Привет"),
            ("koi8-u", "Привіт"), ("gb2312", "价格"), ("gbk", "價格"), ("gb18030", "价格"), ("big5", "價格"),
            ("shift_jis", "価格"), ("euc-jp", "価格"), ("iso-2022-jp", "価格"), ("euc-kr", "가격"),
            ("iso-2022-kr", "가격"), ("cp874", "ราคา"), ("utf-16le", "价格"), ("macintosh", "Grüße"), ("us-ascii", "x"),
            ("UTF-8", "价格"),
        ],
    )  # fmt: skip
    def test_a_reason_is_read_in_every_charset_that_mail_uses(self, charset: str, text: str) -> None:
        head = f'Content-Type: text/plain; charset="{charset}"\n\n'.encode()
        letter = read_letter(parse_incoming(head + f"Reject: {text}".encode(charset)))
        assert read_letter_verdict(letter).reason == " ".join(text.split())


class TestMachines:
    """What shows that a program wrote in a person's name."""

    def test_a_reaction_of_gmail_is_none(self) -> None:
        part = 'Content-Type: text/vnd.google.email-reaction+json\n\n{"emoji": "x", "version": 1}'
        letter = letter_of(f"{PLAIN}Yes", part, f"{HTML}<p>Yes</p>")
        assert letter.automatic == "it has a text/vnd.google.email-reaction+json part"
        assert letter.doubt == ""

    @pytest.mark.parametrize(
        "text",
        [
            "The Founder reacted to your message:",
            "[Like]   The Founder reacted to your message:\n____\nFrom: Outbox",
            "The Founder hat auf Ihre Nachricht reagiert:",
            "The Founder a réagi à votre message :",
            "The Founder ha reaccionado a su mensaje:",
        ],
    )
    def test_a_reaction_of_outlook_is_none(self, text: str) -> None:
        assert letter_of(PLAIN + text).automatic == "it is a reaction"
        assert letter_of(f"{HTML}<div>{text}</div>").automatic == "it is a reaction"

    def test_a_remark_about_reactions_is_none_of_theirs(self) -> None:
        assert letter_of(f"{PLAIN}No: Jane has\nreacted to your message").automatic is None

    @pytest.mark.parametrize("kind", ["text/calendar; method=REPLY", "message/disposition-notification"])
    def test_a_calendar_answer_or_a_receipt_is_none(self, kind: str) -> None:
        assert (
            letter_of(f"{PLAIN}Yes", f"Content-Type: {kind}\n\nx").automatic
            == f"it has a {kind.partition(';')[0]} part"
        )

    @pytest.mark.parametrize(
        "field", ["List-Unsubscribe-Post: x", "List-Anything: x", "X-Autoreply-From: x", "X-Autogenerated: Reply"]
    )
    def test_the_header_of_a_list_or_an_autoresponder_is_known(self, field: str) -> None:
        assert why_automatic(parse_incoming(f"{field}\n{PLAIN}Yes".encode())) is not None


class TestFlowed:
    """RFC 3676."""

    @pytest.mark.parametrize(
        ("text", "read"),
        [
            ("a \nb", "a b"),
            ("a\nb", "a\nb"),
            ("a \n\nb", "a \nb"),
            ("> a \n> b", "> a b"),
            ("> a \n>> b", "> a \n>> b"),
            ("> a \nb", "> a \nb"),
            (">>a \n>> b", ">> a b"),
            (" From a \n b", "From a b"),
            (" > typed", " > typed"),
            ("a \n-- \nName", "a \n-- \nName"),
            ("-- \nName \nLtd", "-- \nName Ltd"),
            ("a  \nb", "a  b"),
            ("a ", "a "),
            ("", ""),
            (">", "> "),
        ],
    )
    def test_paragraphs_are_put_together(self, text: str, read: str) -> None:
        assert unflowed(text, delete_space=False) == read

    def test_delsp_takes_the_blank_away(self) -> None:
        assert unflowed("価格が \n違います\n> a \n> b", delete_space=True) == "価格が違います\n> ab"

    def test_only_a_flowed_part_flows(self) -> None:
        text = "Reject: the price \nof last year"
        flowed = letter_of(f"Content-Type: text/plain; Format=Flowed; DelSp=No\n\n{text}")
        assert flowed.plain == "Reject: the price of last year"
        assert letter_of(PLAIN + text).plain == text

    def test_a_remark_flows_into_the_first_line(self) -> None:
        flowed = letter_of("Content-Type: text/plain; format=flowed\n\nShip it \nbut fix the price")
        assert read_letter_verdict(flowed).verdict is Verdict.UNCLEAR


HOW_CLIENTS_QUOTE: dict[str, str] = {
    "outlook": "Ship it\n\n{rule}\nFrom: Outbox <{address}>\nSent: Friday, January 15, 2027 8:00 AM\n"
    "To: {founder}\nSubject: {subject}\n\n{text}",
    "outlook for Mac": "Ship it\n\nFrom: Outbox <{address}>\nDate: Friday, 15 January 2027 at 08:00\nTo: {founder}\n"
    "Subject: {subject}\n{linked}",
    "yahoo": "Ship it\n\n    On Friday, January 15, 2027 at 08:00:00 AM GMT, Outbox <{address}> wrote:  \n \n "
    "{indented}",
    "samsung": "Ship it\n\n-------- Original message --------\nFrom: Outbox <{address}> \nDate: 15/01/2027  08:00  "
    "(GMT+00:00) \nTo: {founder} \nSubject: {subject} \n\n{wrapped}",
}


def _as_quoted(shape: str, message_text: str, subject: str) -> str:
    words = message_text.split(" ")
    return shape.format(
        rule="_" * 32,
        address=APPROVAL,
        founder=FOUNDER,
        subject=subject,
        text=message_text,
        linked=message_text.replace("jane@customer.example", "jane@customer.example<mailto:jane@customer.example>"),
        indented=message_text.replace("\n", "\n "),
        wrapped="".join(f"{word}{chr(10) if number % 9 == 8 else ' '}" for number, word in enumerate(words)),
    )


@pytest.mark.parametrize("client", HOW_CLIENTS_QUOTE)
def test_the_whole_request_may_stand_below_without_marks(asked: Asked, client: str) -> None:
    quoted = _as_quoted(HOW_CLIENTS_QUOTE[client], text_of(asked.request), str(asked.request["Subject"]))
    said = asked.explain(asked.letter(f"{PLAIN}{quoted}".encode()))
    assert (said.reading.verdict, said.counts) == (Verdict.APPROVE, True), said.why
    for remark in (f"{quoted}\nbut fix the price\n", quoted.replace("| here", "fix the price\n| here")):
        assert asked.explain(asked.letter(f"{PLAIN}{remark}".encode())).reading.verdict is Verdict.UNCLEAR


@pytest.mark.parametrize("client", HOW_CLIENTS_QUOTE)
def test_our_answer_may_stand_below_without_marks(asked: Asked, client: str) -> None:
    asked.house.reply(asked.request, "Ship it\n\nbut only on Monday")
    asked.house.inbox()
    asked.house.drain()
    answer = asked.house.request_for(asked.draft_id)
    assert "but only on Monday" in text_of(answer)
    quoted = _as_quoted(HOW_CLIENTS_QUOTE[client], text_of(answer), str(answer["Subject"]))
    octets = asked.letter(
        f"{PLAIN}{quoted}".encode(), In_Reply_To=str(answer["Message-ID"]), Message_ID="<b@mail.example>"
    )
    said = asked.explain(octets)
    assert (said.reading.verdict, said.counts) == (Verdict.APPROVE, True), said.why


@bounded
@given(
    st.lists(st.sampled_from(["Best,", "The Founder", "*Acme*", "[cid:x]", "fix it", "", "-- ", "> q"]), max_size=12)
)
def test_the_hint_is_what_would_let_the_approval_count(lines: list[str]) -> None:
    text = "\n".join(["Ship it", *lines])
    hint = read_verdict(text).closing_hint
    if hint:
        assert read_verdict(text, closing=hint).verdict is Verdict.APPROVE
    assert len(hint) <= 10


class TestHint:
    """The lines that an answer may offer for `approval.closing`."""

    def test_a_signature_is_offered(self) -> None:
        assert read_verdict("Ship it\n\nBest,\nThe Founder").closing_hint == ("Best,", "The Founder")

    @pytest.mark.parametrize(
        "below",
        ["x" * 81, "\n".join(f"line {n}" for n in range(11)), "a" * 39 + "\nBest,"],
        ids=["a long line", "many lines", "a token"],
    )
    def test_what_looks_like_no_signature_is_not_offered(self, below: str) -> None:
        assert read_verdict(f"Ship it\n\n{below}").closing_hint == ()

    def test_a_remark_amid_an_unmarked_quote_is_not_offered(self) -> None:
        text = "Ship it\n\nFrom: Outbox <a@b.example>\nSent: x\nTo: y\nSubject: z\n\none\nfix it\ntwo"
        assert read_verdict(text, originals=["one two"]).closing_hint == ()

    def test_both_parts_are_looked_at(self) -> None:
        reading = reading_of(f"{PLAIN}Ship it\n\nThe\nFounder", f"{HTML}<p>Ship it</p><p>The Founder</p>")
        assert reading.closing_hint == ("The", "Founder", "The Founder")
        letter = letter_of(f"{PLAIN}Ship it\n\nThe\nFounder", f"{HTML}<p>Ship it</p><p>The Founder</p>")
        assert read_letter_verdict(letter, reading.closing_hint).verdict is Verdict.APPROVE
