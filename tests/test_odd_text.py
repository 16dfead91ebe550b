"""Text as people have it: `prepare` reads it rightly or refuses it in one line, and says which."""

import bz2
import csv
import gzip
import json
import os
import shlex
import subprocess
import sys
import time

import pyarrow
import pytest
from pyarrow import parquet

from gpt1_jax.__main__ import main
from gpt1_jax.text.config import PrepareConfig
from gpt1_jax.text.inputs import find_inputs
from gpt1_jax.text.shards import Tokens
from gpt1_jax.text.workplace import check_apart
from gpt1_jax.tokenization.loading import load

DOCUMENTS = [f"the {['cat', 'dog'][n % 2]}, number {n}, sat on a mat." for n in range(20)]
BOOK = "\n".join(DOCUMENTS) + "\n"
ROWS = [{"body": document, "year": 1900} for document in DOCUMENTS]
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:5e5e\nsize 431207\n"


def lines(rows, **keys) -> str:
    return "".join(json.dumps({keys.get(k, k): v for k, v in row.items()}) + "\n" for row in rows)


def table(path, rows=ROWS, **dialect) -> None:
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), **dialect)
        writer.writeheader()
        writer.writerows(rows)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def prepare(capfd, *words):
    """The exit status, the last line of standard output as JSON, and standard error."""
    capfd.readouterr()
    status = main(["prepare", "--output=t", "--vocab_size=300", "--workers=1", *words])
    found = capfd.readouterr()
    return status, json.loads(found.out) if found.out else None, found.err


def refused(capfd, folder, *words) -> str:
    status, result, err = prepare(capfd, *words)
    assert (status, result) == (2, None)
    assert not (folder / "t").exists()
    (complaint,) = [line for line in err.splitlines() if line.startswith("gpt1: ")]
    assert "Traceback" not in err
    return complaint


def training_text() -> str:
    tokens = Tokens.open("t", "train")
    return load("t/tokenizer").decode(tokens.read(0, len(tokens)))


def write_parquet(path):
    parquet.write_table(pyarrow.Table.from_pylist(ROWS), path)


TABLES = {
    "rows.csv": table,
    "rows.tsv": lambda path: table(path, delimiter="\t"),
    "rows.parquet": write_parquet,
    "rows.json": lambda path: path.write_text(json.dumps(ROWS, indent=1)),
    "lines.json": lambda path: path.write_text(lines(ROWS)),
    "rows.jsonl.gz": lambda path: path.write_bytes(gzip.compress(lines(ROWS).encode())),
    # Rows whose name does not say so.
    "csv.txt": table,
    "tsv.txt": lambda path: table(path, delimiter="\t"),
    "json.txt": lambda path: path.write_text(lines(ROWS)),
}


@pytest.mark.parametrize("name", TABLES)
def test_a_table_is_read_by_rows_once_its_column_is_named(folder, capfd, name):
    TABLES[name](folder / name)
    complaint = refused(capfd, folder, f"--input={name}")
    assert name in complaint
    assert "body" in complaint
    assert "--text_key" in complaint
    status, result, err = prepare(capfd, f"--input={name}", "--text_key=body", "--valid_fraction=0")
    assert status == 0
    assert f"{name}: " in err
    assert "a document a row, column body" in err
    assert result["splits"]["train"]["documents"] == len(DOCUMENTS)
    assert training_text() == "".join(DOCUMENTS)


def test_rows_of_json_have_their_text_in_the_usual_column(folder, capfd):
    (folder / "corpus.json").write_text(lines(ROWS, body="text"))
    (folder / "book.txt").write_text(BOOK)
    status, result, err = prepare(capfd, "--input", "corpus.json", "book.txt")
    assert status == 0
    assert "1 text file, a document each; corpus.json: JSON lines, a document a row" in err
    assert sum(split["documents"] for split in result["splits"].values()) == 21


