"""The layout of transformers: config.json and model.safetensors, on the Hub or in a folder.

Kernels are [in, out] as here, so nothing is transposed but the readout of a head. Names come with
the prefix `transformer.` or without (the file on the Hub has none), old files hold causal masks
that are no parameters, and the tied output stands beside the input table, alone, or not at all.
What becomes of a head stands in huggingface_heads.py.
"""

import contextlib
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NotRequired, cast

import numpy as np
from pydantic import PositiveInt
from typing_extensions import TypedDict

from gpt1_jax import json_files
from gpt1_jax.data.tasks import Shape
from gpt1_jax.errors import UserError
from gpt1_jax.files.text_lines import LONGEST_POINTER, POINTERS
from gpt1_jax.messages import visible
from gpt1_jax.model.config import ModelConfig
from gpt1_jax.storage.places import here
from gpt1_jax.weights import huggingface_heads
from gpt1_jax.weights.weights import Weights

CONFIG = "config.json"
SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
MODEL_TYPE = "openai-gpt"
# The id that is the padding of the released code, and which transformers skips to find the last.
PADDING = 0

_PREFIX = "transformer."
_OUTPUT = "lm_head.weight"
_TABLES = {"wte/embedding": "tokens_embed.weight", "wpe/embedding": "positions_embed.weight"}
_LEAF = {"kernel": "weight", "scale": "weight", "bias": "bias"}
# Causal masks and lists of positions, which versions of transformers saved among the parameters.
_BUFFER = re.compile(r"h\.\d+\.attn\.(bias|masked_bias)|position_ids")
# Bytes; that of the library.
LONGEST_HEADER = 100_000_000
_DTYPES = ("F32", "F16", "BF16", "F64")
# Ours, and what transformers calls it. Its "gelu" is the tanh form, as ours is.
_SIZES = {
    "n_ctx": "n_positions",
    "n_embd": "n_embd",
    "n_head": "n_head",
    "n_layer": "n_layer",
    "layer_norm_epsilon": "layer_norm_epsilon",
    "init_std": "initializer_range",
    "embd_dropout": "embd_pdrop",
    "attn_dropout": "attn_pdrop",
    "resid_dropout": "resid_pdrop",
    "clf_dropout": "summary_first_dropout",
}
# Of transformers, for keys that a file leaves out.
DEFAULTS = {"n_positions": 512, "n_embd": 768, "n_head": 12, "n_layer": 12}


def folder_of(name: str) -> Path:
    """The folder of that name, or that of a model on the Hub, which is downloaded."""
    folder = here(name)
    if folder.exists():
        return folder
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name):
        raise UserError(f"hf:{name}: no such folder")
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise UserError(
            f"hf:{name} is no folder here; to get it from the Hub, pip install huggingface_hub"
        ) from None
    try:
        return Path(snapshot_download(name, allow_patterns=["*.json", "*.txt", "*.safetensors"]))
    except Exception as error:  # the errors of whatever transport the library uses
        raise UserError(
            f"hf:{name} is no folder here, and the Hub did not give it "
            f"({' '.join(str(error).split())[:80]}); where there is a network, hf download {name} "
            "--local-dir D, then write hf:D"
        ) from None


def name_of(path: str) -> str:
    """What transformers calls one of our arrays, without its prefix: `h.0.attn.c_attn.weight`."""
    if path in _TABLES:
        return _TABLES[path]
    *scopes, leaf = path.split("/")
    if leaf not in _LEAF:
        return path
    return ".".join([*scopes, _LEAF[leaf]]).replace("h_", "h.", 1)


class Config(TypedDict):
    """config.json, as far as it is read here. Files of other versions leave keys out; those have
    the defaults of transformers."""

    model_type: str
    afn: NotRequired[str | None]
    n_positions: NotRequired[PositiveInt]
    n_embd: NotRequired[PositiveInt]
    n_head: NotRequired[PositiveInt]
    n_layer: NotRequired[PositiveInt]
    layer_norm_epsilon: NotRequired[float]
    initializer_range: NotRequired[float]
    embd_pdrop: NotRequired[float]
    attn_pdrop: NotRequired[float]
    resid_pdrop: NotRequired[float]
    summary_first_dropout: NotRequired[float]
    problem_type: NotRequired[str | None]
    num_labels: NotRequired[int | None]
    pad_token_id: NotRequired[int | None]
    id2label: NotRequired[dict[str, str] | None]
    summary_type: NotRequired[str]
    summary_activation: NotRequired[str | None]
    summary_use_proj: NotRequired[bool]
    summary_proj_to_labels: NotRequired[bool]


