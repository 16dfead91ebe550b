"""Documents -> token shards on disk, and the token stream they make.

`prepare` reads its documents three times, each time in their order and in bounded memory: to check
and count them, to count the words that the tokenizer is trained on, and to encode them into the
shards that shards.py describes. Until all is done everything is in a subfolder `unfinished`, with a
journal from which the same arguments continue. The result is a function of the arguments alone,
whatever the number of workers and however often it was interrupted.
"""

import time
from collections import Counter
from collections.abc import Iterable
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from gpt1_jax.disk import WorkdirLock, as_user_error, write_json
from gpt1_jax.errors import Interrupted, UserError
from gpt1_jax.messages import say
from gpt1_jax.text import workers, workplace
from gpt1_jax.text.config import PrepareConfig
from gpt1_jax.text.division import Block, Survey, divided_blocks, take_survey, unit_hash
from gpt1_jax.text.encoding import encode_blocks, id_dtype, in_pieces
from gpt1_jax.text.inputs import TRAIN, Inputs, check_config, find_inputs
from gpt1_jax.text.shards import FORMAT, MANIFEST, Manifest, read_manifest
from gpt1_jax.text.sources import Files, NamedText, TextChanged
from gpt1_jax.tokenization import gpt1_bpe, loading, sentencepiece_bpe, text_rules, vocabulary
from gpt1_jax.tokenization import tokenizer as tokenizers
from gpt1_jax.tokenization.tokenizer import Tokenizer


def prepare(
    config: PrepareConfig,
    documents: Iterable[NamedText] | None = None,
    valid_documents: Iterable[NamedText] | None = None,
) -> dict:
    """Make the folder config.output, or finish it; progress goes to standard error.

    Args:
      documents: texts in memory in place of config.inputs and config.tfds.
      valid_documents: texts in memory in place of config.valid and config.valid_fraction.

    Returns:
      The manifest without document starts, with `output` and `seconds`.

    Raises:
      UserError: contradictory arguments, unreadable or empty text, a folder with other content.
      Interrupted: stopped by Ctrl-C or by the loss of a worker; what is done is kept.
    """
    began = time.monotonic()
    check_config(config)
    inputs = find_inputs(config, documents, valid_documents)
    trained = _given(config)
    arguments = _arguments(config, inputs, trained)
    output = Path(config.output)
    workplace.check_apart(output, inputs.paths)
    # Whatever is decided by what lies in the folder is decided by the one that has it.
    with as_user_error(output), WorkdirLock(output, "preparing", "--output"):
        manifest = _already(output, inputs, config, arguments)
        if manifest is None:
            manifest = _prepared(output, inputs, config, trained, arguments)
    return _summary(output, manifest) | {"seconds": round(time.monotonic() - began, 1)}


def _already(
    output: Path, inputs: Inputs, config: PrepareConfig, arguments: dict
) -> Manifest | None:
    """The manifest of a finished folder, if the same arguments and the same text made it."""
    if not (output / MANIFEST).exists():
        return None
    manifest = read_manifest(output)
    workplace.check_same(output, manifest["arguments"], arguments)
    then = manifest["source"]["sha256"]
    if not inputs.fixed and (now := take_survey(inputs, config).sha256) != then:
        raise UserError(
            f"{output}: prepared from another text of the same length (sha256 {then[:12]}, now "
            f"{now[:12]}); choose another --output, or delete the folder"
        )
    workplace.clear(output)
    say(f"{output} is already prepared with these arguments; nothing to do")
    return manifest


def _prepared(
    output: Path, inputs: Inputs, config: PrepareConfig, trained: Tokenizer | None, arguments: dict
) -> Manifest:
    workplace.check_free(output, arguments)
    try:
        before = workplace.survey_so_far(output)
        survey = before if before and inputs.fixed else take_survey(inputs, config)
        if before not in (None, survey):
            say(f"{output}: the text has changed since it was begun, so it begins anew")
            workplace.clear(output)
        if isinstance(inputs.train, Files):
            say(inputs.train.describe())
        folder = workplace.begin(output, arguments, survey)
        if not (folder / MANIFEST).exists():
            tokenizer = _tokenizer(folder, inputs, survey, config, trained)
            splits = encode_blocks(folder, inputs, survey, config, tokenizer)
            manifest = _manifest(inputs, survey, tokenizer, arguments, splits)
            write_json(folder / MANIFEST, manifest, indent=None)
        workplace.move_up(output)
    except TextChanged:
        workplace.clear(output)
        raise
    except (KeyboardInterrupt, BrokenProcessPool) as error:
        reason = "a worker was lost" if isinstance(error, BrokenProcessPool) else "interrupted"
        raise Interrupted(f"{output}: {reason}; the same command continues") from None
    return read_manifest(output)


