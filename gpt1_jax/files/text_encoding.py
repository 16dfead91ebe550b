"""Bytes that are not UTF-8: text in another encoding, with the command that converts it, or none.

chardet guesses the encoding from what it has seen of languages. It is asked about those that files
of text still come in. Text of two or four bytes a character, where its NULs do not say so, is told
by its letters: nearly all are of one script, as by chance they never are.
"""

import codecs
import re
import shlex
import unicodedata
from collections import Counter
from pathlib import Path
from typing import BinaryIO

from gpt1_jax.errors import UserError
from gpt1_jax.messages import visible

# Python's names and those of iconv.
ENCODINGS = {
    "utf-16": "UTF-16",
    "utf-32": "UTF-32",
    "utf-16-le": "UTF-16LE",
    "utf-16-be": "UTF-16BE",
    "utf-32-le": "UTF-32LE",
    "utf-32-be": "UTF-32BE",
    **{f"cp{number}": f"WINDOWS-{number}" for number in range(1250, 1259)},
    **{f"iso8859-{part}": f"ISO-8859-{part}" for part in (1, 2, 3, 4, 5, 6, 7, 8, 9, 13, 15)},
    **{f"cp{number}": f"CP{number}" for number in (437, 737, 775, 850, 852, 855, 857, 866)},
    "koi8-r": "KOI8-R",
    "koi8-u": "KOI8-U",
    "mac-roman": "MACINTOSH",
    "mac-latin2": "MAC-CENTRALEUROPE",
    "mac-cyrillic": "MAC-CYRILLIC",
    "cp500": "CP500",  # of IBM's mainframes
    "cp874": "CP874",
    "tis-620": "TIS-620",
    "gb18030": "GB18030",
    "big5hkscs": "BIG5-HKSCS",
    "cp932": "CP932",
    "euc_jis_2004": "EUC-JP",
    "euc_kr": "EUC-KR",
    "cp949": "CP949",
    "johab": "JOHAB",
}
# Those whose bytes are all ASCII, as are the codes that switch between their tables, by what begins
# these; in the order in which each has more tables than the one before. Nothing that a terminal
# knows begins as the first ones do; what begins the others stands in any text.
ESCAPED = {
    "\x1b$": {
        "iso2022_jp": "ISO-2022-JP",
        "iso2022_jp_2": "ISO-2022-JP-2",
        "iso2022_jp_ext": "ISO-2022-JP-3",
        "iso2022_kr": "ISO-2022-KR",
    },
    "~{": {"hz": "HZ"},
    "+": {"utf-7": "UTF-7"},
}
_KOREAN = b"\x1b$)C"  # stands once, where the file begins
WIDE = ("utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be")
# Writing that goes with Chinese characters, by the first word of Unicode's names.
_EAST_ASIAN = (
    "CJK",
    "HIRAGANA",
    "KATAKANA",
    "KATAKANA-HIRAGANA",
    "IDEOGRAPHIC",
    "BOPOMOFO",
    "FULLWIDTH",
    "HALFWIDTH",
)
# Characters of which chance may make those of one script; it has more to choose from in long text.
FEW_CHARACTERS = 8
FEW_ESCAPED = 20
UNSURE = 0.1  # confidence of chardet
A_FEW = 3  # characters that are not ASCII, different ones, which say nothing of a language
SAMPLE = 2**14  # bytes that are looked at
_EURO = re.compile(rb"[^\x80-\x9f\xa4]*\xa4[^\x80-\x9f]*")
_CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f]")


# A Latin letter beside one of another script, within a word.
_TWO_SCRIPTS = re.compile(r"[A-Za-z][\u0370-\u07ff]|[\u0370-\u07ff][A-Za-z]")


def named(sample: bytes) -> str | None:
    """The encoding of a piece of text, as iconv calls it; None if it is no text."""
    from chardet import detect_all

    wide = sample.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_BE))
    if not wide and (b"\0" in sample or len(_CONTROL.findall(sample)) > len(sample) / 100):
        by_script = next((name for name in WIDE if _in_one_script(sample, name)), None)
        if by_script is not None:
            return ENCODINGS[by_script]
        if not _every_other_is_nul(sample):
            return None
        wide = True
    narrow = None if wide else [name for name in ENCODINGS if not name.startswith("utf")]
    for found in detect_all(sample, compat_names=False, include_encodings=narrow):
        if found["confidence"] <= UNSURE and not wide and _a_few_western(sample):
            return ENCODINGS["iso8859-15" if _EURO.fullmatch(sample) else "cp1252"]
        if found["encoding"] not in ENCODINGS:
            return None
        text = sample.decode(found["encoding"], "ignore")  # it may end within a character
        if len(_TWO_SCRIPTS.findall(text)) > 0.02 * sum(not one.isascii() for one in text):
            continue
        shown = sum(one.isprintable() or one.isspace() for one in text)
        if shown < 0.99 * len(text):
            return None
        # The sign of all currencies, which nobody writes, is that of the euro in another part.
        euro = found["encoding"] in ("cp1252", "iso8859-1") and _EURO.fullmatch(sample)
        return ENCODINGS["iso8859-15" if euro else found["encoding"]]
    return None