def read_config(folder: Path) -> Config:
    """config.json. Raises UserError for another architecture, an activation that is none of
    GPT-1's, and values of another type."""
    path = folder / CONFIG
    try:
        config = json_files.read(path, dict[str, Any], "copy it again")
    except FileNotFoundError:
        raise UserError(f"hf:{folder} has no {CONFIG}; expected a folder of transformers") from None
    kind = config.get("model_type")
    if kind != MODEL_TYPE:
        raise UserError(
            f"{path} has model_type {kind!r}, another architecture; expected {MODEL_TYPE!r}"
        )
    config = json_files.shaped(config, Config, str(path), "expected the config of a GPT-1")
    # Before 2020 the number of positions had the name that it has here.
    positions = {"n_positions": config.get("n_ctx", DEFAULTS["n_positions"])}
    config = cast(Config, {**DEFAULTS, **positions, **config})
    if (config.get("afn") or "gelu") not in ("gelu", "gelu_new"):
        raise UserError(f"{path} has afn {config['afn']!r}; GPT-1 has the tanh form of 'gelu'")
    return config


def sizes(config: Mapping[str, Any]) -> dict[str, Any]:
    """Keys of the model config, as far as config.json has them."""
    return {ours: config[theirs] for ours, theirs in _SIZES.items() if theirs in config}


def own_sizes(model: ModelConfig) -> dict[str, Any]:
    """The same keys of a model of ours, with the rates that are in force."""
    rates = {f"{place}_dropout": model.rate(place) for place in ("embd", "attn", "resid", "clf")}
    return {name: rates.get(name, getattr(model, name)) for name in _SIZES}


def read_arrays(folder: Path, n_layer: int) -> tuple[dict[str, np.ndarray], Shape | None]:
    """The arrays by our names, in float32, and the shape of the task that their head is for.

    Names that are none of GPT-1's keep theirs, for `weights.tree` to complain of. Raises UserError
    for files that are missing, damaged, elsewhere or pickles, an output that is not tied, and
    another number of blocks than the config has.
    """
    files = _files(folder)
    wrapper = _wrapper([name for path in files for name in _names(path)])
    tensors: dict[str, np.ndarray] = {}
    for path in files:
        _add(tensors, path, wrapper)
    if not tensors:
        raise UserError(f"hf:{folder} holds no tensors; expected those of GPT-1")
    _tie(tensors, folder)
    if _TABLES["wte/embedding"] not in tensors:
        some = visible(", ".join(sorted(tensors)[:2]))
        raise UserError(
            f"hf:{folder} has no {_TABLES['wte/embedding']} but {some} and so on; expected the "
            "weights of one GPT-1"
        )
    blocks = {int(found[1]) for name in tensors if (found := re.match(r"h\.(\d+)\.", name))}
    if len(blocks) != n_layer:
        raise UserError(
            f"{folder / CONFIG} has n_layer {n_layer}, the weights beside it have {len(blocks)} "
            "blocks; expected the config that they were saved with"
        )
    arrays = {_path_of(name): tensor for name, tensor in tensors.items()}
    kept: dict[str, np.ndarray] = {}
    if (folder / huggingface_heads.ORIGINAL).is_file():
        _add(kept, folder / huggingface_heads.ORIGINAL)
    return arrays, huggingface_heads.restore(arrays, kept, n_layer, folder)


def _wrapper(names: list[str]) -> str:
    """What a wrapper (torch.compile, data parallelism, a training loop) put in front of all names:
    whatever stands before that of the token table, if all others begin so too."""
    table = _TABLES["wte/embedding"]
    before = [name.removesuffix(table).removesuffix(_PREFIX) for name in names if table in name]
    if len(before) == 1 and all(name.startswith(before[0]) for name in names):
        return before[0]
    return ""


