"""Files of numbers that somebody damaged, cut off or made up: their headers in every shape are
read, or refused in one line that names the file.

    pytest tests/test_damaged_files.py --hypothesis-profile=long        looks further
"""

import hashlib
import json
import shutil
import struct
import tempfile
from pathlib import Path

import numpy as np
import pytest
import runs
from hypothesis import example, given
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from gpt1_jax import npy_files
from gpt1_jax.errors import UserError
from gpt1_jax.weights import source

GOLDEN = Path(__file__).parent / "golden" / "huggingface" / "language_model"

# Of .npy files


def npy(data: bytes, header: object, version=(1, 0)) -> bytes:
    """A file with any header; dicts get what they lack from that of uint16 [len]."""
    if isinstance(header, dict):
        usual = {"descr": "<u2", "fortran_order": False, "shape": (len(data) // 2,)}
        header = {key: value for key, value in (usual | header).items() if value is not ...}
    text = header.encode() if isinstance(header, str) else repr(header).encode()
    text += b" " * (-(len(text) + 11) % 64) + b"\n"
    length = struct.pack("<H" if version[0] == 1 else "<I", len(text))
    return b"\x93NUMPY" + bytes(version) + length + text + data


HEADERS = [
    *(
        {"descr": descr}
        for descr in ("|O", "<f99", "hello", ">u2", "<f8", ..., None, [("a", "u2")])
    ),
    *({"shape": shape} for shape in ((), (1, 9), (-1,), (10**6,), (3,), (2**62,), (2**80,), "x")),
    *({"fortran_order": order} for order in ("x", None, ...)),
    *("None", "__import__('os').system('true')", "(" * 4_000, "[" * 9_000 + "]" * 9_000, "{", ""),
]


@pytest.fixture
def shard(tokens, tmp_path):
    """Puts a content in place of the shard of a copy, and its checksum in the manifest."""

    def put(content: bytes) -> list[str]:
        copy = shutil.copytree(tokens, tmp_path / "copy", dirs_exist_ok=True)
        path = copy / "train-00000.npy"
        path.write_bytes(content)
        manifest = json.loads((copy / "manifest.json").read_text())
        digest = hashlib.sha256(content).hexdigest()
        manifest["splits"]["train"]["shards"][0]["sha256"] = digest
        (copy / "manifest.json").write_text(json.dumps(manifest))
        return runs.words(runs.pretraining(copy), tmp_path / "run")

    return put


@pytest.mark.parametrize("header", HEADERS, ids=lambda header: str(header)[:30])
def test_a_shard_with_another_header(shard, tokens, header):
    data = np.load(tokens / "train-00000.npy").tobytes()
    version = (2, 0) if isinstance(header, str) else (1, 0)
    runs.refused(shard(npy(data, header, version)), "train-00000.npy")


@pytest.mark.parametrize("damage", ["cut", "empty", "longer", "pickle", "zip", "version"])
def test_a_shard_that_is_damaged(shard, tokens, damage):
    whole = (tokens / "train-00000.npy").read_bytes()
    made = {
        "cut": whole[:-6],
        "empty": b"",
        "longer": whole + b"\0" * 64,
        "pickle": b"\x80\x04\x95" + whole,
        "zip": b"PK\x03\x04" + whole,
        "version": whole[:6] + b"\x09" + whole[7:],
    }
    runs.refused(shard(made[damage]), "train-00000.npy")


values = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6)
anything = st.recursive(values, lambda inner: st.lists(inner, max_size=3).map(tuple), max_leaves=5)
headers = st.fixed_dictionaries({}, optional={"descr": anything, "shape": anything}) | anything


@given(headers, st.binary(max_size=40), st.sampled_from([(1, 0), (2, 0), (3, 0)]))
def test_any_header_of_npy_is_read_or_refused_in_a_line(header, data, version):
    with tempfile.TemporaryDirectory(prefix="gpt1-property-") as folder:
        path = Path(folder) / "ids.npy"
        path.write_bytes(npy(data, header, version))
        ids = read_or_refused(path, npy_files.read, path, ["uint16"], "copy it again")
        assert ids is None or ids.tobytes() == data


def read_or_refused(place, read, *arguments):
    """What `read` gives; None where it refuses, in one line that names the place."""
    message = ""
    try:
        return read(*arguments)
    except UserError as error:
        message = str(error)
    assert str(place) in message
    assert "\n" not in message
    return None


# Of safetensors


def tensors_file(header: object, body: bytes, length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + body


def parts(path=GOLDEN / "model.safetensors"):
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + size]), content[8 + size :]


HEADER, BODY = parts()
NAME = next(name for name in HEADER if name != "__metadata__")