def not_utf8(path: Path, place: str, sample: bytes, line: int | None = None) -> UserError:
    """What is said of a file.

    Args:
      place: of the first byte that is wrong, as in "at byte 7", in the file or in its `line`.
      sample: about SAMPLE bytes around it; from the start of a character on.
    """
    where = path if line is None else f"{path}, line {line}"
    read = sample.decode("utf-8", errors="replace")
    wrong = read.count("\ufffd")
    if sum(not one.isascii() for one in read) > 2 * wrong:
        return UserError(f"{where}: damaged, not UTF-8 {place}; expected UTF-8 text")
    encoding = named(sample)
    if encoding is None:
        return UserError(f"{where}: binary, not UTF-8 {place}; expected UTF-8 text")
    return _other(path, f"{where}: not UTF-8 {place}", encoding)


def require_unescaped(
    path: Path, text: str, data: bytes, line: int | None = None, offset: int = 0
) -> None:
    """UserError for text that is ASCII only to look at: in one of the encodings ESCAPED.

    Args:
      text: some of it.
      data: the same with what stands around it.
      line: its number, if the text is a line of the file; else
      offset: of the data in the file, in bytes.
    """
    for begins, encodings in ESCAPED.items():
        if begins not in text:
            continue
        at = data.find(begins.encode())
        sample = around(data, at)
        for codec, encoding in encodings.items():
            if _is_escaped(sample, codec):
                place = f", byte {offset + at}" if line is None else f", line {line}"
                raise _other(path, f"{path}{place}: codes of another encoding", encoding)


def _is_escaped(sample: bytes, codec: str) -> bool:
    if not codec.startswith("iso2022"):
        return _in_one_script(sample, codec, FEW_ESCAPED)
    try:
        text = codecs.getincrementaldecoder(codec)().decode(sample)  # it may end in a character
    except UnicodeDecodeError:
        return False
    return (codec == "iso2022_kr" and _KOREAN in sample) or not text.isascii()


def _other(path: Path, found: str, encoding: str) -> UserError:
    unpack = {".gz": "gzip -dc", ".xz": "xz -dc"}.get(path.suffix.lower())
    name = visible(shlex.quote(str(path)))
    convert = f"iconv -f {encoding} -t UTF-8"
    if encoding == "HZ":  # which many an iconv does not know
        convert = f'python -c \'print(open(0, encoding="{encoding}").read(), end="")\''
        unpack = unpack or "cat"
    command = f"{unpack} {name} | {convert}" if unpack else f"{convert} {name}"
    return UserError(f"{found}; it looks like {encoding}; convert it: {command} > NEW")


def around(data: bytes, at: int) -> bytes:
    """The sample of `data` around a byte: whole lines where they are short enough."""
    start = max(0, at - SAMPLE // 2)
    if start:
        line = data.find(b"\n", start, at) + 1
        start = line or start
    return data[start : start + SAMPLE]


def read_around(file: BinaryIO, at: int) -> bytes:
    """The sample of a file around a byte; other lines tell a file in another encoding from one that
    is damaged in a line."""
    start = max(0, at - SAMPLE)
    file.seek(start)
    return around(file.read(2 * SAMPLE), at - start)


def _every_other_is_nul(sample: bytes) -> bool:
    """As in text of two or four bytes a character, at least that with spaces and line ends."""
    halves = [sample[start::2].count(0) for start in (0, 1)]
    return sum(halves) > len(sample) / 10 and max(halves) > 0.6 * sum(halves)


def _in_one_script(sample: bytes, encoding: str, few: int = FEW_CHARACTERS) -> bool:
    """Whether so decoded the sample is text: letters of one script beside ASCII, and marks."""
    try:
        text = codecs.getincrementaldecoder(encoding)().decode(sample)
    except UnicodeDecodeError:
        return False
    scripts: Counter[str] = Counter()
    others = 0
    for one in text:
        if unicodedata.category(one)[0] in "LM" and not one.isascii():
            script = unicodedata.name(one, "").partition(" ")[0]
            scripts["CJK" if script in _EAST_ASIAN else script] += 1
        elif one in "\t\n\r" or (one.isprintable() and unicodedata.category(one) != "So"):
            others += 1
    letters = max(scripts.values(), default=0)
    one_script = letters >= max(few, 0.98 * scripts.total())
    return one_script and others > 0 and letters + others >= 0.98 * len(text)


def _a_few_western(sample: bytes) -> bool:
    """Whether what is not ASCII are a few letters or marks of Western print, as most such files
    have them, between others."""
    try:
        text = sample.decode("cp1252")
    except UnicodeDecodeError:
        return False
    foreign = [one for one in text if not one.isascii()]
    shown = all(one.isprintable() or one.isspace() for one in foreign)
    return shown and len({*foreign}) <= A_FEW and len(foreign) <= len(text) / 2
