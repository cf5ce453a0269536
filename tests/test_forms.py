"""Character sets and line ends: whatever is made of a text, its bytes come back, by tables that never change."""

from __future__ import annotations

import base64
import hashlib
import json
import quopri
import random
import re
import tracemalloc
from collections.abc import Callable
from html.entities import codepoint2name
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.charsets import table
from lmcompress import charsets, compress, decompress, forms, letters, mail, marks, modelfile, strings
from lmcompress.errors import CorruptError, UnsupportedError
from lmcompress.marks import mark

SAMPLES = Path(__file__).parent.parent / "corpora" / "samples"
ENGLISH = (SAMPLES / "alice29.txt").read_bytes().decode().replace("\r\n", "\n")[:20000]
GERMAN = (SAMPLES / "german_novel.txt").read_bytes().decode("utf-8", "ignore")[:20000]
CHINESE = (SAMPLES / "chinese_classic.txt").read_bytes().decode("utf-8", "ignore")[:8000]
RUSSIAN = "Все счастливые семьи похожи друг на друга, каждая несчастливая семья несчастлива по-своему. " * 40
JAPANESE = (
    "吾輩は猫である。名前はまだ無い。どこで生れたかとんと見当がつかぬ。何でも薄暗いじめじめした所でニャーニャー泣いていた事だけは記憶している。"
    * 20
)
ASCII = "".join(map(chr, range(128)))
HTML_4 = (
    "a8d9a3638b51a88b3915f96fefd0e58741fcc473930c967d86890354ef6fc168"  # SHA-256 of all names: the format has these
)
NAMES = {v: k for k, v in (forms.UTF_16 | charsets.CHARSETS).items()}


def cost(text: bytes) -> int:
    return modelfile.load("fast").tokenizer.cost(text)


def there_and_back(data: bytes) -> tuple[int, bytes]:
    form, text = forms.to_text(data, cost)
    assert forms.to_data(form, text, len(data)) == data
    return form, text


@pytest.mark.parametrize(
    ("text", "charset"),
    [
        *((text, name) for text in (ENGLISH, GERMAN, CHINESE, RUSSIAN) for name in forms.UTF_16.values()),
        (GERMAN, "cp1252"), (CHINESE, "gbk"), (JAPANESE, "cp932"), (JAPANESE, "euc-jp"),
        *((RUSSIAN, name) for name in charsets.CYRILLIC.values()),
    ],
)  # fmt: skip
@pytest.mark.parametrize("ends", ["\n", "\r\n"])
def test_text_is_found_in_its_character_set(text: str, charset: str, ends: str) -> None:
    text = text.encode(charset, "ignore").decode(charset)
    form, found = there_and_back(text.replace("\n", ends).encode(charset))
    assert found.decode() == text
    assert form == NAMES[charset] + (forms.LINES if ends == "\r\n" and "\n" in text else 0)


def test_utf_8_is_left_alone_and_its_line_ends_are_not() -> None:
    for text in (ENGLISH, GERMAN, CHINESE, RUSSIAN):
        data = text.encode()
        for cut in (data, data[1:-1], data[2:-2], b""):
            assert there_and_back(cut) == (forms.PLAIN, cut)
    data = ENGLISH.replace("\n", "\r\n").encode()
    assert there_and_back(data) == (forms.LINES, ENGLISH.encode())
    mixed = data + b"alone\n\xff\nCR\rCR\r\r\n"
    form, text = there_and_back(mixed)
    assert form == forms.LINES and text.endswith(b"alone\xff\n\xff\xff\nCR\rCR\r\n")
    for alone in (b"\xff\r\n" + data, ENGLISH.encode() + b"\r\n"):  # FF LF would come back as LF; mostly LF
        assert there_and_back(alone) == (forms.PLAIN, alone)


