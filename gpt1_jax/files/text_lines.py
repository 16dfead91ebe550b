"""Files as they lie on a disk: packed or not, fetched or not, and lines of text in them.

Text is UTF-8, or UTF-16 with its byte order mark, as spreadsheets save it; it may be packed, .gz or
.xz.
"""

import codecs
import contextlib
import gzip
import io
import lzma
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from gpt1_jax import disk
from gpt1_jax.errors import UserError
from gpt1_jax.files import text_encoding

PIPE = "is a pipe or a device, which is read only once; save it to a file first"
PACKED = (".gz", ".xz")
# What begins like this, also where it should be packed, stands for a file that was never fetched.
POINTERS = {
    b"version https://git-lfs": "a pointer of Git LFS, not the file; fetch it by git lfs pull",
    b"/annex/objects/": "a pointer of git-annex, not the file; fetch it by git annex get",
}
LONGEST_POINTER = max(map(len, POINTERS))


def plain_suffix(path: Path) -> str:
    """The suffix in small letters, that of the packing aside."""
    name = path.name.lower()
    for packing in PACKED:
        name = name.removesuffix(packing)
    return Path(name).suffix


@contextlib.contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """The unpacked bytes of a file. UserError where they cannot be read."""
    if path.is_fifo() or path.is_char_device():  # to open one may be to wait for its writer
        raise UserError(f"{path} {PIPE}")
    packing = path.suffix.lower()
    opener: Any = {".gz": gzip.open, ".xz": lzma.open}.get(packing)
    try:
        with disk.opened(path) as packed:
            beginning = packed.read(LONGEST_POINTER)
            for pointer, what in POINTERS.items():
                if beginning.startswith(pointer):
                    raise UserError(f"{path} is {what}")
            packed.seek(0)
            if opener is None:
                yield packed
                return
            with opener(packed, "rb") as file:
                yield file
    except (EOFError, gzip.BadGzipFile, lzma.LZMAError, zlib.error) as error:
        raise UserError(
            f"{path}: damaged or cut off ({error}); expected a whole {packing} file"
        ) from None
    except IsADirectoryError:
        raise UserError(f"{path} is a folder; expected a file in it") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from None


def text_lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of a text with their numbers and ends; a byte order mark is no part of it.
    UserError for a line that is no text."""
    with opened(path) as file:
        mark = file.read(4)
        if mark in (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE):
            raise _binary(path, 1)
        if mark[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
            file.seek(0)
            yield from _decoded_lines(path, file, "utf-16")
            return
        file.seek(0)
        offset = 0
        for number, data in enumerate(file, 1):
            try:
                line = data.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                place = f"at byte {error.start}"
                sample = text_encoding.read_around(file, offset + error.start)
                raise text_encoding.not_utf8(path, place, sample, number) from None
            offset += len(data)
            if "\0" in line:
                raise _binary(path, number)
            text_encoding.require_unescaped(path, line, data, number)
            yield number, line


def _binary(path: Path, number: int) -> UserError:
    """What is said of a line with a NUL, and of text with several bytes for each character."""
    with opened(path) as file:
        sample = file.read(text_encoding.SAMPLE)
    if text_encoding.named(sample) is None:
        return UserError(f"{path}, line {number}: binary (a NUL); expected UTF-8 text")
    return text_encoding.not_utf8(path, "at byte 0", sample)


def _decoded_lines(path: Path, file: BinaryIO, encoding: str) -> Iterator[tuple[int, str]]:
    number = 0
    try:
        with io.TextIOWrapper(file, encoding, newline="\n") as text:
            for number, line in enumerate(text, 1):
                yield number, line
    except UnicodeDecodeError:
        raise UserError(f"{path}, line {number + 1}: not UTF-16; save the file as UTF-8") from None


def first_line(path: Path) -> str:
    """The first line with something on it, without white space around it."""
    stripped = (line.strip() for _, line in text_lines(path))
    return next((line for line in stripped if line), "")
