"""Tables as people have them: what a task is when it comes as CSV, TSV, JSON or Parquet."""

import csv
import gzip
import io
import json
import lzma

import pyarrow
import pytest
from pyarrow import parquet

from gpt1_jax.data.task_loading import TaskConfig, load_task
from gpt1_jax.errors import UserError
from gpt1_jax.files.table_files import open_table

OWN = {"shape": "classification", "metric": "accuracy"}
TEXTS = ('She said "no",\nand left.', "plain", 'a "b', "x;\ty", "Ünïcode, it is", "six")
ROWS = [{"text": text, "label": "yes" if n % 2 else "no"} for n, text in enumerate(TEXTS)]


def as_csv(rows, **dialect) -> str:
    file = io.StringIO()
    writer = csv.DictWriter(file, list(rows[0]), **({"lineterminator": "\n"} | dialect))
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()


def task_of(folder, name, data, **config):
    """What is loaded of a folder whose train and dev are files of this name, with these data."""
    folder.mkdir(exist_ok=True)
    for split in ("train", "dev"):
        data = data if isinstance(data, bytes) else data.encode()
        (folder / f"{split}{name}").write_bytes(data)
    return load_task(TaskConfig(path=str(folder), **(OWN | config)))


def fails(match, folder, name, data, **config):
    with pytest.raises(UserError, match=match) as caught:
        task_of(folder, name, data, **config)
    assert "\n" not in str(caught.value)


def read(loaded, split="dev"):
    return [(e.texts[0], loaded.labels[e.label]) for e in loaded.splits[split]]


EXPECTED = [(row["text"], row["label"]) for row in ROWS]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS)


def as_parquet(rows) -> bytes:
    sink = pyarrow.BufferOutputStream()
    parquet.write_table(pyarrow.Table.from_pylist(rows), sink)
    return sink.getvalue().to_pybytes()


@pytest.mark.parametrize(
    ("name", "data", "kind"),
    [
        (".csv", as_csv(ROWS), "CSV"),
        # What spreadsheets write: a mark, other line ends, semicolons, a note to them, UTF-16.
        (".csv", "\ufeff" + as_csv(ROWS, lineterminator="\r\n"), "CSV"),
        (".csv", as_csv(ROWS, delimiter=";"), "CSV with semicolons between columns"),
        (".csv", "sep=;\r\n" + as_csv(ROWS, delimiter=";"), "CSV with semicolons between columns"),
        (".csv", as_csv(ROWS, delimiter="\t").encode("utf-16"), "CSV with tabs between columns"),
        (".csv", as_csv(ROWS) + ",\n,\n", "CSV"),
        (".tsv", as_csv(ROWS, delimiter="\t"), "TSV, quotation marks quote"),
        (".json", json.dumps(ROWS), "a JSON list of rows"),
        (".json", json.dumps(ROWS, indent=2), "a JSON list of rows"),
        (".json", LINES, "JSON lines"),
        (".jsonl", json.dumps(ROWS, indent=2), "a JSON list of rows"),
        (".ndjson", LINES, "JSON lines"),
        (".csv", LINES, "JSON lines"),
        (".jsonl", LINES.encode("utf-16"), "JSON lines"),
        (".csv.gz", gzip.compress(as_csv(ROWS).encode()), "CSV"),
        (".json.xz", lzma.compress(json.dumps(ROWS).encode()), "a JSON list of rows"),
        (".parquet", as_parquet(ROWS), "Parquet"),
        (".csv", as_parquet(ROWS), "Parquet"),
    ],
)
def test_the_same_rows_in_every_kind_of_file(tmp_path, name, data, kind):
    loaded = task_of(tmp_path, name, data)
    assert read(loaded) == EXPECTED
    assert loaded.describe()[0] == f"train: 6 examples of {kind}; no 3, yes 3"


def twice_a_column() -> bytes:
    sink = pyarrow.BufferOutputStream()
    parquet.write_table(pyarrow.table([["a"], ["b"]], names=["text", "text"]), sink)
    return sink.getvalue().to_pybytes()


def test_lines_that_end_as_on_the_first_macintosh(tmp_path):
    rows = [row | {"text": row["text"].replace("\n", " ")} for row in ROWS]
    loaded = task_of(tmp_path, ".csv", as_csv(rows, lineterminator="\r"))
    assert read(loaded) == [(row["text"], row["label"]) for row in rows]