def test_a_column_that_is_not_there_is_refused(folder, capfd):
    table(folder / "rows.csv")
    complaint = refused(capfd, folder, "--input=rows.csv", "--text_key=bodi")
    assert "no column bodi; it has body, year; did you mean body?" in complaint
    (folder / "book.txt").write_text(BOOK)
    assert "--text_key=body: no table is" in refused(
        capfd, folder, "--input=book.txt", "--text_key=body"
    )


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (POINTER.encode(), "a pointer of Git LFS"),
        (b"/annex/objects/SHA256E-s431207--5e5e.txt\n", "a pointer of git-annex"),
        (b"<!DOCTYPE html>\n<html><head><title>404</title></head></html>", "markup"),
        (b"Once upon a time.\n" * 12 + b"\0\n" + b"The end.\n" * 12, "binary (a NUL at byte 216)"),
        (b"\xef\xbb\xbf<?xml version='1.0'?>\n<book>Once</book>", "markup"),
        (b'<doc id="12" url="there" title="Anarchism">\nText.\n</doc>\n', "markup"),
        (b"404: Not Found", "error message of a server"),
        (b"Entry not found\n", "error message of a server"),
        (b"%PDF-1.7\n1 0 obj", "a page in print"),
        (b"{\\rtf1\\ansi text}", "RTF"),
        (b"PK\x03\x04word/document.xml", "office program"),
        (b"1\r\n00:00:01,000 --> 00:00:04,000\r\nHello there.\r\n", "subtitles"),
        (b"WEBVTT\n\n00:01.000 --> 00:04.000\nHello there.\n", "subtitles"),
        (b"0:00:01.000,0:00:04.000\nHello there.\n", "subtitles"),
        (b"{0}{25}Hello there.\n{30}{60}And here.\n", "subtitles"),
        (b"[ti:A song]\n[00:12.00]Hello there.\n", "subtitles"),
        (gzip.compress(BOOK.encode()), "packed by gzip"),
        (bz2.compress(BOOK.encode()), "packed by bzip2"),
    ],
)
def test_what_stands_in_place_of_a_book_is_refused(folder, capfd, data, said):
    (folder / "first.txt").write_text(BOOK)
    (folder / "second.txt").write_bytes(data)
    complaint = refused(capfd, folder, "--input=*.txt")
    assert "second.txt" in complaint
    assert said in complaint


def test_a_link_to_nothing_is_no_book_that_may_be_left_out(folder, capfd):
    (folder / "first.txt").write_text(BOOK)
    (folder / "second.txt").symlink_to(".git/annex/objects/5e5e")
    assert "second.txt is a link to .git/annex" in refused(capfd, folder, "--input=*.txt")


def test_a_pointer_in_place_of_a_packed_book_is_refused(folder, capfd):
    (folder / "book.txt.xz").write_text(POINTER)
    assert "a pointer of Git LFS" in refused(capfd, folder, "--input=book.txt.xz")


def test_empty_books_are_left_out_by_name(folder, capfd):
    for name, text in (("a.txt", BOOK), ("b.txt", ""), ("c.txt", " \n"), ("d.txt", BOOK[::-1])):
        (folder / name).write_text(text)
    status, result, err = prepare(capfd, "--input=*.txt", "--valid_fraction=0")
    assert status == 0
    assert "2 empty documents left out: b.txt, c.txt" in err
    assert result["splits"]["train"]["documents"] == 2


@pytest.mark.parametrize(
    "start",
    [
        "a < b, and so on.\n",
        "<|endoftext|>\n",
        "{x} is a set.\n",
        "sigh, no more\n" * 5,
        "404\n",
        "1\n\nIn which 10:30 strikes.\n",
        "[12:30] Ann: hello\n",
        "\x1b[31mred\x1b[0m, and \x1b$ alone\n",
    ],
)
def test_text_that_only_begins_like_something_else_is_text(folder, capfd, start):
    (folder / "book.txt").write_text(start + BOOK)
    status, _, err = prepare(capfd, "--input=book.txt", "--valid_fraction=0")
    assert status == 0, err
    assert training_text() == start + BOOK


def test_a_name_that_is_not_utf8(folder, capfd):
    with open(os.fsencode(folder) + b"/caf\xe9.txt", "w") as file:
        file.write(BOOK)
    for _ in range(2):  # the second finds it prepared
        status, result, _ = prepare(capfd, "--input=caf*.txt")
        assert status == 0
    assert result["splits"]["train"]["documents"] == 1


