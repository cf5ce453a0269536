"""`python -m tests.golden.make`: writes the golden archives that are missing, with the real codec. See README.md."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html.entities import codepoint2name
from pathlib import Path
from typing import Any
from unittest import mock
from urllib.parse import quote

import lmcompress
from lmcompress import LMCompressor, charsets, choice, forms
from lmcompress.container import LEARNED, METHODS, MIXED_LEARNED, REPEATING
from lmcompress.methods import LEVELS

HERE = Path(__file__).parent
MANIFEST = HERE / "manifest.json"
TOY = HERE / "toy.lmm"  # lmcompress train --config tests/golden/toy.json --data corpora/samples; never replaced
KNOWING = (
    HERE / "ngrams.lmm"
)  # python -m lmcompress.training.ngrams --data corpora/samples --lines 400 TOY KNOWING; nor this
SAMPLES = Path(__file__).parents[2] / "corpora" / "samples"
TEXT = (SAMPLES / "alice29.txt").read_bytes()
CHINESE = (SAMPLES / "chinese_classic.txt").read_bytes()[:4500].decode("utf-8", "ignore")


NOTED = "Größe, 漢字かなカナ 한글 \U0001f600 " + CHINESE[:300]
ASCII = "".join(map(chr, range(128)))
LETTERS = (
    "From: a@example.org\n\n" + CHINESE[:700].replace("\n", "") + "\n" + "Größe = 1, " * 30 + "\n" + "x" * 200 + "\n"
)


GREEK = """Ἄνδρα μοι ἔννεπε, Μοῦσα, πολύτροπον, ὃς μάλα πολλὰ
πλάγχθη, ἐπεὶ Τροίης ἱερὸν πτολίεθρον ἔπερσε·
πολλῶν δ’ ἀνθρώπων ἴδεν ἄστεα καὶ νόον ἔγνω,
πολλὰ δ’ ὅ γ’ ἐν πόντῳ πάθεν ἄλγεα ὃν κατὰ θυμόν,
ἀρνύμενος ἥν τε ψυχὴν καὶ νόστον ἑταίρων.
"""
STRINGS = [f"{i}: " + TEXT[56_000 + 900 * i : 56_900 + 900 * i].decode() + '"\t\\' for i in range(3)]


def quoted(content: bytes) -> bytes:
    """In quoted-printable with lines of 76 characters, without soft breaks where it has LF."""
    lines = [re.sub(b"[=\x80-\xff]", lambda octet: b"=%02X" % octet[0][0], line) for line in content.splitlines()]
    return b"".join(b"=\n".join(re.findall(b"(?:=..|[^=]){1,25}", line)) + b"\n" for line in lines)


def model_of(name: str) -> Path:
    """The model of that golden archive."""
    return KNOWING if name.startswith("ngrams") else TOY


def untried() -> Any:
    """A context in which a form that is found is taken, also where the toy's trial tells that it does not pay."""
    return mock.patch.object(choice, "form_of", lambda data, cost, *_: forms.to_text(data, cost))