@pytest.mark.parametrize("charset", [*forms.UTF_16.values(), "gbk"])
def test_a_block_may_begin_and_end_inside_a_character_and_have_wrong_bytes(charset: str) -> None:
    data = CHINESE.encode(charset, "ignore")
    for part in (data[1:], data[:-1], data[1:-1], data[:3001] + b"\xff" + data[3001:]):
        form, _ = there_and_back(part)
        assert form == NAMES[charset]
    lone = (
        "\ud83d".encode("utf-16-le", "surrogatepass")
        + CHINESE.encode("utf-16-le")
        + "\udc00".encode("utf-16-le", "surrogatepass")
    )
    assert there_and_back(lone)[0] == NAMES["utf-16-le"]
    twin = CHINESE.encode("utf-16-le") + chr(charsets.ESCAPE + 7).encode("utf-16-le")  # would come back as the byte 7
    assert there_and_back(twin) == (forms.PLAIN, twin)


@settings(deadline=None)
@given(st.binary(max_size=300) | st.text(max_size=200).map(lambda t: t.encode("utf-16-be", "surrogatepass")))
def test_anything_comes_back(data: bytes) -> None:
    there_and_back(data)
    there_and_back(data.replace(b"\n", b"\r\n"))
    for charset in charsets.CHARSETS:
        try:
            assert forms.to_data(charset, forms._decode(data, charset, 0), len(data)) is not None
        except CorruptError:
            pass


def test_noise_is_no_text() -> None:
    noise = random.Random(0).randbytes(50000)
    assert there_and_back(noise) == (forms.PLAIN, noise)


def test_old_macs_and_telegrams() -> None:
    for text in (ENGLISH, GERMAN):
        returns, capitals = text.replace("\n", "\r"), text.upper()
        assert there_and_back(returns.encode()) == (forms.RETURNS, text.encode())
        form, found = there_and_back(capitals.encode() + b"\nPS: Not all of it")
        assert form == forms.CAPITALS and found[:2000].islower() and found.endswith(b"\nps: nOT ALL OF IT")
        form, found = there_and_back(capitals.replace("\n", "\r\n").encode("utf-16-be"))
        assert form == forms.CAPITALS | forms.LINES | 2 and found[:2000].islower()
    mixed = ENGLISH.replace("\n", "\r").encode() + b"\n\r\n\r"
    assert there_and_back(mixed) == (forms.RETURNS, ENGLISH.encode() + b"\r\n\r\n")


def test_escapes_of_json_are_characters() -> None:
    lines = [{"id": i, "text": line} for i, line in enumerate((CHINESE[:3000] + RUSSIAN + "\U0001f600").splitlines())]
    written = json.dumps(lines)
    upper = re.sub(r"\\u....", lambda e: "\\u" + e[0][2:].upper(), written)
    for number, data in ((13, written), (14, upper)):
        for part in (data, data[3:-4], data + "\\ud83d \\u0026 \\\\u4e2d"):
            form, text = there_and_back(part.encode())
            assert form == number and len(text) < 0.7 * len(part)
        form, text = there_and_back(data.encode() + b"\xff\xc3\xa9")
        assert form == number and text.endswith("\U0010ffff\U0010ffc3\U0010ffa9".encode())
    for data in (
        b"C:\\users\\ubuntu",
        written.encode().replace(b"e", b"E") + b"\\u00e9",
        json.dumps(lines, ensure_ascii=False).encode(),
    ):
        there_and_back(data)
    assert there_and_back(json.dumps(lines, ensure_ascii=False).encode())[0] == forms.PLAIN


NOTED = CHINESE[:3000] + RUSSIAN[:500] + GERMAN[:3000] + "\U0001f600\U0010feff"


@pytest.mark.parametrize(
    ("number", "write"),
    [
        (15, lambda text: quote(text, safe=ASCII)),
        (16, lambda text: re.sub("(%..)+", lambda run: run[0].lower(), quote(text, safe=ASCII))),
        (24, lambda text: re.sub("%(..)", r"\\x\1", quote(text, safe=ASCII))),
        (25, lambda text: re.sub("%(..)", lambda octet: "\\x" + octet[1].lower(), quote(text, safe=ASCII))),
        (17, lambda text: text.encode("ascii", "xmlcharrefreplace").decode()),
        (18, lambda text: re.sub("[^\0-\x7f]", lambda c: f"&#x{ord(c[0]):x};", text)),
        (19, lambda text: re.sub("[^\0-\x7f]", lambda c: f"&#x{ord(c[0]):X};", text)),
    ],
)
def test_addresses_and_references_of_html_are_characters(number: int, write: Callable[[str], str]) -> None:
    written = write(NOTED)
    assert written.isascii() and len(written) > 2 * len(NOTED)
    assert there_and_back(written.encode()) == (number, NOTED.encode())
    odd = "\\x41 \\xc3 \\xE0\\x80\\x80 100 % &#65; &#0228; &#x0e4; &#1114111; &#9999999; &#55357; %41 %c3 %C3 %C3%41 %E0%80%80 %ED%A0%80 &#xd800;&#xDFFF; &#xe4"
    for part in (written[1:], written[2:-3], written + odd):
        form, text = there_and_back(part.encode())
        assert form == number and len(text) < len(part)
    form, text = there_and_back(written.encode() + b"\xff\xc3\xa9\r")
    assert form == number and text.endswith("\U0010ffff\U0010ffc3\U0010ffa9\r".encode())
    assert there_and_back(NOTED.encode()) == (forms.PLAIN, NOTED.encode())