IN_C = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "given"),
    [
        (["inspect", "--output=look.html", "--num_samples=1", "--length=3", "--prompt="], "Он"),
        pytest.param(
            *(["sample", "--num_samples=1", "--length=3", "--prompt="], "the café"),
            marks=pytest.mark.exhaustive,
        ),
        pytest.param(
            *(["score", "--input=rows.jsonl", "--output=out", "--text_key="], "日本"),
            marks=pytest.mark.exhaustive,
        ),
    ],
)
def test_a_text_on_the_command_line_is_utf8_in_any_locale(folder, pretrained, words, given):
    (folder / "rows.jsonl").write_text(json.dumps({given: "the cat"}) + "\n")
    command = [sys.executable, "-m", "gpt1_jax", *words, f"--workdir={pretrained}"]
    command[-2] += given
    done = subprocess.run(command, capture_output=True, env=os.environ | IN_C)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]).get("prompt", given) == given


def test_a_text_on_the_command_line_that_is_not_utf8(pretrained, capfd):
    prompt = os.fsdecode("café".encode("latin-1"))
    assert main(["sample", f"--workdir={pretrained}", f"--prompt={prompt}"]) == 2
    assert "--prompt: byte 3 is E9, which is not UTF-8" in capfd.readouterr().err


def test_an_uneven_division_is_said(folder, capfd):
    (folder / "one.txt").write_text(BOOK)
    (folder / "two.txt").write_text(BOOK[:600])
    status, result, err = prepare(capfd, "--input=*.txt")
    assert status == 0
    counts = {name: split["characters"] for name, split in result["splits"].items()}
    share = counts["valid"] / sum(counts.values())
    assert f"valid gets {share:.0%} of the text rather than 1%" in err
    (folder / "three.txt").write_text(BOOK * 99)
    status, _, err = prepare(capfd, "--input=three.txt", "--output=u")
    assert status == 0
    assert "valid gets" not in err


@pytest.mark.slow
def test_the_start_of_many_files_is_linear(folder):
    """Until the first document is read, in the time of the processor, which others do not take: ten
    times as many files take ten times as long, where each beside each would take a hundred."""

    def seconds(many: int) -> float:
        place = folder / str(many)
        place.mkdir()
        for number in range(many):
            (place / f"{number}.txt").write_text(f"Book {number}.\n")
        config = PrepareConfig(output="t", inputs=(f"{many}/*.txt",))
        began = time.process_time()
        found = find_inputs(config, None, None)
        check_apart(folder / "t", found.paths)
        name, blocks = next(found.train.documents())
        taken = time.process_time() - began
        assert (name, "".join(blocks)) == ("0.txt", "Book 0.\n")
        return taken

    few = seconds(1_000)
    assert seconds(10_000) < 30 * few


# Encodings

