"""Folders of tasks as others keep them: pieces of Parquet and Arrow, MRPC's own files."""

import pyarrow
import pytest
from pyarrow import ipc, parquet

from gpt1_jax.data.task_loading import TaskConfig, load_task
from gpt1_jax.errors import UserError

OWN = {"shape": "classification", "metric": "accuracy"}
TRAIN = [{"text": f"review number {n}", "label": n % 2} for n in range(7)]
DEV = [{"text": f"other review {n}", "label": n % 2} for n in range(3)]


def as_parquet(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pyarrow.Table.from_pylist(rows), path)


def as_arrow(path, rows):
    """A stream, as `save_to_disk` writes it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pyarrow.Table.from_pylist(rows)
    with ipc.new_stream(path, table.schema) as stream:
        stream.write_table(table)
    for name in ("dataset_info.json", "state.json"):
        (path.parent / name).write_text("{}")


LAYOUTS = {
    "pieces": {
        "train-00000-of-00002.parquet": TRAIN[:4],
        "train-00001-of-00002.parquet": TRAIN[4:],
        "validation-00000-of-00001.parquet": DEV,
    },
    "data": {
        "data/train-00000-of-00002-0f1e2d3c.parquet": TRAIN[:4],
        "data/train-00001-of-00002-4b5a6978.parquet": TRAIN[4:],
        "data/validation-00000-of-00001-aa00.parquet": DEV,
    },
    "converted": {
        "train/0000.parquet": TRAIN[:4],
        "train/0001.parquet": TRAIN[4:],
        "validation/0000.parquet": DEV,
    },
    "saved": {
        "train/data-00000-of-00002.arrow": TRAIN[:4],
        "train/data-00001-of-00002.arrow": TRAIN[4:],
        "validation/data-00000-of-00001.arrow": DEV,
    },
}


def write(folder, layout):
    for name, rows in LAYOUTS[layout].items():
        (as_arrow if name.endswith(".arrow") else as_parquet)(folder / name, rows)
    return str(folder)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_pieces_of_a_split_are_one(tmp_path, layout):
    loaded = load_task(TaskConfig(path=write(tmp_path, layout), **OWN))
    for split, rows in (("train", TRAIN), ("dev", DEV)):
        found = [(example.texts[0], example.label) for example in loaded.splits[split]]
        assert found == [(row["text"], row["label"]) for row in rows]
    assert "in 2 pieces" in loaded.kinds["train"]


@pytest.mark.parametrize("layout", ["pieces", "data", "saved"])
def test_a_piece_that_is_missing(tmp_path, layout):
    folder = write(tmp_path, layout)
    (tmp_path / [name for name in LAYOUTS[layout] if "train" in name][1]).unlink()
    with pytest.raises(UserError, match="piece 00001 is missing; expected 2 pieces"):
        load_task(TaskConfig(path=folder, **OWN))


def test_pieces_that_do_not_belong_together(tmp_path):
    folder = write(tmp_path, "pieces")
    as_parquet(tmp_path / "train-00001-of-00002.parquet", [{"text": "a", "stars": 1}])
    with pytest.raises(UserError, match="has other columns"):
        load_task(TaskConfig(path=folder, **OWN))
    as_parquet(tmp_path / "train.parquet", TRAIN)
    with pytest.raises(UserError, match="stands beside"):
        load_task(TaskConfig(path=folder, **OWN))


def test_a_row_of_a_piece_is_named(tmp_path):
    folder = write(tmp_path, "pieces")
    as_parquet(tmp_path / "train-00001-of-00002.parquet", [{"text": " ", "label": 1}])
    with pytest.raises(UserError, match=r"train-00000.* and 1 more, row 5: text is empty"):
        load_task(TaskConfig(path=folder, **OWN))


def test_arrow_that_is_cut_off(tmp_path):
    folder = write(tmp_path, "saved")
    path = tmp_path / "train/data-00001-of-00002.arrow"
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(UserError, match=r"data-00001-of-00002\.arrow cannot be read as Arrow"):
        load_task(TaskConfig(path=folder, **OWN))


# MRPC, as Microsoft hands it out: a mark at the start, tabs, and quotation marks that are text


HEADER = "\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String"


def paraphrases(folder, ids=(), n_train=12):
    for name, count, first in (("train", n_train, 100), ("test", 4, 500)):
        lines = [
            f'{n % 2}\t{first + n}\t{first + 50 + n}\t"They said {n}.\tIt was said: "{n}".'
            for n in range(count)
        ]
        path = folder / f"msr_paraphrase_{name}.txt"
        path.write_text("\n".join([HEADER, *lines]) + "\n", encoding="utf-8")
    if ids:
        lines = [f"{100 + n}\t{150 + n}" for n in ids]
        (folder / "dev_ids.tsv").write_text("\n".join(["#1 ID\t#2 ID", *lines]) + "\n")
    return str(folder)


def test_the_files_of_mrpc_with_the_pairs_that_glue_holds_out(tmp_path):
    config = TaskConfig("mrpc", paraphrases(tmp_path, ids=(1, 4, 5)), check_counts="off")
    loaded = load_task(config)
    texts = [example.texts for example in loaded.splits["dev"]]
    assert texts == [(f'"They said {n}.', f'It was said: "{n}".') for n in (1, 4, 5)]
    assert [example.label for example in loaded.splits["dev"]] == [1, 0, 1]
    assert len(loaded.splits["train"]) == 9
    test = load_task(config, only="test")
    assert [example.label for example in test.splits["test"]] == [0, 1, 0, 1]


def test_the_files_of_mrpc_without_it_are_divided(tmp_path):
    loaded = load_task(TaskConfig("mrpc", paraphrases(tmp_path), check_counts="off"))
    assert (len(loaded.splits["train"]), len(loaded.splits["dev"])) == (11, 1)
    assert any("divided into 11 rows for train and 1 for dev" in note for note in loaded.notes)
    assert loaded.positive == 1


def test_a_single_file_of_mrpc(tmp_path):
    paraphrases(tmp_path)
    path = tmp_path / "msr_paraphrase_test.txt"
    loaded = load_task(TaskConfig("mrpc", str(path)), only="dev", whole=True)
    assert [example.label for example in loaded.splits["dev"]] == [0, 1, 0, 1]


@pytest.mark.parametrize("names", [("train", "dev"), ("train/part-0", "dev/part-0")])
def test_arrow_as_a_file_and_what_a_macintosh_notes_beside_it(tmp_path, names):
    for name, rows in zip(names, (TRAIN, DEV), strict=True):
        path = tmp_path / f"{name}.arrow"
        path.parent.mkdir(exist_ok=True)
        table = pyarrow.Table.from_pylist(rows)
        with ipc.new_file(path, table.schema) as file:
            file.write_table(table, max_chunksize=2)
        (path.parent / f"._{path.name}").write_bytes(b"\0\5\x16\7")
    loaded = load_task(TaskConfig(path=str(tmp_path), **OWN))
    found = [(example.texts[0], example.label) for example in loaded.splits["train"]]
    assert found == [(row["text"], row["label"]) for row in TRAIN]
    path = tmp_path / f"{names[0]}.arrow"
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(UserError, match=r"\.arrow cannot be read as Arrow"):
        load_task(TaskConfig(path=str(tmp_path), **OWN))