def test_names_of_html_are_characters() -> None:
    text = GERMAN + "\xa0Å“ÿ”€…♥"
    written = re.sub("[^\0-\x7f]", lambda c: f"&{codepoint2name[ord(c[0])]};", text)
    assert there_and_back(written.encode()) == (26, text.encode())
    odd = "&amp;uuml; &quot;&lt;&gt; &nosuch; &UUML; &uuml &#252; &;"
    for part in (written[1:], written[2:-3], written + odd):
        assert there_and_back(part.encode())[0] == 26
    form, found = there_and_back(written.encode() + b"\xff\xc3\xa9\r")
    assert form == 26 and found.endswith("\U0010ffff\U0010ffc3\U0010ffa9\r".encode())
    names = sorted((name, point) for point, name in codepoint2name.items() if point > 127)
    assert hashlib.sha256(repr(names).encode()).hexdigest() == HTML_4
    with pytest.raises(CorruptError, match="without a name"):
        forms.to_data(26, "中".encode(), 9)


def test_strings_of_json_are_their_text() -> None:
    for content in (GERMAN[:9000], CHINESE, 'a\\b\tc\\"d"\r\n' * 50 + CHINESE):
        parts = [content[i : i + 900] for i in range(0, len(content), 900)]
        for ascii, number in ((False, 21), (True, 22)):
            written = "\n".join(json.dumps({"n": i, "text": part}, ensure_ascii=ascii) for i, part in enumerate(parts))
            form, text = there_and_back(written.encode())
            assert form == number and all(part.encode() in text for part in parts if part.count("\n") >= strings.LEAST)
        upper = re.sub(r"\\u....", lambda e: "\\u" + e[0][2:].upper(), written)
        assert there_and_back(upper.encode())[0] == 23
        for part in (
            written[1:-1],
            written[4:] + '"\\',
            written.replace("{", "\\"),
            written + "\\/\\b" * 99,
            written.replace("\n", "\r\n"),
        ):
            there_and_back(part.encode())
    twin = json.dumps(parts, ensure_ascii=False).encode() + strings.END
    assert there_and_back(twin) == (forms.PLAIN, twin)
    rare = json.dumps(["one\ntwo"] * 100).encode()
    assert there_and_back(rare) == (forms.PLAIN, rare)


@settings(deadline=None)
@given(
    st.lists(
        st.sampled_from(
            ['"', "\\", '\\"', "n", "t", "u00e9", "/", "\n", "\r", "\t", "x", "é", '"\\n\\n\\n\\n\\n\\n"', "\\" * 6]
        ),
        max_size=60,
    )
)
def test_any_strings_come_back(parts: list[str]) -> None:
    data = "".join(parts).encode()
    assert strings.to_data(strings.to_text(data), 2 * len(data)) == data
    there_and_back(data)


@pytest.mark.parametrize(
    "text", [strings.END, strings.OPEN + b"a", strings.OPEN * 2 + strings.END, strings.OPEN + strings.END * 2]
)
@pytest.mark.parametrize("form", forms.STRINGS.values())
def test_marks_of_strings_out_of_place_are_refused(form: int, text: bytes) -> None:
    with pytest.raises(CorruptError):
        forms.to_data(form, text, 10)


