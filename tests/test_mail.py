"""Quoted-printable and base64: what is made of mail comes back, whoever wrote it."""

from __future__ import annotations

import base64
import quopri
from email.message import EmailMessage
from email.policy import SMTP
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmcompress import mail
from lmcompress.errors import CorruptError
from lmcompress.marks import mark

SAMPLES = Path(__file__).parent.parent / "corpora" / "samples"
GERMAN = (SAMPLES / "german_novel.txt").read_bytes().decode("utf-8", "ignore").replace("\r\n", "\n")[:12000]
CHINESE = (SAMPLES / "chinese_classic.txt").read_bytes().decode("utf-8", "ignore").replace("\r\n", "\n")[:4000]
RUSSIAN = "Все счастливые семьи похожи друг на друга, каждая несчастливая семья несчастлива по-своему.\n" * 30
JAPANESE = (
    "吾輩は猫である。名前はまだ無い。どこで生れたかとんと見当がつかぬ。何でも薄暗いじめじめした所で泣いていた。\n" * 30
)
MIXED = "Plain = simple.\n\n" + CHINESE[:500] + "\n" + GERMAN[:3000] + "\n" + "long line " * 40 + "\nend=\n==\n"
MARKS = [mail.BREAK, mail.JOIN, mail.END]


def there_and_back(data: bytes) -> bytes:
    text = mail.to_text(data)
    assert mail.to_data(text, len(data)) == data
    return text


@pytest.mark.parametrize("text", [GERMAN, CHINESE, MIXED])
@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_quoted_printable_of_whole_texts_is_their_text(text: str, end: bytes) -> None:
    coded = quopri.encodestring(text.encode()).replace(b"\n", end)
    found = there_and_back(coded)
    read = quopri.decodestring(
        found.replace(b"\xf4\x8f\xbb\x8b", b"").replace(end, b"\n")
    )  # =3D and =20 stay as they are
    assert read == text.encode() and b"=\n" not in found and b"=\r\n" not in found
    assert sum(found.count(mark) for mark in MARKS) <= len(coded) // 1000


@pytest.mark.parametrize("length", [60, 64, 72, 76])
@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("cut", range(4))
def test_base64_is_its_text(length: int, end: bytes, cut: int) -> None:
    content = CHINESE.encode().decode("utf-8", "ignore")[: 3000 + cut].encode()
    letters = base64.b64encode(content)
    coded = b"".join(letters[i : i + length] + end for i in range(0, len(letters), length))
    for before, after in ((b"", b""), (b"Subject: x" + end + end, b"--" + end), (b"word" + end, b"word" + end)):
        text = there_and_back(before + coded + after)
        if not before.startswith(b"word"):  # not told from the letters
            assert content in text
    assert content in there_and_back(coded[: -len(end)] + end + coded)


@pytest.mark.parametrize(
    "data",
    [
        b"A" * 76, b"A" * 76 + b"\n", b"AAAA\n" * 100, b"ACGT" * 15 + b"\n" + b"ACGT" * 3 + b"\n", b"=" * 80 + b"\n" + b"=\n" * 50,
        b"=\n", b"=\r\n=\n", b"x" * 200 + b"=\n" + b"y" * 300 + b"=E4=BD=A0\n", b"=E4=BD\n=A0=\n=E4=BD=\n=A0", b"=E=\n4=BD=A0",
        b"=ED=A0=80 =C0=80 =F4=90=80=80", "é=E4=BD=A0=\né\n".encode(), b"=e4=bd=a0=\n\n=E4=BD=A0=\n", b"?b?4L2g?= ?B?5L2g?= ?b?w6Q?=",
        base64.encodebytes(bytes(range(256)) * 9), base64.encodebytes(CHINESE.encode()).replace(b"\n", b"\r\n", 5),
        base64.encodebytes(CHINESE.encode())[:-3], quopri.encodestring(CHINESE.encode())[5:-7],
        b"=E4=BD=A0\n" + b"x" * 75 + b"\r\r\n" + b"=E4=BD=A0\n" + b"x" * 75 + b"\r",
        base64.encodebytes("\U0010fe00\U0010feff".encode() * 60), quopri.encodestring(CHINESE.encode()).replace(b"=\n", b"=\r\n", 3),
    ],
)  # fmt: skip
def test_what_only_looks_like_mail_comes_back(data: bytes) -> None:
    there_and_back(data)


@pytest.mark.parametrize("text", [GERMAN, CHINESE, MIXED])
@pytest.mark.parametrize("how", ["quoted-printable", "base64", "8bit"])
def test_messages(text: str, how: str) -> None:
    """Of a library whose lines are longer, with headers, parts and an attachment that is no text."""
    message = EmailMessage()
    message["Subject"], message["From"] = text[5:80].replace("\n", " "), "a@example.org"
    message.set_content(text, cte=how)
    message.add_attachment(bytes(range(256)) * 20, maintype="application", subtype="octet-stream")
    for policy in (message.policy, SMTP):
        data = message.as_bytes(policy=policy)
        box = (
            b"From a@example.org Mon Nov 23 00:00:00 2026\n"
            + data
            + b"\nFrom b\n"
            + quopri.encodestring(GERMAN.encode())
        )
        found = there_and_back(box)
        if how != "8bit":
            assert max(text.splitlines(), key=len).encode()[:60] in found.replace(b"=20", b" ")
        assert sum(found.count(mark) for mark in MARKS) < 60


SETS = [("iso-8859-1", 3, GERMAN), ("windows-1252", 3, GERMAN), ("ISO-8859-2", 4, GERMAN), ("windows-1251", 5, RUSSIAN), ("koi8-r", 6, RUSSIAN),
        ("gb2312", 8, CHINESE), ("GBK", 8, CHINESE), ("big5", 9, JAPANESE), ("shift_jis", 10, JAPANESE), ("euc-jp", 11, JAPANESE)]  # fmt: skip