# Arguments


def _given(config: PrepareConfig) -> Tokenizer | None:
    """The tokenizer that config.vocab names."""
    if not config.vocab:
        return None
    if config.tokenizer != "sentencepiece":
        return loading.from_vocabulary(config.vocab, config.tokenizer)
    given = loading.load(config.vocab)
    if given.mode != config.tokenizer:
        raise UserError(
            f"vocab={config.vocab}: a tokenizer of the mode {given.mode}, not {config.tokenizer}; "
            f"say tokenizer={given.mode}"
        )
    return given


def _arguments(config: PrepareConfig, inputs: Inputs, trained: Tokenizer | None) -> dict:
    """What the result depends on; JSON values."""
    return {
        "input": inputs.train.identity,
        "valid": inputs.valid.identity if inputs.valid else None,
        "text_key": config.text_key,
        "valid_fraction": None if inputs.valid else inputs.fraction,
        "seed": config.seed,
        "tokenizer": config.tokenizer,
        "vocab": trained.fingerprint if trained else None,
        "vocab_size": config.vocab_size,
        "sample_characters": config.sample_characters,
        "shard_tokens": config.shard_tokens,
    }


# Second reading: the tokenizer


def _tokenizer(
    folder: Path, inputs: Inputs, survey: Survey, config: PrepareConfig, trained: Tokenizer | None
) -> Tokenizer:
    """The tokenizer in the folder; put there first, given or trained on training documents."""
    place = folder / "tokenizer"
    if (place / tokenizers.DESCRIPTION).exists():
        return loading.load(place)
    tokenizer = trained or _trained(inputs, survey, config)
    tokenizer.save(place)
    return tokenizer


def _trained(inputs: Inputs, survey: Survey, config: PrepareConfig) -> Tokenizer:
    is_original = config.tokenizer == "original"
    share = min(1.0, config.sample_characters / survey.train_characters)
    training = (block for block in divided_blocks(inputs, survey, config) if block.split == TRAIN)
    sample = (
        block
        for index, block in enumerate(training)
        if share == 1 or unit_hash(config.seed, "tokenizer", index) < share
    )
    characters = round(share * survey.train_characters)
    counts = Counter()
    processes = workers.number(config.workers, characters)
    with (
        workers.Progress("counting words", characters) as progress,
        workers.mapping(processes) as mapped,
    ):
        for part in mapped(_original_words if is_original else _units, in_pieces(sample)):
            counts.update(part)
            progress.add(sum(len(unit) * count for unit, count in part.items()))
    usual = min(40_000, max(sentencepiece_bpe.SIZES[0], survey.train_characters // 100))
    say(f"training a tokenizer on {len(counts)} distinct words")
    if is_original:
        learned = vocabulary.learn(counts, config.vocab_size, usual)
        return gpt1_bpe.OriginalTokenizer(learned)
    size = config.vocab_size or usual
    tokenizer = sentencepiece_bpe.train_sentencepiece(counts, size)
    if tokenizer.vocab_size < size:
        say(f"the text has only {tokenizer.vocab_size} pieces; vocab_size is reduced to that")
    return tokenizer


def _units(piece: list[Block]) -> Counter[str]:
    counts = Counter()
    for block in piece:
        counts.update(sentencepiece_bpe.count_units(block.text))
    return counts


def _original_words(piece: list[Block]) -> Counter[str]:
    counts = Counter()
    for block in piece:
        if block.part is not None:
            counts.update(text_rules.count_fixed_words(block.part.fixed))
            continue
        counts.update(text_rules.count_words(block.before + block.text))
        counts.subtract(text_rules.count_words(block.before))
    return +counts


# Manifest


def _manifest(
    inputs: Inputs, survey: Survey, tokenizer: Tokenizer, arguments: dict, splits: dict
) -> dict:
    source = {
        "train": inputs.train.description,
        "valid": inputs.valid.description if inputs.valid else None,
        "sha256": survey.sha256,
        "empty_documents": survey.empty,
    }
    return {
        "format": FORMAT,
        "tokenizer": {
            "mode": tokenizer.mode,
            "fingerprint": tokenizer.fingerprint,
            "vocab_size": tokenizer.vocab_size,
        },
        "dtype": id_dtype(tokenizer).name,
        "source": source,
        "arguments": arguments,
        "splits": splits,
    }


def _summary(output: Path, manifest: Manifest) -> dict:
    splits = {
        name: {key: value for key, value in split.items() if key != "starts"}
        | {"shards": len(split["shards"])}
        for name, split in manifest["splits"].items()
    }
    source = {"sha256": manifest["source"]["sha256"]}
    return {"output": str(output)} | manifest | {"source": source, "splits": splits}