def test_mail_is_read_where_that_saves_something() -> None:
    coded = base64.encodebytes(GERMAN.encode())
    form, text = there_and_back(b"Subject: x\n\n" + coded)
    assert form == forms.MAIL and GERMAN.encode() in text
    letter = GERMAN.replace("\n", "\r\n").encode()
    form, text = there_and_back(b"Subject: x\r\n\r\n" + base64.encodebytes(letter).replace(b"\n", b"\r\n"))
    assert form == forms.MAIL | forms.LINES and GERMAN.encode() in text
    short = b"Subject: =?utf-8?b?w6Q=?=\n"
    assert there_and_back(short) == (forms.PLAIN, short)
    twin = coded + mail.END  # would end a part that has not begun
    assert there_and_back(twin) == (forms.PLAIN, twin)
    lines = twin.replace(b"\n", b"\r\n")
    assert there_and_back(lines) == (forms.LINES, twin)  # line ends go by themselves


GREEK = "Ἄνδρα μοι ἔννεπε, Μοῦσα, πολύτροπον, ὃς μάλα πολλὰ πλάγχθη, ἐπεὶ Τροίης ἱερὸν πτολίεθρον ἔπερσε·\n" * 400
THAI = "มนุษย์ทั้งหลายเกิดมามีอิสระและเสมอภาคกันในเกียรติศักดิ์และสิทธิ ต่างมีเหตุผลและมโนธรรม\n" * 400


@pytest.mark.parametrize("text", [GREEK, THAI])
def test_letters_that_no_piece_has_are_bytes(text: str) -> None:
    data = text.encode()
    form, found = there_and_back(data)
    assert form == forms.LETTERS[forms.PLAIN] and len(found) < len(text) + 3 * letters.MOST + 1
    listed = found.partition(b"\n")[0].decode()
    assert set(listed) - {letters.NONE} == {c for c in text if c > "\x7f"}
    small, behind = listed[: letters.CASE], listed[letters.CASE :]
    if text == GREEK:
        assert {("μ", "Μ"), ("τ", "Τ")} <= set(zip(small, behind, strict=False))
        assert small.rstrip(letters.NONE) == "".join(sorted(set(small) - {letters.NONE}))
    else:
        assert listed == "".join(sorted(listed))
    tokenizer = modelfile.load("fast").tokenizer
    assert len(tokenizer.encode(found)) < 0.7 * len(tokenizer.encode(data))
    alone = found.replace(b"\n", b"\xff\n", 1)  # the list's end is not CR LF
    assert there_and_back(text.replace("\n", "\r\n").encode()) == (form | forms.LINES, alone)
    for number, name in forms.UTF_16.items():
        assert there_and_back(text.encode(name)) == (forms.LETTERS[number], found)
    for part in (data[1:], data[:-3], data[:3001] + b"\x80\xff\xe0" + data[3001:], text.encode("utf-16-le")[1:]):
        assert there_and_back(part)[0] in forms.LETTERS.values()


def test_letters_of_other_texts_are_left() -> None:
    short, rich = THAI[:3000].encode(), "".join(map(chr, range(0x1200, 0x1380))).encode() * 99  # more than 64
    for data in (short, RUSSIAN.encode() * 9, JAPANESE.encode() * 9, CHINESE.encode() * 9, ENGLISH.encode() * 9):
        assert there_and_back(data) == (forms.PLAIN, data)
    twin = THAI.encode() + marks.mark(0x80)  # would come back as the byte 80
    assert there_and_back(twin) == (forms.PLAIN, twin)
    there_and_back(rich)


@settings(deadline=None)
@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_any_letters_come_back(data: bytes) -> None:
    text = letters.to_text(data)
    assert letters.to_data(text, len(data)) == data or re.search(
        f"[{chr(0x10FE80)}-{chr(0x10FEFF)}]", data.decode("utf-8", "ignore")
    )
    with pytest.raises(CorruptError):
        letters.to_data(text + b"a", len(text.partition(b"\n")[2].decode("utf-8", "surrogateescape")))