def _path_of(name: str) -> str:
    """The inverse of `name_of`, as far as a name is one of GPT-1's."""
    for path, table in _TABLES.items():
        if name == table:
            return path
    block = re.fullmatch(r"h\.(\d+)\.(ln_[12]|attn\.c_\w+|mlp\.c_\w+)\.(weight|bias)", name)
    if not block:
        return name
    number, module, leaf = block.groups()
    if leaf == "weight":
        leaf = "scale" if module.startswith("ln") else "kernel"
    return f"h_{number}/{module.replace('.', '/')}/{leaf}"


class Index(TypedDict):
    """Which file holds each tensor."""

    weight_map: dict[str, str]


def _files(folder: Path) -> list[Path]:
    """The safetensors of a folder: one, or those that an index names, which lie beside it."""
    if (folder / SINGLE).is_file():
        return [folder / SINGLE]
    index = folder / INDEX
    try:
        known = json_files.read(index, Index, "expected an index of safetensors; copy it again")
    except FileNotFoundError:
        raise UserError(f"hf:{folder} has no {SINGLE}{_instead(folder)}") from None
    named = sorted({*known["weight_map"].values()})
    held = {}
    for name in named:
        if not re.fullmatch(r"[\w-][\w.-]*\.safetensors", name):
            raise UserError(
                f"{index} names the file {name!r}; expected names of .safetensors beside it, and "
                "nothing outside the folder is opened"
            )
        if not (folder / name).is_file():
            raise UserError(f"{folder / name} is missing, but {INDEX} names it; copy it too")
        held[name] = {*_names(folder / name)}
    for tensor, name in known["weight_map"].items():
        if tensor not in held[name]:
            raise UserError(f"{folder / name} has no {tensor}, which {INDEX} says is there")
    return [folder / name for name in named]


def _instead(folder: Path) -> str:
    """What to do about a folder that has weights of another kind."""
    for pattern in ("*.bin", "*.pt", "*.pth", "*.h5", "*.ckpt*", "*.pkl", "*.jl"):
        for path in sorted(folder.glob(pattern)):
            return f", only {path.name}: {way_out(path.name)}"
    for path in sorted(folder.glob("*.safetensors")):
        if path.name != huggingface_heads.ORIGINAL:
            return f", only {path.name}; if that is the whole model, give it this name"
    return "; expected a folder that transformers saved"


def way_out(name: str) -> str:
    """What to do with a file that is not opened here."""
    if name.endswith((".jl", ".pkl")):
        return (
            "a pickle can run code and is never opened; where you trust it, joblib.load it and "
            "save its arrays with safetensors.numpy.save_file under the names of docs/weights.md"
        )
    return (
        "such a file can run code or needs another framework and is never opened; where you trust "
        "it, save it again as safetensors with transformers: "
        "AutoModelForCausalLM.from_pretrained(OLD).save_pretrained(NEW), then write hf:NEW"
    )


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """A file of safetensors. UserError for one that is damaged or cannot be read."""
    try:
        import ml_dtypes  # noqa: F401  numpy knows bfloat16 by it
        from safetensors import SafetensorError, safe_open
    except ImportError:
        raise UserError("to read safetensors, pip install safetensors") from None
    try:
        _require_header(path)
        with safe_open(path, "numpy") as file:
            yield file
    except SafetensorError as error:
        raise UserError(f"{path} is damaged or cut short ({error}); copy it again") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error}") from None


def _require_header(path: Path) -> None:
    """UserError for a header that the library takes although it says two things: a name that
    stands twice, of which the last one would count; and for a file that was never fetched."""
    with path.open("rb") as file:
        beginning = file.read(LONGEST_POINTER)
        for pointer, what in POINTERS.items():
            if beginning.startswith(pointer):
                raise UserError(f"{path} is {what}")
        file.seek(0)
        size = int.from_bytes(file.read(8), "little")
        header = file.read(min(size, LONGEST_HEADER))
    if len(header) == size > 1:  # of others the library complains
        json_files.parse(header, dict[str, Any], f"{path}: header", "copy it again")