def test_quotation_marks_of_a_tsv_file_without_quoting_are_text(tmp_path):
    """Read as quotes they would swallow a row: the first would go on to the mark of the second."""
    data = 'text\tlabel\n"Iron, rusts.\tno\nSo it is "\tyes\n'
    loaded = task_of(tmp_path, ".tsv", data)
    assert read(loaded) == [('"Iron, rusts.', "no"), ('So it is "', "yes")]
    assert "of TSV; no 1" in loaded.describe()[0]


@pytest.mark.parametrize(
    "irregular", ["another\tyes\t", "last\tyes\t\t", "b\tno\n\nlast\tyes\t"], ids=repr
)
def test_an_irregular_line_lets_no_mark_swallow_rows(tmp_path, irregular):
    data = f'text\tlabel\n"Iron, rusts.\tno\nplain one\tyes\nSo it is "\tno\n{irregular}\n'
    loaded = task_of(tmp_path, ".tsv", data)
    texts = [text for text, _ in read(loaded)]
    assert texts[:3] == ['"Iron, rusts.', "plain one", 'So it is "']
    assert len(texts) == 3 + sum(bool(line) for line in irregular.split("\n"))


@pytest.mark.parametrize("text", ['a "good" film', 'two\nlines of "it"', '"'], ids=repr)
def test_a_file_of_glues_columns_that_a_program_saved_again_quotes(tmp_path, text):
    rows = [{"sentence": text, "label": n % 2} for n in range(4)]
    data = as_csv(rows, delimiter="\t", quoting=csv.QUOTE_MINIMAL)
    folder = tmp_path / "sst2"
    folder.mkdir()
    for split in ("train", "dev"):
        (folder / f"{split}.tsv").write_text(data)
    loaded = load_task(TaskConfig("sst2", str(folder), check_counts="off"))
    assert [e.texts[0] for e in loaded.splits["dev"]] == [text] * 4


def test_a_name_has_what_stands_between_columns(tmp_path):
    data = 'id;"text, english";label\n1;a;x\n2;"b;c";y\n'
    loaded = task_of(tmp_path, ".csv", data, columns=("text:text, english",))
    assert read(loaded) == [("a", "x"), ("b;c", "y")]


def test_a_quotation_mark_behind_a_blank_quotes(tmp_path):
    data = 'label, text\npos, "great, really"\nneg, so so\n'
    assert read(task_of(tmp_path, ".csv", data)) == [("great, really", "pos"), ("so so", "neg")]
    kept = 'text,label\n" ""hi"" there",pos\n  two,neg\n'
    assert [text for text, _ in read(task_of(tmp_path, ".csv", kept))] == [' "hi" there', "two"]


def test_what_nobody_sees_makes_no_class(tmp_path):
    data = "text,label\na,good\nb,good\u200b\nc,\ufeffgood\nd,bad\n"
    assert task_of(tmp_path, ".csv", data).labels == ("bad", "good")


def test_the_index_of_a_table_is_a_column(tmp_path):
    loaded = task_of(tmp_path, ".csv", ",text,label,\n7,a,x,\n8,b,y,\n")
    assert read(loaded) == [("a", "x"), ("b", "y")]
    rows = [row for _, row in open_table(tmp_path / "dev.csv").rows()]
    assert rows == [{"": "7", "text": "a", "label": "x"}, {"": "8", "text": "b", "label": "y"}]