@pytest.mark.parametrize(
    ("text", "size"),
    [(b"\xce\xb1\n\x81", 9), (b"\xce\xb1\n\xff", 9), (b"\xce\xb1\n\xe0\x80", 9), (b"\n\x80", 9), (b"\xff\n\x80", 9),
     (b"a" * 65 + b"\n", 9), (b"\xce\xb1\n\x80\x80\x80", 2)],
)  # fmt: skip
def test_letters_out_of_their_list_are_refused(text: bytes, size: int) -> None:
    with pytest.raises(CorruptError):
        letters.to_data(text, size)


@pytest.mark.parametrize("form", [30, 0x1F, 0xFF])
def test_unknown_forms_are_refused(form: int) -> None:
    with pytest.raises(UnsupportedError, match="a later version"):
        forms.to_data(form, b"text", 4)


@pytest.mark.parametrize(
    ("form", "text", "size"),
    [
        (0, b"text", 5), (forms.LINES, b"a\n", 2), (1, b"text", 4), (1, b"ab\xff", 4), (8, "é".encode() * 4, 2),
        (8, "\U0001f600".encode(), 1), (3, "中".encode(), 1), (3, b"\xed\xa0\x80", 1), (8, b"abc", 2),
    ],
)  # fmt: skip
def test_text_that_no_content_has_is_refused(form: int, text: bytes, size: int) -> None:
    with pytest.raises(CorruptError):
        forms.to_data(form, text, size)


MEGABYTE = 1 << 20


@pytest.mark.parametrize(
    ("form", "text"),
    [
        (forms.MAIL, mark(mail.BASE64 + 1) + b" " * (4 * MEGABYTE - 8) + mail.END),
        (forms.MAIL, mark(mail.BASE64 + 15) + b" " * (4 * MEGABYTE - 8) + mail.END),
        (forms.MAIL, mark(mail.TURN + 16) + "é".encode() * (2 * MEGABYTE - 4)),
        (21, (strings.OPEN + strings.END) * (MEGABYTE // 2)),
        (21, strings.OPEN + b'"' * (4 * MEGABYTE - 8) + strings.END),
        (27, "\U0001f600\n".encode() + b" " * (4 * MEGABYTE - 5)),
    ],
)
def test_text_takes_memory_in_proportion_to_the_size_of_its_content(form: int, text: bytes) -> None:
    """What codec.memory() has for a byte of content, less the text itself."""
    tracemalloc.start()
    try:
        with pytest.raises(CorruptError):
            forms.to_data(form, text, MEGABYTE)
        assert tracemalloc.get_traced_memory()[1] < 16 * MEGABYTE
    finally:
        tracemalloc.stop()


def test_a_string_that_does_not_end_is_read_once() -> None:
    """This would take minutes if it was tried again from each of its quotes."""
    text = b'["' + rb"\"\n" * 100_000
    assert strings.to_text(text) == text
    end, closed = b'\n"' + rb"\n" * 3000 + b'"', b'\n"' + strings.OPEN + b"\n" * 3000 + strings.END + b'"'
    assert strings.to_text(text + end) == text + closed


def test_the_tables_are_what_they_are_for_ever() -> None:
    assert (
        hashlib.sha256(charsets.TABLES.read_bytes()).hexdigest()
        == "c8c01996c491fcfbe0080113ef21d800f705917389bde001b5f1c7cb4e705201"
    )


@pytest.mark.parametrize("charset", charsets.CHARSETS.values())
def test_the_tables_are_those_of_python(charset: str) -> None:
    number = NAMES[charset]
    of_python = {ord(c): int(first, 16) + i for first, run in table(charset).items() for i, c in enumerate(run)}
    codes = charsets._codes(number)
    assert {c: int(codes[c]) for c in (codes >= 128).nonzero()[0]} == of_python


@pytest.mark.parametrize("level", [1, 3])
def test_archives_of_other_forms_are_no_larger(level: int) -> None:
    text = CHINESE[:3000]
    plain = len(compress(text.encode(), level))
    others = [text.encode("gbk", "ignore"), text.encode("utf-16-le"), text.replace("\n", "\r\n").encode()]
    others += [base64.encodebytes(text.encode()), quopri.encodestring(text.encode()), quote(text, safe=ASCII).encode()]
    others += [text.encode("ascii", "xmlcharrefreplace"), json.dumps([text]).encode()]
    for data in others:
        archive = compress(data, level)
        assert decompress(archive) == data and len(archive) < 1.03 * plain
