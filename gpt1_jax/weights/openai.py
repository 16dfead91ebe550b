"""The layout in which OpenAI released GPT-1: one flat vector, cut into .npy files.

params_0.npy, params_1.npy, ... laid end to end hold the arrays whose shapes params_shapes.json
lists: positions, tokens, then twelve for each block (openai/finetune-transformer-lm, train.py). A
kernel is that of a convolution of width 1, so it has a leading axis of size 1; it is not
transposed. The vocabulary lies beside them, encoder_bpe_40000.json and vocab_40000.bpe.

A fine-tuned model takes the same form with three more rows of the token table, in the order of the
released code, and the classifier's kernel and bias at the end. The released code itself keeps those
in a joblib file, which is a pickle and therefore never opened here.
"""

import itertools
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import PositiveInt

from gpt1_jax import json_files, npy_files
from gpt1_jax.errors import UserError
from gpt1_jax.tokenization.vocabulary import ENCODER, MERGES

SHAPES = "params_shapes.json"
VOCABULARY = (ENCODER, MERGES)
N_SHARDS = 10
HEAD_SIZE = 64

_BLOCK = (
    "attn/c_attn/kernel",
    "attn/c_attn/bias",
    "attn/c_proj/kernel",
    "attn/c_proj/bias",
    "ln_1/scale",
    "ln_1/bias",
    "mlp/c_fc/kernel",
    "mlp/c_fc/bias",
    "mlp/c_proj/kernel",
    "mlp/c_proj/bias",
    "ln_2/scale",
    "ln_2/bias",
)
_LETTERS = {"kernel": "w", "scale": "g", "bias": "b"}


def paths(n_layer: int, head: bool) -> list[str]:
    """Our names of the arrays, in the order of the files."""
    blocks = [f"h_{i}/{name}" for i in range(n_layer) for name in _BLOCK]
    return ["wpe/embedding", "wte/embedding", *blocks, *(["clf/kernel", "clf/bias"] * head)]


def name_of(path: str) -> str:
    """What the released code calls an array: `model/h0/attn/c_attn/w`."""
    *scopes, leaf = path.split("/")
    if leaf == "embedding":
        return "positions" if scopes == ["wpe"] else "tokens"
    return "/".join(["model", *(scope.replace("h_", "h") for scope in scopes), _LETTERS[leaf]])


def read_arrays(folder: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The arrays by our names, kernels without their leading axis, and the sizes they imply.

    Raises UserError for a list of shapes that is none of GPT-1, and for shards that are missing,
    damaged, or do not hold as many numbers as the shapes say.
    """
    shapes = _shapes(folder)
    n_layer, rest = divmod(len(shapes) - 2, len(_BLOCK))
    if n_layer < 1 or rest not in (0, 2) or len(shapes[0]) != 2 or len(shapes[1]) != 2:
        raise UserError(
            f"{folder / SHAPES} lists {len(shapes)} arrays, the first two {shapes[:2]}; expected "
            "positions and tokens, then 12 for each block"
        )
    shards = list(_shards(folder))
    held, listed = sum(len(shard) for _, shard in shards), sum(map(math.prod, shapes))
    if held < listed:
        raise UserError(
            f"the params_*.npy in {folder} hold {held} numbers, {SHAPES} lists {listed}; the "
            "last shard is missing or short, copy the folder again"
        )
    # One block of memory, which each file is read into and every array is a view of.
    flat = np.empty(listed, np.float32)
    filled = 0
    for path, shard in shards:
        if filled + len(shard) > len(flat):
            raise UserError(
                f"{path} goes on after the {len(flat)} numbers that {SHAPES} lists; expected the "
                "list and the shards of one model"
            )
        flat[filled : filled + len(shard)] = shard
        filled += len(shard)
    arrays, start = {}, 0
    for name, shape in zip(paths(n_layer, rest == 2), shapes, strict=True):
        size = math.prod(shape)
        squeezed = shape[1:] if len(shape) == 3 and shape[0] == 1 else shape
        arrays[name] = flat[start : start + size].reshape(squeezed)
        start += size
    n_ctx, n_embd = shapes[0]
    return arrays, {"n_layer": n_layer, "n_ctx": n_ctx, "n_embd": n_embd}


def _shapes(folder: Path) -> list[tuple[int, ...]]:
    path, remedy = folder / SHAPES, "expected a list of shapes; copy it again"
    try:
        found = json_files.read(path, list[list[PositiveInt]], remedy)
    except FileNotFoundError:
        raise UserError(
            f"openai:{folder} has no {SHAPES}; expected the folder `model` of the released code"
        ) from None
    return [tuple(shape) for shape in found]


def _shards(folder: Path) -> Iterator[tuple[Path, np.ndarray]]:
    numbers = {
        int(path.stem.removeprefix("params_"))
        for path in folder.glob("params_*.npy")
        if path.stem.removeprefix("params_").isdigit()
    }
    for number in range(max(numbers, default=0) + 1):
        path = folder / f"params_{number}.npy"
        try:
            shard = npy_files.read(path, ["float32"], "copy the folder again")
        except FileNotFoundError:
            raise UserError(f"{path} is missing; the shards go from params_0.npy on") from None
        yield path, shard


def n_head(n_embd: int, folder: Path) -> int:
    """Heads of 64, as in the released model: the layout does not say."""
    if n_embd % HEAD_SIZE:
        raise UserError(
            f"openai:{folder} has width {n_embd}, which is no multiple of {HEAD_SIZE}, and does "
            "not say its number of heads; expected the gpt1.json that `convert` wrote"
        )
    return n_embd // HEAD_SIZE


def write_arrays(flat: dict[str, np.ndarray], n_layer: int, folder: Path) -> None:
    """Ten shards and the list of shapes, from arrays by our names."""
    names = paths(n_layer, "clf/bias" in flat)
    shapes = [
        [1, *flat[name].shape] if _is_convolution(name) else list(flat[name].shape)
        for name in names
    ]
    arrays = [flat[name].reshape(-1) for name in names]
    total = sum(map(len, arrays))
    edges = [total * number // N_SHARDS for number in range(N_SHARDS + 1)]
    for number, (first, stop) in enumerate(itertools.pairwise(edges)):
        _write_shard(folder / f"params_{number}.npy", arrays, first, stop)
    (folder / SHAPES).write_text(json.dumps(shapes))


def _write_shard(path: Path, arrays: Sequence[np.ndarray], first: int, stop: int) -> None:
    """The numbers `first` to `stop` of all arrays laid end to end. Written and not mapped: what a
    full disk refuses of a mapped file is a signal that ends the process."""
    header = {"descr": "<f4", "fortran_order": False, "shape": (stop - first,)}
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        start = 0
        for array in arrays:
            part = array[max(first - start, 0) : max(stop - start, 0)]
            file.write(np.ascontiguousarray(part, "<f4").data)
            start += len(array)


def _is_convolution(name: str) -> bool:
    return name.startswith("h_") and name.endswith("kernel")