def test_values_of_parquet_that_nothing_needs(tmp_path):
    """Times of a billionth of a second, and beyond the years of Python."""
    rows = pyarrow.table(
        {
            "text": ["sun", "rain"],
            "label": ["a", "b"],
            "seen": pyarrow.array([1700000000000000001, 3], pyarrow.timestamp("ns")),
            "took": pyarrow.array([1, 2], pyarrow.duration("ns")),
            "far": pyarrow.array([2**60, 3], pyarrow.timestamp("us")),
        }
    )
    sink = pyarrow.BufferOutputStream()
    parquet.write_table(rows, sink)
    loaded = task_of(tmp_path, ".parquet", sink.getvalue().to_pybytes())
    assert read(loaded) == [("sun", "a"), ("rain", "b")]


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (pyarrow.array([1, 0]).cast(pyarrow.decimal128(38, 0)), (1, 0)),
        (pyarrow.array(["2.00", "3.00"]).cast(pyarrow.decimal128(38, 2)), (2, 3)),
        (pyarrow.array([b"a", b"b"], pyarrow.large_binary()), ("a", "b")),
    ],
)
def test_values_of_parquet_in_the_types_of_databases(tmp_path, labels, expected):
    """Texts as bytes without a word that they are text, labels as decimals."""
    more = pyarrow.array(["0.10", "12345678901234567890.12"]).cast(pyarrow.decimal128(38, 2))
    columns = {"text": ["sün", "rain"], "label": labels, "raw": [b"\xff", b"a"], "more": more}
    columns["text"] = pyarrow.array([text.encode() for text in columns["text"]])
    sink = pyarrow.BufferOutputStream()
    parquet.write_table(pyarrow.table(columns), sink)
    loaded = task_of(tmp_path, ".parquet", sink.getvalue().to_pybytes())
    assert read(loaded) == [("sün", expected[0]), ("rain", expected[1])]
    rows = [row for _, row in open_table(tmp_path / "dev.parquet").rows()]
    assert rows[0]["raw"] == b"\xff"
    assert [str(row["more"]) for row in rows] == ["0.1", "12345678901234567890.12"]


def test_columns_by_other_names(tmp_path):
    rows = [{"id": n, "Review ": row["text"], "stars": n % 2 + 1} for n, row in enumerate(ROWS)]
    columns = ("text:review", "label:stars")
    for name, data in ((".csv", as_csv(rows)), (".jsonl", json.dumps(rows))):
        loaded = task_of(tmp_path / name, name, data, columns=columns)
        assert loaded.labels == (1, 2)
        assert [text for text, _ in read(loaded)] == list(TEXTS)
        assert "text from Review" in loaded.describe()[0]
    # Small and capital letters make no difference.
    loaded = task_of(tmp_path / "capitals", ".csv", "TEXT,Label\na,0\nb,1\n")
    assert read(loaded) == [("a", 0), ("b", 1)]
    hint = r"no key text; .*there is id, Review, stars \(columns=text:NAME of the training says"
    fails(f"train.csv: {hint}", tmp_path / "none", ".csv", as_csv(rows))
    fails("names body, but it has id, Review, stars", tmp_path / "none", ".csv", as_csv(rows),
          columns=("text:body",))  # fmt: skip
    fails(r"txt:Review: .*did you mean text", tmp_path / "none", ".csv", as_csv(rows),
          columns=("txt:Review",))  # fmt: skip
    fails("expected KEY:COLUMN", tmp_path / "none", ".csv", as_csv(rows), columns=("review",))
    fails("line 2: no label; columns=label:NAME", tmp_path / "mistyped", ".csv", as_csv(rows),
          columns=("text:review", "label:star"))  # fmt: skip
    fails("line 2: no label; columns=label:NAME", tmp_path / "unlabelled", ".csv", "text\na\nb\n")


def test_choices_in_columns(tmp_path):
    rows = [{"context": "c", "question": "q", "x": "1", "y": "2", "label": n % 2} for n in range(4)]
    config = {"shape": "multiple_choice"}
    data = as_csv(rows)
    loaded = task_of(tmp_path / "a", ".csv", data, **config, columns=("choices:x|y",))
    assert loaded.splits["dev"][0].choices == ("1", "2")
    assert loaded.targets("dev").tolist() == [0, 1, 0, 1]
    data = data.replace("x,y", "choice 1,choice 2")
    assert task_of(tmp_path / "b", ".csv", data, **config).splits == loaded.splits
    # As `predict` writes a list into a cell.
    cells = [
        {"context": "c", "question": "q", "choices": '["1", "2"]', "label": n % 2} for n in range(4)
    ]
    loaded_cells = task_of(tmp_path / "d", ".csv", as_csv(cells), **config)
    assert loaded_cells.splits == loaded.splits
    fails("no key choices", tmp_path / "c", ".csv", as_csv(rows), **config)


def test_scores_in_a_column_of_text(tmp_path):
    data = "text_a,text_b,label\na,b,3.8\na,c,0\n"
    loaded = task_of(tmp_path, ".csv", data, shape="similarity", metric="pearson")
    assert [e.label for e in loaded.splits["dev"]] == [3.8, 0.0]
    assert loaded.describe()[1] == "dev: 2 examples of CSV; scores 0 to 3.8 of 0 to 5"