def _names(path: Path) -> list[str]:
    with _opened(path) as file:
        return list(file.keys())


def _add(tensors: dict[str, np.ndarray], path: Path, wrapper: str = "") -> None:
    """The tensors of a file, in float32, without prefixes and without buffers."""
    with _opened(path) as file:
        for full in file.keys():  # noqa: SIM118  the file is no mapping
            name = full.removeprefix(wrapper).removeprefix(_PREFIX)
            if _BUFFER.fullmatch(name):
                continue
            if (dtype := file.get_slice(full).get_dtype()) not in _DTYPES:
                raise UserError(f"{full} in {path} is {dtype}; expected {', '.join(_DTYPES)}")
            if name in tensors:
                raise UserError(f"{path} holds {name}, which another name or file holds too")
            found = file.get_tensor(full)
            with np.errstate(over="ignore"):  # which the next line tells
                tensors[name] = found.astype(np.float32, copy=False)
            if dtype == "F64" and (np.isfinite(found) & ~np.isfinite(tensors[name])).any():
                raise UserError(f"{full} in {path} has numbers beyond float32; expected smaller")


def _tie(tensors: dict[str, np.ndarray], folder: Path) -> None:
    """Leaves the token table as input and output; the double-heads model saves it as the output."""
    output = tensors.pop(_OUTPUT, None)
    table = tensors.setdefault(_TABLES["wte/embedding"], output) if output is not None else None
    if output is not None and not np.array_equal(table, output):
        raise UserError(
            f"{_OUTPUT} in hf:{folder} differs from {_TABLES['wte/embedding']}; GPT-1 ties its "
            "output to its input, so this model cannot be represented"
        )


def write_model(weights: Weights, folder: Path) -> None:
    """config.json, generation_config.json and model.safetensors, as transformers saves them."""
    from safetensors.numpy import save_file

    config = _config(weights)
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n")
    generation = {
        "_from_model_config": True,
        **{name: config[name] for name in ("bos_token_id", "eos_token_id", "pad_token_id")},
        # Positions are learned: there is none after the last.
        "max_length": weights.model.n_ctx,
    }
    (folder / "generation_config.json").write_text(json.dumps(generation, indent=2) + "\n")
    body = {
        _PREFIX + name_of(path): np.ascontiguousarray(array)
        for path, array in weights.flat.items()
        if not path.startswith("clf/")
    }
    tensors = body | huggingface_heads.tensors(weights)
    files = {SINGLE: tensors, huggingface_heads.ORIGINAL: huggingface_heads.original(weights)}
    for name, arrays in files.items():
        if arrays:
            save_file(arrays, folder / name, metadata={"format": "pt"})
            # The library leaves its files to their owner alone.
            (folder / name).chmod((folder / CONFIG).stat().st_mode)


def _config(weights: Weights) -> dict[str, Any]:
    """The fields of OpenAIGPTConfig."""
    kind = huggingface_heads.architecture(weights)
    classifier = kind == huggingface_heads.CLASSIFIER
    config = {
        "architectures": [kind],
        "model_type": MODEL_TYPE,
        "afn": "gelu",
        **{_SIZES[name]: value for name, value in own_sizes(weights.model).items()},
        "vocab_size": weights.model.n_rows,
        "dtype": "float32",
        "tie_word_embeddings": True,
        "bos_token_id": None,
        "eos_token_id": weights.tokenizer.end,
        "pad_token_id": PADDING if classifier else None,
        "summary_type": "cls_index",
        "summary_use_proj": True,
        "summary_activation": None,
        "summary_proj_to_labels": True,
    }
    if kind == huggingface_heads.DOUBLE_HEADS:
        config["num_labels"] = 1
    elif classifier:
        names = [str(label) for label in weights.labels or range(weights.n_outputs)]
        config["id2label"] = {str(number): name for number, name in enumerate(names)}
        config["label2id"] = {name: number for number, name in enumerate(names)}
    return config