def changed(**fields):
    return HEADER | {NAME: HEADER[NAME] | fields}


def weights_of(content: bytes):
    """The weights with another file of tensors; None where they are refused in a line."""
    with tempfile.TemporaryDirectory(prefix="gpt1-property-") as folder:
        model = Path(shutil.copytree(GOLDEN, Path(folder) / "model"))
        (model / "model.safetensors").write_bytes(content)
        return read_or_refused(model, source.read_weights, f"hf:{model}")


fields = st.fixed_dictionaries(
    {},
    optional={
        "dtype": st.sampled_from(["F32", "F64", "I8", "F33", ""]) | values,
        "shape": st.lists(st.integers(-2, 2**70), max_size=3) | anything,
        "data_offsets": st.lists(st.integers(-2, 2**70), min_size=2, max_size=2) | anything,
    },
)


@given(
    st.one_of(
        fields.map(lambda made: json.dumps(changed(**made)).encode()),
        anything.map(lambda made: json.dumps(made).encode()),
        st.binary(max_size=60),
    ),
    st.none() | st.integers(0, 2**64 - 1),
)
@example(b"[" * 100_000, None)
@example(json.dumps(HEADER).encode()[:-1] + b', "' + NAME.encode() + b'": {}}', None)
@example(json.dumps(changed(data_offsets=[0, 4])).encode(), None)
@example(json.dumps(HEADER).encode(), 2**63)
def test_any_header_of_safetensors_is_read_or_refused_in_a_line(header, length):
    if weights_of(tensors_file(header, BODY, length)) is not None:
        assert length in (None, len(header))


def test_a_name_that_stands_twice_in_a_header(tmp_path):
    again = json.dumps(HEADER)[:-1] + f', "{NAME}": {json.dumps(HEADER[NAME])}}}'
    model = Path(shutil.copytree(GOLDEN, tmp_path / "model"))
    (model / "model.safetensors").write_bytes(tensors_file(again.encode(), BODY))
    words = ["score", f"--initial=hf:{model}", f"--input={model / 'config.json'}"]
    runs.refused(words, str(model / "model.safetensors"), "stands there twice")


@pytest.mark.parametrize("cut", [0, 5, 100, -4])
def test_weights_that_are_cut_off(tmp_path, cut):
    model = Path(shutil.copytree(GOLDEN, tmp_path / "model"))
    content = (model / "model.safetensors").read_bytes()
    (model / "model.safetensors").write_bytes(content[:cut])
    words = ["score", f"--initial=hf:{model}", f"--input={model / 'config.json'}"]
    runs.refused(words, str(model / "model.safetensors"), "copy it again")


# Of an index


@pytest.fixture
def sharded(tmp_path):
    """A folder with two files of weights and an index that a function changes."""

    def make(change):
        model = Path(shutil.copytree(GOLDEN, tmp_path / "model"))
        tensors = load_file(model / "model.safetensors")
        (model / "model.safetensors").unlink()
        names = sorted(tensors)
        held = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
        for file, inside in held.items():
            save_file({name: tensors[name] for name in inside}, model / file)
        index = {name: file for file, inside in held.items() for name in inside}
        made = change(index)
        text = made if isinstance(made, str) else json.dumps({"weight_map": made})
        (model / "model.safetensors.index.json").write_text(text)
        return model

    return make


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda index: "[]", "should be an object"),
        (lambda index: "[" * 100_000, "nested too deeply"),
        (lambda index: '{"weight_map": null}', "weight_map"),
        (lambda index: '{"weight_map": {"x": 3}}', "weight_map.x"),
        (lambda index: index | {"x": "c.safetensors"}, "c.safetensors is missing"),
        (lambda index: index | {"x": "../a.safetensors"}, "nothing outside the folder"),
        (lambda index: index | {"x": "/etc/passwd"}, "nothing outside the folder"),
        (lambda index: index | {"x": "pytorch_model.bin"}, "expected names of .safetensors"),
        (lambda index: index | {"x": "a.safetensors"}, "has no x"),
        (lambda index: dict.fromkeys(index, "a.safetensors"), "a.safetensors has no"),
        (lambda index: {}, "no tensors"),
    ],
)
def test_an_index_that_does_not_fit(sharded, change, says):
    model = sharded(change)
    words = ["score", f"--initial=hf:{model}", f"--input={model / 'config.json'}"]
    runs.refused(words, str(model), says)


def test_an_index_that_fits(sharded):
    found = source.read_weights(f"hf:{sharded(lambda index: index)}")
    whole = source.read_weights(f"hf:{GOLDEN}")
    for name, array in whole.flat.items():
        np.testing.assert_array_equal(found.flat[name], array)