FRENCH = "Le garçon était déjà à l'école ; il a mangé une crêpe là-bas.\n" * 9
CZECH = "Byl už večer a děti šly domů. Příliš žluťoučký kůň úpěl ďábelské ódy.\n" * 9
RUSSIAN = "Мальчик уже был в школе и ел блины.\n" * 9
HUNGARIAN = "Egyszer volt, hol nem volt, egy szegény ember; három fia volt, és erdőt őriztek.\n" * 9
CHINESE = "他已经在学校吃了煎饼。今天天气很好。\n" * 9
JAPANESE = "昔々あるところに、おじいさんが住んでいました。\n" * 9
KOREAN = "그는 벌써 학교에서 팬케이크를 먹었다. 오늘은 날씨가 좋다.\n" * 9
HINDI = "लड़का पहले से ही स्कूल में था और पैनकेक खा रहा था।\n" * 9
THAI = "เขาอยู่ที่โรงเรียนแล้วและกินแพนเค้ก\n" * 9


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        (FRENCH, "cp1252"),
        (FRENCH, "utf-16"),
        (FRENCH, "utf-16-le"),
        ("caf\xe9 cr\xe8me", "latin-1"),
        (CZECH, "cp1250"),
        (RUSSIAN, "koi8-r"),
        (RUSSIAN, "cp1251"),
        (RUSSIAN, "utf-32"),
        (CHINESE, "gb18030"),
        (HUNGARIAN, "cp1250"),
        (HUNGARIAN, "iso8859-2"),
        ("Bir varmış bir yokmuş, padişahın üç güzel kızı varmış.\n" * 9, "cp1254"),
        ("Жив собі дід та баба, і була в них її курочка.\n" * 9, "koi8-u"),
        (FRENCH, "cp850"),
        (RUSSIAN, "mac-cyrillic"),
        (CZECH, "mac-latin2"),
        (BOOK * 3, "cp500"),
        ("Le prix était de 5 € déjà.\n" * 9, "iso8859-15"),
        (JAPANESE, "shift_jis"),
        # All ASCII to look at, with codes that switch.
        (JAPANESE, "iso2022_jp"),
        ("x" * 20_000 + "\n" + JAPANESE, "iso2022_jp"),
        ("ｱﾒﾘｶ " + JAPANESE, "iso2022_jp_ext"),
        (KOREAN, "iso2022_kr"),
        ("1 + 1 ~ 2\n" + FRENCH, "utf-7"),
        ("x" * 20_000 + "\n" + RUSSIAN, "utf-7"),
        (CHINESE, "utf-7"),
        (CHINESE, "hz"),
        ("a ~ b\n" + CHINESE, "hz"),
        # Hardly a NUL, and no mark that says what it is.
        (CHINESE, "utf-16-le"),
        (JAPANESE, "utf-16-be"),
        (HINDI, "utf-16-le"),
        (THAI, "utf-16-be"),
        (CHINESE, "utf-32-le"),
        # Short.
        ("他已经在学校吃了煎饼。", "utf-16-le"),
        ("Он уже был в школе", "utf-16-be"),
        ("เขาอยู่ที่โรงเรียน\n", "utf-16-le"),
        ("Déjà vu", "utf-16-le"),
        ("ab\xa0c", "latin-1"),
        ("彼はもう学校にいて、パンケーキを食べた。\n" * 9, "shift_jis"),
        ("x" * 200 + "\n" + BOOK * 30 + FRENCH, "cp1252"),
    ],
)
def test_another_encoding_is_named_with_the_command_that_converts_it(folder, capfd, text, encoding):
    name = "book.txt.gz" if encoding in ("utf-16", "koi8-r") else "it's.txt"
    data = text.encode(encoding)
    (folder / name).write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    complaint = refused(capfd, folder, f"--input={name}")
    command = complaint.split("convert it: ")[1].removesuffix(" > NEW")
    assert shlex.split(command)
    done = subprocess.run(command, shell=True, capture_output=True, check=True)
    assert done.stdout.decode().removeprefix("\ufeff") == text


@pytest.mark.parametrize(
    "data", [b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes(range(256)) * 9, bytes(range(128, 256)) * 20]
)
def test_binary_is_called_binary(folder, capfd, data):
    (folder / "book.txt").write_bytes(data)
    assert "binary" in refused(capfd, folder, "--input=book.txt")


def test_signs_that_begin_codes_elsewhere_are_signs(folder, capfd):
    words = "C++ and a+b are ~{x}, +49-30 is Berlin, 1+1=2, +AOk- is é, ~} ~~ q=+Zm9vYmFy+-\n"
    (folder / "book.txt").write_text(words * 40)
    (folder / "rows.jsonl").write_text("".join(json.dumps({"text": words}) + "\n" for _ in "123"))
    status, result, err = prepare(capfd, "--input", "book.txt", "rows.jsonl")
    assert status == 0, err
    assert result["splits"]


def test_utf8_with_a_wrong_byte_is_called_damaged(folder, capfd):
    (folder / "book.txt").write_bytes(RUSSIAN.encode() + b"\xff" + RUSSIAN.encode())
    complaint = refused(capfd, folder, "--input=book.txt")
    assert f"damaged, not UTF-8 at byte {len(RUSSIAN.encode())}" in complaint