def archives() -> dict[str, tuple[bytes, bytes]]:
    """name -> (archive, content) of every feature."""
    made = {}
    for level in LEVELS:
        text = TEXT[5000 * level : 5000 * level + 3000]
        made[f"level-{level}"] = (lmcompress.compress(text, level, model=TOY), text)
    noise = b"".join(hashlib.sha256(bytes([i])).digest() for i in range(9))
    for name, content in {"empty": b"", "byte": b"?", "stored": noise, "zstd": b"to be or not " * 99}.items():
        made[name] = (lmcompress.compress(content, model=TOY), content)
    mixed = TEXT[:2000] + noise + b"\xff\0" * 900 + TEXT[9000:9999]
    made["blocks"] = (lmcompress.compress(mixed, model=TOY, block_size=1024), mixed)
    made["metadata"] = (
        lmcompress.compress(TEXT[:99], model=TOY, metadata={"name": "alice.txt", "note": "ä"}),
        TEXT[:99],
    )
    made["no-digest"] = (lmcompress.compress(TEXT[:99], model=TOY, check=False), TEXT[:99])
    long = TEXT[:70_000]
    made["long-digest"] = (lmcompress.compress(long, 1, model=TOY), long)
    several = TEXT[70_000:90_000]
    made["lanes"] = (lmcompress.compress(several, 3, model=TOY), several)
    for name, charset, content in (
        ("lines", forms.PLAIN, TEXT[30_000:33_000] + b"\n" + TEXT[:99]),
        ("utf-16", 1, ("\ufeff" + TEXT[40_000:41_000].decode() + CHINESE[:99]).encode("utf-16-le")[:-1]),
        ("escapes", 13, json.dumps([CHINESE[:50], "Größe", "\U0001f600"]).encode() + TEXT[43_000:44_000]),
        ("escapes-capital", 14, b"\\u6BCF \\u00e9 \xff" + TEXT[44_000:45_000]),
        ("returns", forms.PLAIN, TEXT[45_000:47_000].replace(b"\r\n", b"\r") + b"\n\r\n"),
        ("capitals", forms.PLAIN, TEXT[47_000:49_000].upper() + b"or not"),
        ("utf-16-be", 2, TEXT[41_000:42_000].decode().encode("utf-16-be")),
        *((name, charset, "Ґрати! Größe? 漢字かなカナ 한글\n".encode(name, "ignore").replace(b"\x8f", b"") + b"\xff\n" + TEXT[50_000:51_000])
          for charset, name in charsets.CHARSETS.items()),
        ("percent", 15, quote(NOTED, safe=ASCII).encode() + b"%41 %c3 \xff" + TEXT[51_000:52_000]),
        ("percent-small", 16, re.sub("%..", lambda octet: octet[0].lower(), quote(NOTED, safe=ASCII)).encode() + TEXT[52_000:53_000]),
        ("octets", 25, re.sub("%(..)", lambda octet: "\\x" + octet[1].lower(), quote(NOTED, safe=ASCII)).encode() + TEXT[60_000:61_000]),
        ("octets-capital", 24, re.sub("%(..)", r"\\x\1", quote(NOTED, safe=ASCII)).encode() + b"\xff" + TEXT[61_000:62_000]),
        ("references", 17, NOTED.encode("ascii", "xmlcharrefreplace") + b"&#65; &#0228;" + TEXT[53_000:54_000]),
        ("references-hex", 18, re.sub("[^\0-\x7f]", lambda c: f"&#x{ord(c[0]):x};", NOTED).encode() + TEXT[54_000:55_000]),
        ("references-hex-capital", 19, re.sub("[^\0-\x7f]", lambda c: f"&#x{ord(c[0]):X};", NOTED).encode() + TEXT[55_000:56_000]),
        ("names", 26, re.sub("[^\0-\x7f]", lambda c: f"&{codepoint2name[ord(c[0])]};", "Größe, Straße: „façade“ – 5 €. " * 9).encode()
         + b"\xff &#252;" + TEXT[62_000:63_000]),
        ("mail", forms.PLAIN, LETTERS.encode() + quoted(LETTERS.encode()) + b"=E4=BD\n=E4=BD=A0" + b"y" * 150 + b"=\n=E4=BD=A0\n" + base64.encodebytes(LETTERS.encode())),
        ("mail-sets", forms.PLAIN, b"charset=koi8-r\r\n" + quoted("Все счастливые семьи похожи друг на друга\n".encode("koi8-r") * 9)
         + b"Subject: =?gb2312?B?" + base64.b64encode(CHINESE[:40].encode("gb2312", "ignore")) + b"?=\n" + b"charset=gbk\n"
         + base64.encodebytes(CHINESE[:400].encode("gbk")).replace(b"\n", b"\r\n") + "charset=iso-8859-1\nGröße\n".encode("latin-1")),
        ("strings", forms.PLAIN, json.dumps([*STRINGS, CHINESE[:200] * 2], ensure_ascii=False).encode() + b'"\\/"'),
        ("strings-escapes", 13, json.dumps([*STRINGS, CHINESE[:200] * 2, "\b" * 9]).encode() + b"\xff"),
        ("letters", forms.PLAIN, GREEK.encode() + b"\xff \xce" + TEXT[68_000:69_000] + GREEK.encode()[:-1]),
        ("letters-utf-16", 1, ("\ufeff" + GREEK + TEXT[69_000:70_000].decode()).encode("utf-16-le")[1:]),
        ("letters-utf-16-be", 2, (GREEK[::-1] + GREEK + "\udc00").encode("utf-16-be", "surrogatepass")),
        ("strings-escapes-capital", 14, b'"\\u6BCF\\t\\t\\t\\t\\t\\r" \\u00e9 ' + json.dumps(STRINGS).encode()),
    ):  # fmt: skip
        # the toy's costs are those of English, and so is what it finds smaller
        with (
            mock.patch.object(forms, "_charset", return_value=(charset, 0)),
            mock.patch.object(forms, "_is_strange", return_value=name.startswith("letters")),
            mock.patch.object(forms, "LETTERS_LEAST", 0),
            untried(),
        ):
            made[name] = (lmcompress.compress(content, model=TOY), content)
    keys = b"".join(hashlib.sha256(b"%d" % i).digest() for i in range(400))
    for name, apart in {
        "mixed": keys + TEXT[63_000:64_000],
        "mixed-repeats": 2 * (keys + TEXT[64_000:65_000]),
        "mixed-lines": base64.encodebytes(keys)
        + TEXT[65_000:66_000]
        + base64.encodebytes(keys).replace(b"\n", b"\r\n"),
        "mixed-run": b'{"image": "' + base64.b64encode(keys[:2000]) + b'\\n"}\n' + base64.b64encode(keys),
    }.items():
        content = TEXT[62_000:63_000] + apart + TEXT[66_000:66_500]
        made[name] = (lmcompress.compress(content, model=TOY), content)
    records = b"".join(b"%d,%s\n" % (9000 + 7 * i, keys[3 * i : 3 * i + 3].hex().encode()) for i in range(300))
    for name, content, method in (
        ("learned", records, LEARNED),
        ("learned-form", records.replace(b"\n", b"\r\n"), LEARNED),
        ("mixed-learned", records + keys + records[:500], MIXED_LEARNED),
    ):
        with untried():
            made[name] = (lmcompress.compress(content, model=TOY), content)
        (block,) = lmcompress.get_archive_info(made[name][0]).members[0].blocks
        assert block.method == METHODS[method]
    pages = [TEXT[67_000 + 1500 * i : 68_500 + 1500 * i] for i in range(3)]
    again = pages[0] + pages[1] + pages[0] + keys[:3000] + pages[2] + pages[1][:400] + keys[:3000] + pages[2]
    for name, content, options in (
        ("repeating", again, {}),
        ("repeating-blocks", again, {"block_size": 4096}),
        ("repeating-whole", again[:4096] + again[:4096], {"block_size": 4096, "level": 1}),
    ):
        made[name] = (lmcompress.compress(content, model=TOY, **options), content)
        blocks = lmcompress.get_archive_info(made[name][0]).members[0].blocks
        assert blocks[-1].method == METHODS[REPEATING]
    for level in (1, 6):
        text = TEXT[90_000:92_000] + CHINESE[:500].encode()
        made[f"ngrams-{level}"] = (lmcompress.compress(text, level, model=KNOWING), text)
    parts = [TEXT[:500], b"", noise]
    compressor = LMCompressor(model=TOY)
    made["members"] = (b"".join(compressor.compress(p, LMCompressor.FLUSH_FRAME) for p in parts), b"".join(parts))
    return made


def main() -> None:
    manifest = json.loads(MANIFEST.read_text()) if MANIFEST.exists() else {}
    for name, (archive, content) in archives().items():
        path = HERE / f"{name}.lmc"
        if path.exists():
            continue
        assert lmcompress.decompress(archive, model=model_of(name)) == content
        path.write_bytes(archive)
        sha256 = hashlib.sha256(content).hexdigest()
        manifest[path.name] = {"size": len(content), "sha256": sha256, "version": lmcompress.__version__}
    MANIFEST.write_text(json.dumps(manifest, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
