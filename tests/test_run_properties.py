"""Whatever the values of a config, the files of a run and the bytes of a text are: a verb does its
work or ends with status 2 and one line.

    pytest tests/test_run_properties.py --hypothesis-profile=long        looks further
"""

import json
import shutil
import tempfile
from pathlib import Path

import pytest
import runs
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gpt1_jax.errors import UserError
from gpt1_jax.recipe.experiment import KEYS
from gpt1_jax.training import start

VOCABULARY = Path(__file__).parent / "golden" / "huggingface" / "language_model"
EXAMPLES = settings().max_examples  # of the profile
CLAIMED = "all was well up to the first step"


def ended_well(outcome) -> bool:
    """Whether it did its work; else it said so in one line."""
    if outcome.status == 0:
        return True
    assert outcome.status == 2, outcome
    last = outcome.said[-1]
    assert last.startswith("gpt1: "), outcome.said
    assert all(line.isprintable() for line in outcome.said), outcome.said
    return False


# Values of the config

# What the others name is looked for elsewhere: on the Hub, on the servers of TFDS.
ELSEWHERE = ("initial", "data.path", "task.name", "task.data_dir", "probes.")
values = st.text(max_size=8) | st.sampled_from(
    (
        *("0", "-1", "1", "2", "1e12", "1e400", "-1e-400", "nan", "inf", "9" * 400, "0x10", "1_0"),
        *("None", "true", "False", "[]", "{}", "()", "1,2", "[1, 2]", "{[]: 1}", "('a',)", "''"),
        *("paper", "released", "float32", "bfloat16", "auto", "lstm", "cosine", "__import__('os')"),
        *(
            "(" * 3_000,
            "[" * 300 + "]" * 300,
            "-" * 2_000 + "1",
            "\udce9",
            "\ud800",
            "a\nb",
            "\0",
            "x" * 5_000,
        ),
    )
)
chosen = st.sampled_from([key for key in KEYS if not key.startswith(ELSEWHERE)])


def claim(*_):
    raise UserError(CLAIMED)


@settings(max_examples=4 * EXAMPLES)
@given(st.dictionaries(chosen, values, min_size=1, max_size=3))
def test_any_value_of_the_config(tokens, given):
    stopped = pytest.MonkeyPatch.context()
    with tempfile.TemporaryDirectory(prefix="gpt1-property-") as folder, stopped as patch:
        patch.setattr(start, "claim", claim)
        words = runs.words(runs.pretraining(tokens, **given), Path(folder) / "run")
        assert not ended_well(runs.verb(*words))
        assert not list(Path(folder).iterdir())


# Files of a run

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
anything = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=4,
)


@st.composite
def damaged(draw, content: bytes) -> bytes:
    """JSON with another value somewhere, a key less, or other bytes."""
    if draw(st.booleans()):
        at = draw(st.integers(0, len(content)))
        return content[:at] + draw(st.binary(max_size=3)) + content[at + draw(st.integers(0, 9)) :]
    value = whole = json.loads(content.splitlines()[0] if b"\n{" in content else content)
    while isinstance(value, dict) and value:
        key = draw(st.sampled_from(sorted(value)))
        if not isinstance(value[key], dict) or draw(st.integers(0, 2)) == 0:
            if draw(st.booleans()):
                del value[key]
            else:
                value[key] = draw(anything)
            break
        value = value[key]
    return json.dumps(whole).encode()


def read_by(verb, pretrained, tokens, name):
    """The words of a verb that reads the file, of a copy of the run and its tokens."""

    def words(folder, content):
        run = Path(shutil.copytree(pretrained, folder / "run"))
        data = Path(shutil.copytree(tokens, folder / "tokens"))
        ((path),) = [p for p in (run / name, data / name) if p.exists()]
        path.write_bytes(content)
        flags = {
            "sample": ["--prompt=the", "--length=1"],
            "evaluate": [f"--data={data}"],
            "report": [f"--output={folder / 'report'}"],
        }
        source = f"--runs={folder}" if verb == "report" else f"--workdir={run}"
        return [verb, source, *flags[verb]]

    return words


