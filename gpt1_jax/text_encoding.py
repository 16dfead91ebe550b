"""Bytes that are not UTF-8: text in another encoding, with the command that converts it, or none.

charset-normalizer guesses the encoding from what it has seen of languages. It is asked about those
that files of text still come in: among all that Python knows it takes short Western texts for
Baltic ones.
"""

import codecs
import re
import shlex
from pathlib import Path

from gpt1_jax.errors import UserError
from gpt1_jax.messages import visible

# Python's names and those of iconv, the more usual ones first: they win where texts fit several.
ENCODINGS = {
    "utf_16": "UTF-16",
    "utf_32": "UTF-32",
    "utf_16_le": "UTF-16LE",
    "utf_16_be": "UTF-16BE",
    "utf_32_le": "UTF-32LE",
    "utf_32_be": "UTF-32BE",
    "cp1252": "WINDOWS-1252",
    "cp1250": "WINDOWS-1250",
    "cp1251": "WINDOWS-1251",
    "koi8_r": "KOI8-R",
    "cp866": "IBM866",
    "cp1253": "WINDOWS-1253",
    "cp1254": "WINDOWS-1254",
    "cp1255": "WINDOWS-1255",
    "cp1256": "WINDOWS-1256",
    "mac_roman": "MACINTOSH",
    "gb18030": "GB18030",
    "big5": "BIG5",
    "cp932": "CP932",
    "euc_jp": "EUC-JP",
    "euc_kr": "EUC-KR",
    "cp949": "CP949",
}
CLOSE = 0.1  # shares of the letters that a language has, between which nothing can be told
SAMPLE = 2**14  # bytes that are looked at
_CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f]")


def named(sample: bytes) -> str | None:
    """The encoding of a piece of text, as iconv calls it; None if it is no text."""
    from charset_normalizer import from_bytes

    marked = sample.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_BE))
    wide = marked or _every_other_is_nul(sample)
    if not wide and (b"\0" in sample or len(_CONTROL.findall(sample)) > len(sample) / 100):
        return None
    candidates = [name for name in ENCODINGS if name.startswith("utf") == wide]
    matches = from_bytes(sample, cp_isolation=candidates, enable_fallback=False)
    best = matches.best()
    if best is None:
        # A word or two say nothing of their language; most such files are Western.
        return ENCODINGS["cp1252"] if not wide and _western(sample) else None
    text = str(best)
    if sum(one.isprintable() or one.isspace() for one in text) < 0.99 * len(text):
        return None
    equals = [
        name
        for match in matches
        if match.chaos <= best.chaos and match.coherence > best.coherence - CLOSE
        for name in match.could_be_from_charset
    ]
    return next(iconv for name, iconv in ENCODINGS.items() if name in equals)


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
    unpack = {".gz": "gzip -dc", ".xz": "xz -dc"}.get(path.suffix.lower())
    name = visible(shlex.quote(str(path)))
    convert = f"iconv -f {encoding} -t UTF-8"
    command = f"{unpack} {name} | {convert}" if unpack else f"{convert} {name}"
    return UserError(
        f"{where}: not UTF-8 {place}; it looks like {encoding}; convert it: {command} > NEW"
    )


def around(data: bytes, at: int) -> bytes:
    """The sample of `data` around a byte: whole lines where they are short enough."""
    start = max(0, at - SAMPLE // 2)
    if start:
        line = data.find(b"\n", start, at) + 1
        start = line or start
    return data[start : start + SAMPLE]


def _every_other_is_nul(sample: bytes) -> bool:
    """As in text of two or four bytes a character, at least that with spaces and line ends."""
    halves = [sample[start::2].count(0) for start in (0, 1)]
    return sum(halves) > len(sample) / 10 and max(halves) > 0.6 * sum(halves)


def _western(sample: bytes) -> bool:
    """Whether all that is not ASCII are letters or marks of Western print, between letters."""
    try:
        text = sample.decode("cp1252")
    except UnicodeDecodeError:
        return False
    foreign = [one for one in text if not one.isascii()]
    return all(one.isprintable() for one in foreign) and len(foreign) <= len(text) / 2