@pytest.mark.parametrize(
    ("name", "data", "match"),
    [
        (".csv", 'text,label\n"a,0\nb,1\n', r"train\.csv, line 2: not CSV .*marks in pairs"),
        (".csv", 'text,label\nfine,0\n"a" b,1\n', r"line 3: not CSV"),
        (".csv", "text,label\na,b,0\n", r"line 2: 3 columns, but the header has 2"),
        (".csv", 'text,label\n"a\nb",0\nc,1\n\nd,e,2\n', r"line 6: 3 columns"),
        (".csv", "text,text,label\na,b,0\n", "two columns are called"),
        (".csv", "", "no rows; expected a header"),
        (".csv", "text,label\n", "no examples"),
        (".csv", b"text,label\ncaf\xe9,0\n", r"line 2: not UTF-8 at byte 3; .*iconv"),
        (".csv", "text,label\ncafé,0\nété,1\n".encode() + b"cr\xe8me,0\n", r"line 4: damaged"),
        (".csv", b"text,label\na\0b,0\n", r"line 2: binary"),
        (".csv", "text,label\nsun,0\nrain,1\n".encode("utf-16-le"), "looks like UTF-16LE"),
        (".csv", "text,label\nsun,0\nrain,1\n".encode("utf-32"), "looks like UTF-32"),
        (".csv", ("text,label\n" + "猫が好きです,0\n" * 9).encode("utf-16-be"), "like UTF-16BE"),
        (".csv", "text,label\n猫,0\n犬,1\n".encode("iso2022_jp"), "line 2: .* like ISO-2022-JP;"),
        (".csv", b"\x1b$)Ctext,label\n\x0e0m>g@L\x0f,0\n", "line 1: .* like ISO-2022-KR;"),
        (".jsonl", '{"text": "猫", "label": 0}\n'.encode("iso2022_jp"), "line 1: .*iconv -f ISO-2"),
        (".csv", b"PK\x03\x04rest", "spreadsheet.* save the table as CSV"),
        (".csv", b"version https://git-lfs.github.com/spec/v1\n", "a pointer of Git LFS"),
        (".csv", b"<!DOCTYPE html><p>Not found", "markup"),
        (".parquet", b"PAR1 and no more", "cannot be read as Parquet"),
        (".parquet", twice_a_column(), 'two columns are called "text"'),
        (".parquet", as_parquet([{"text": 1, "label": 0}]), "row 1: text is 1; expected a string"),
        (".json", '{"data": [{"text": "a", "label": 0}]}', r"line 1: no key text"),
        (".json", '{\n"data": []\n}', "expected a JSON list of rows, or a row on each line"),
        (".json", '[{"text": "a", "label": 0} {"text"', r"line 1: not JSON; expected , or \]"),
        (".json", '[{"text": "a", "label": 0},\n{"text"', r"row 2: not JSON"),
        (".json", '[{"text": "a", "label": 0}', r"expected , or \] after row 1"),
        (".json", "[" * 100_000, r"row 1: not JSON"),
        (".json", '[["a", 0]]', r"row 1: \[\"a\", 0\] is not an object"),
        (".csv.gz", b"text,label\n", "damaged or cut off"),
    ],
)  # fmt: skip
def test_what_is_no_table_is_refused_in_a_line(tmp_path, name, data, match):
    fails(match, tmp_path, name, data)


def test_a_split_in_two_kinds_of_file_is_refused(tmp_path):
    task_of(tmp_path, ".csv", as_csv(ROWS))
    fails(r"dev\.csv stands beside dev\.jsonl; keep one", tmp_path, ".jsonl", LINES)


def test_splits_in_capital_letters(tmp_path):
    for name in ("Train.csv", "VALID.CSV"):
        (tmp_path / name).write_text(as_csv(ROWS))
    assert set(load_task(TaskConfig(path=str(tmp_path), **OWN)).splits) == {"train", "dev"}


def test_other_names_of_splits(tmp_path):
    for name in ("train-00000-of-00001", "validation-00000-of-00001", "test-00000-of-00001"):
        (tmp_path / f"{name}.parquet").write_bytes(as_parquet(ROWS))
    (tmp_path / "README.md").write_text("not a split")
    loaded = load_task(TaskConfig(path=str(tmp_path), **OWN))
    assert set(loaded.splits) == {"train", "dev", "test"}
    (tmp_path / "validation-00000-of-00001.parquet").unlink()
    with pytest.raises(UserError, match=r"has no dev\.jsonl \(nor \.ndjson, \.json, \.csv"):
        load_task(TaskConfig(path=str(tmp_path), **OWN))