@pytest.mark.parametrize(
    ("name", "verb"),
    [
        ("config.json", "sample"),
        pytest.param("committed.json", "sample", marks=pytest.mark.exhaustive),
        pytest.param("checkpoints/6/params/digests.json", "sample", marks=pytest.mark.exhaustive),
        ("manifest.json", "evaluate"),
        pytest.param("verified.json", "evaluate", marks=pytest.mark.exhaustive),
    ],
)
@settings(max_examples=EXAMPLES // 2)
@given(data=st.data())
def test_any_file_of_a_run(name, verb, pretrained, tokens, data):
    words = read_by(verb, pretrained, tokens, name)
    place = tokens / name if (tokens / name).exists() else pretrained / name
    content = data.draw(damaged(place.read_bytes()))
    with tempfile.TemporaryDirectory(prefix="gpt1-property-") as folder:
        ended_well(runs.verb(*words(Path(folder), content)))


@given(data=st.data())
def test_any_record_of_a_run(pretrained, data):
    """What `report` reads of it."""
    from gpt1_jax.results import finished_runs

    name = data.draw(st.sampled_from(["config.json", "result.json", "metrics.jsonl"]))
    content = data.draw(damaged((pretrained / name).read_bytes()))
    with tempfile.TemporaryDirectory(prefix="gpt1-property-") as folder:
        run = Path(folder) / "run"
        run.mkdir()
        for each in ("config.json", "result.json", "metrics.jsonl"):
            (run / each).write_bytes(content if each == name else (pretrained / each).read_bytes())
        message = ""
        try:
            finished_runs.read_runs(Path(folder))
        except UserError as error:
            message = str(error)
        assert not message or folder in message


@given(data=st.data())
def test_any_ledger_of_a_reproduction(runs, data):
    """What `report` reads of it, from the runs that it names."""
    from gpt1_jax.results import finished_runs

    content = data.draw(damaged((runs / finished_runs.REPRODUCTION).read_bytes()))
    with tempfile.TemporaryDirectory(prefix="gpt1-property-") as folder:
        work = Path(folder) / "work"
        work.mkdir()
        for each in runs.iterdir():
            (work / each.name).symlink_to(each)
        (work / finished_runs.REPRODUCTION).unlink()
        (work / finished_runs.REPRODUCTION).write_bytes(content)
        message = ""
        try:
            finished_runs.read_runs(work)
        except UserError as error:
            message = str(error)
        assert not message or folder in message


# Text

pieces = st.sampled_from(
    (
        *(b"the cat ", b"\n", b"\r\n", b"\r", b"\xef\xbb\xbf", b"\xff\xfe", b"\xe9", b"\xc3\xa9"),
        *(
            b"\0",
            b"<p>",
            b"\xed\xa0\x80",
            b"\x1b[31m",
            b"\xf0\x9f\x98\x80",
            b"{}",
            b'"',
            b",",
            b"\t",
        ),
    )
)
texts = st.binary(max_size=60) | st.lists(pieces, max_size=20).map(b"".join)


@given(texts, st.sampled_from([".txt", ".jsonl", ".csv", ".txt.gz", ".parquet", ""]))
@example(b'{"text": "a \\ud800 b"}\n', ".jsonl")
@example(b'{"text": ' + b"[" * 100_000, ".jsonl")
def test_any_bytes_of_text(content, suffix):
    with tempfile.TemporaryDirectory(prefix="gpt1-property-") as folder:
        path = Path(folder) / f"text{suffix}"
        path.write_bytes(content)
        words = ["--tokenizer=hf_basic", f"--vocab={VOCABULARY}", "--workers=1"]
        words += [f"--output={folder}/tokens", "--valid_fraction=0", "--input", str(path)]
        if ended_well(runs.verb("prepare", *words)):
            assert (Path(folder) / "tokens" / "manifest.json").exists()
