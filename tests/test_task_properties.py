"""Whatever a file of rows holds, reading it succeeds or ends in one line, and what a table says
does not depend on the kind of file that says it.

    pytest tests/test_task_properties.py --hypothesis-profile=long        looks further
"""

import csv
import io
import json
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt1_jax.data.columns import required_keys
from gpt1_jax.data.task_loading import TaskConfig, load_task
from gpt1_jax.data.tasks import FIELDS, TASKS
from gpt1_jax.errors import UserError

SUFFIXES = (".jsonl", ".json", ".csv", ".tsv", ".parquet", ".csv.gz", ".jsonl.xz")
METRICS = ("accuracy", "f1", "matthews", "pearson")
LABELS = (0, 1, 2, -1, "0", "yes", "no ", "YES", "-", "", None, True, 1.0, 0.5, [1], {"a": 1})

cells = st.text(max_size=8) | st.sampled_from(LABELS) | st.floats() | st.integers()
keys = st.sampled_from([key for shape in FIELDS for key in (*required_keys(shape), "label")])
objects = st.dictionaries(keys | st.text(max_size=3), cells | st.lists(cells, max_size=3))
# Bytes that look as if they were one of the kinds, and others.
PIECES = (
    *(
        b"text",
        b"label",
        b",",
        b"\t",
        b";",
        b"\n",
        b"\r\n",
        b"\r",
        b'"',
        b'""',
        b"{",
        b"}",
        b"[",
        b"]",
    ),
    *(
        b'"text": "a"',
        b'"label": 0',
        b"\xef\xbb\xbf",
        b"\xff\xfe",
        b"\0",
        b"\xe9",
        b"PAR1",
        b"sep=;",
    ),
    *(b'{"text": "a", "label": 0}\n', b"a,0\n", b"b,1\n", b"text,label\n", b"text\tlabel\n"),
)
pieces = st.sampled_from(PIECES)
contents = st.binary(max_size=200) | st.lists(pieces, max_size=30).map(b"".join)


def outcome(suffix: str, data: bytes, config: dict):
    """The task of a folder whose train and dev are this; None where it is refused in a line."""
    folder = Path(tempfile.mkdtemp(prefix="gpt1-property-"))
    message = ""
    try:
        for split in ("train", "dev"):
            (folder / f"{split}{suffix}").write_bytes(data)
        return load_task(TaskConfig(path=str(folder), **config))
    except UserError as error:
        message = str(error)
    finally:
        shutil.rmtree(folder)
    assert message
    assert "\n" not in message
    return None


def check(loaded) -> None:
    """What holds of every task that was read."""
    if loaded is None:
        return
    for split, examples in loaded.splits.items():
        assert examples
        for example in examples:
            assert len(example.texts) == len(FIELDS[loaded.task.shape])
            "".join((*example.texts, *example.choices)).encode()
        if loaded.labels and loaded.targets(split) is not None:
            assert set(loaded.targets(split).tolist()) <= set(range(len(loaded.labels)))
    assert not any("\n" in line for line in (*loaded.notes, *loaded.describe()))


configs = st.builds(
    lambda name, shape, metric, columns: (
        ({"name": name} if name else {"shape": shape, "metric": metric})
        | ({"columns": columns} if columns else {})
    ),
    st.none() | st.sampled_from(sorted(TASKS)),
    st.sampled_from(sorted(FIELDS)),
    st.sampled_from(METRICS),
    st.none() | st.lists(st.sampled_from(["text:a", "label:text", "x", "label:"])).map(tuple),
)


@given(st.sampled_from(SUFFIXES), contents, configs)
def test_any_bytes_are_read_or_refused_in_a_line(suffix, data, config):
    check(outcome(suffix, data, config))


@given(st.sampled_from([".jsonl", ".json"]), st.lists(objects, min_size=1, max_size=6), configs)
def test_any_rows_are_read_or_refused_in_a_line(suffix, rows, config):
    lines = [json.dumps(row) for row in rows]
    data = "[" + ",".join(lines) + "]" if suffix == ".json" else "\n".join(lines)
    check(outcome(suffix, data.encode(), config))


texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r"), min_size=1)
tables = st.lists(
    st.fixed_dictionaries({"text": texts.filter(str.strip), "label": st.sampled_from(["a", "b"])}),
    min_size=1,
    max_size=5,
)


@given(tables, st.sampled_from([",", ";", "\t"]), st.booleans(), st.sampled_from(["\n", "\r\n"]))
def test_a_table_is_the_same_in_all_kinds_of_file(rows, separator, marked, line_end):
    file = io.StringIO()
    quoting = csv.QUOTE_ALL  # as a spreadsheet may, too
    writer = csv.DictWriter(
        file, ["text", "label"], delimiter=separator, lineterminator=line_end, quoting=quoting
    )
    writer.writeheader()
    writer.writerows(rows)
    config = {"shape": "classification", "metric": "accuracy", "labels": ("a", "b")}
    kinds = {
        ".jsonl": "\n".join(json.dumps(row) for row in rows),
        ".json": json.dumps(rows, indent=1),
        ".csv": "\ufeff" * marked + file.getvalue(),
    }
    found = [outcome(suffix, data.encode(), config) for suffix, data in kinds.items()]
    expected = [(row["text"], "ab".index(row["label"])) for row in rows]
    for loaded in found:
        assert loaded is not None
        assert [(e.texts[0], e.label) for e in loaded.splits["dev"]] == expected


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_an_empty_file(suffix):
    assert outcome(suffix, b"", {"shape": "classification", "metric": "accuracy"}) is None