def many(count=60):
    return [{"text": f"text {n // 2}", "label": "ab"[n % 2]} for n in range(count)]


def test_a_single_file_is_divided_by_its_texts(tmp_path):
    path = tmp_path / "reviews.csv"
    path.write_text(as_csv(many()))
    loaded = load_task(TaskConfig(path=str(path), **OWN))
    assert loaded.task.name == "reviews"
    train, dev = ({e.texts for e in loaded.splits[split]} for split in ("train", "dev"))
    assert (len(loaded.splits["train"]), len(loaded.splits["dev"])) == (54, 6)
    assert not train & dev
    assert loaded.notes == (
        f"{path}: divided into 54 rows for train and 6 for dev by a hash of their texts and "
        "task.split_seed=0",
    )
    # The order of the rows decides nothing; the seed does.
    path.write_text(as_csv(many()[::-1]))
    again = load_task(TaskConfig(path=str(path), **OWN))
    assert {e.texts for e in again.splits["dev"]} == dev
    other = load_task(TaskConfig(path=str(path), split_seed=1, **OWN))
    assert {e.texts for e in other.splits["dev"]} != dev
    whole = load_task(TaskConfig(path=str(path), **OWN), "dev", whole=True)
    assert len(whole.splits["dev"]) == 60


def test_a_class_that_occurs_once_stays_in_train(tmp_path):
    path = tmp_path / "reviews.csv"
    for seed in range(20):
        rows = [row | {"label": n if n < 6 else row["label"]} for n, row in enumerate(many(20))]
        path.write_text(as_csv(rows))
        loaded = load_task(TaskConfig(path=str(path), split_seed=seed, **OWN))
        assert len(loaded.labels) == 8
        assert "train has a single example of the class 3" in loaded.describe()


@pytest.mark.parametrize("written", ["{:.3f}", "{:e}", "+{:.1f}"])
def test_scores_play_no_part_in_the_division(tmp_path, written):
    """Each may occur once, and be in dev alone."""
    scores = [written.format(n / 8) for n in range(40)]
    rows = [{"text_a": f"a {n}", "text_b": "b", "label": score} for n, score in enumerate(scores)]
    path = tmp_path / "s.csv"
    path.write_text(as_csv(rows))
    loaded = load_task(TaskConfig(path=str(path), shape="similarity", metric="pearson"))
    assert [len(loaded.splits[split]) for split in ("train", "dev")] == [36, 4]
    assert {e.label for e in loaded.splits["train"]} <= set(map(float, scores))


def test_a_score_that_is_none_is_named_by_its_line(tmp_path):
    data = "text_a,text_b,label\na,b,3.0\na,c,4.5\na,d,four\n"
    settings = {"shape": "similarity", "metric": "pearson"}
    fails('train.csv, line 4: label is "four"', tmp_path, ".csv", data, **settings)


def test_classes_that_are_read_as_one(tmp_path):
    fails("task.labels keeps such apart", tmp_path, ".csv", "text,label\na,A\nb,a\n")


def test_a_key_is_given_one_column(tmp_path):
    with pytest.raises(UserError, match="names text twice"):
        task_of(tmp_path, ".csv", "a,b,label\nx,y,0\n", columns=("text:a", "text:b"))


@pytest.mark.parametrize(
    ("shape", "columns", "taken"),
    [
        ("multiple_choice", ("choices:x|x", "context:text", "question:more"), "x"),
        ("multiple_choice", ("choices:x|X ", "context:text", "question:more"), "x"),
        ("entailment", ("premise:text", "hypothesis:Text"), "text"),
        ("classification", ("text:label",), "label"),
    ],
)
def test_a_column_is_taken_once(tmp_path, shape, columns, taken):
    data = "text,more,x,y,label\na,b,c,d,0\na,b,c,d,1\n"
    fails(f"train.csv: task.columns=.* takes {taken} twice", tmp_path, ".csv", data,
          shape=shape, columns=columns)  # fmt: skip


def test_a_file_that_cannot_be_divided(tmp_path):
    path = tmp_path / "reviews.csv"
    path.write_text("text,label\na,0\na,1\n")
    with pytest.raises(UserError, match=r"1 different row\(s\), too few for train and dev"):
        load_task(TaskConfig(path=str(path), **OWN))