@pytest.mark.parametrize(("name", "number", "text"), SETS)
@pytest.mark.parametrize("how", [quopri.encodestring, base64.encodebytes, bytes])
def test_what_is_said_to_be_in_another_character_set_is_read(name: str, number: int, text: str, how) -> None:
    codec = "cp932" if name == "shift_jis" else name
    content = text.encode(codec, "ignore")
    data = b'Content-Type: text/plain; charset="%b"\n\n%b' % (name.encode(), how(content))
    box = data + b"\ncharset=utf-8\n" + quopri.encodestring(CHINESE.encode()) + "äöü\n".encode()
    found = there_and_back(box)
    assert found.count(mail._mark_of_set(number)) in range(1, 4)
    lines = [
        line
        for line in content.decode(codec).splitlines()
        if "=" not in line and line == line.rstrip() and not line.isascii()
    ]
    assert sum(line.encode() in found for line in lines) > 0.95 * len(lines) > 0
    assert CHINESE[:1000].encode() in found
    word = b"Subject: =?%b?B?%b?=\n" % (name.encode(), base64.b64encode(content[:40]))
    assert mail._mark_of_set(number) in there_and_back(word) and content[:30].decode(
        codec, "ignore"
    ).encode() in there_and_back(word)


@pytest.mark.parametrize(("name", "number", "text"), SETS)
def test_what_is_not_in_the_set_that_is_named_comes_back(name: str, number: int, text: str) -> None:
    head = b"charset=%b\n" % name.encode()
    for content in (
        bytes(range(256)) * 5,
        "中ä".encode() * 50 + b"\xff\n" * 3,
        b"\xe9\n=E9\n" * 100,
        b"=81A=\n=81=41 =C4=E3=C4=A3\n" * 9,
    ):
        for data in (content, quopri.encodestring(content), base64.encodebytes(content)):
            there_and_back(head + data + b"=\n")


LETTERS = st.sampled_from([b"charset=gbk\n", b"charset=koi8-r\n", b"charset=utf-8\n", b"=C4=E3", b"=C4", b"\xc4\xe3", b"=", b"=\n", b"=\r\n", b"\n", b"=E4=BD=A0", b"=C3=A4", b"=3D", "ä".encode(), b"x", b" " * 30, b"4" * 74, b"\xff"])  # fmt: skip
LINES = st.text(max_size=120).map(lambda t: base64.encodebytes(t.encode("utf-8", "surrogatepass")))
WORDS = st.text(max_size=30).map(lambda t: b"=?utf-8?b?" + base64.b64encode(t.encode("utf-8", "surrogatepass")) + b"?=")


@settings(deadline=None, max_examples=300)
@given(st.lists(LETTERS | LINES | WORDS | st.binary(max_size=10), max_size=60).map(b"".join))
def test_anything_comes_back(data: bytes) -> None:
    text = mail.to_text(data)
    if not any(c in text and c in data for c in (b"\xf4\x8f\xb8", b"\xf4\x8f\xb9", b"\xf4\x8f\xba", b"\xf4\x8f\xbb")):
        assert mail.to_data(text, max(len(data), 1)) == data


def turn(limit: int, charset: int = 0) -> bytes:
    return mark(mail.TURN + limit) + mail._mark_of_set(charset)


def begin(quarter: int, charset: int = 0) -> bytes:
    return mark(mail.BASE64 + quarter) + mail._mark_of_set(charset)


@pytest.mark.parametrize(
    "text",
    [
        mail.END, begin(19) + b"text", begin(19) + b"a" + begin(19) + b"b" + mail.END, b"a" + mail.END + begin(0),
        begin(0, 6) + b"\xff" + mail.END, begin(0, 3) + "中".encode() + mail.END, turn(0, 8) + b"\xff", turn(75, 5) + "ä".encode(),
        begin(0) + b"a" + mail.END + mail.END, turn(1) + "ää".encode(), turn(15) + b"a", turn(20) + "ä".encode() * 1000,
    ],
)  # fmt: skip
def test_marks_out_of_place_are_refused(text: bytes) -> None:
    with pytest.raises(CorruptError):
        mail.to_data(text, 10)


@settings(deadline=None, max_examples=300)
@given(
    st.lists(
        st.sampled_from(
            [*MARKS, turn(0), turn(16), turn(75), turn(75, 3), turn(0, 8), begin(0), begin(19), begin(51), begin(0, 12)]
        )
        | LETTERS,
        max_size=40,
    )
)
def test_no_text_does_anything_else(parts: list[bytes]) -> None:
    try:
        mail.to_data(b"".join(parts), 1000)
    except CorruptError:
        pass


@pytest.mark.parametrize("unit", [b"=\n", b"=E4=BD=A0=\n", b"\n", b"A" * 60 + b"\n", b"=?b?AAAA", b"=E4=BD=A0", "ä=\n".encode(), b"=3D"])  # fmt: skip
def test_a_megabyte_of_anything_comes_back(unit: bytes) -> None:
    there_and_back((unit * (2**20 // len(unit) + 1))[: 2**20])


@pytest.mark.parametrize(
    "text",
    [
        begin(19) * 10**5, turn(16) * 10**5, turn(127) + "ä".encode() * 10**5, (turn(16) + mail.JOIN * 2) * 10**5,
        mail.BREAK * 10**5, (begin(0) + mail.END) * 10**5,
    ],
)  # fmt: skip
def test_long_crafted_text_ends(text: bytes) -> None:
    """Nothing here takes time that grows with the square of the length: these would take hours."""
    try:
        mail.to_data(text, 10**6)
    except CorruptError:
        pass
