"""Documents -> token shards on disk, and the token stream they make.

`prepare` reads its documents three times, each time in their order and in bounded memory: to check
and count them, to count the words that the tokenizer is trained on, and to encode them into the
shards that shards.py describes. Until all is done everything is in a subfolder `unfinished`, with a
journal from which the same arguments continue. The result is a function of the arguments alone,
whatever the number of workers and however often it was interrupted.
"""

import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

from gpt1_jax import json_files
from gpt1_jax.disk import WorkdirLock, as_user_error, new_folder, write_json
from gpt1_jax.errors import Interrupted, UserError
from gpt1_jax.messages import say, tell
from gpt1_jax.storage import places
from gpt1_jax.text import workers, workplace
from gpt1_jax.text.config import PrepareConfig
from gpt1_jax.text.division import (
    Block,
    Count,
    Survey,
    blocks_of_unit,
    count,
    divided_units,
    sampled,
    survey_of,
    take_survey,
)
from gpt1_jax.text.encoding import encode_blocks, encode_unit, id_dtype, in_pieces, join_units
from gpt1_jax.text.inputs import Inputs, Unit, check_config, find_inputs
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
    output = places.here(config.output, new=True)
    workplace.check_apart(output, inputs.paths)
    # Whatever is decided by what lies in the folder is decided by the one that has it.
    with as_user_error(output), WorkdirLock(output, "preparing", "--output"):
        manifest = _already(output, inputs, config, arguments)
        if manifest is None:
            manifest = _prepared(output, inputs, config, trained, arguments)
        places.send(output)
    return _summary(config.output, manifest) | {"seconds": round(time.monotonic() - began, 1)}


def _already(
    output: Path, inputs: Inputs, config: PrepareConfig, arguments: dict
) -> Manifest | None:
    """The manifest of a finished folder, if the same arguments and the same text made it."""
    if not (output / MANIFEST).exists():
        return None
    manifest = read_manifest(output)
    workplace.check_same(output, manifest["arguments"], arguments)
    if manifest["format"] != FORMAT:
        raise UserError(
            f"{output}: prepared by an earlier version, whose checksum of the text was another; "
            "it is read as it is, or choose another --output to prepare the text anew"
        )
    then = manifest["source"]["sha256"]
    if not inputs.fixed and (now := take_survey(inputs, config).sha256) != then:
        raise UserError(
            f"{output}: prepared from another text of the same length (sha256 {then[:12]}, now "
            f"{now[:12]}); choose another --output, or delete the folder"
        )
    workplace.clear(output)
    tell(f"{output} is already prepared with these arguments; nothing to do")
    return manifest


def _prepared(
    output: Path, inputs: Inputs, config: PrepareConfig, trained: Tokenizer | None, arguments: dict
) -> Manifest:
    workplace.check_free(output, arguments)
    beam = None
    if config.runner == "beam":
        beam = _OverBeam(workplace.begin(output, arguments), inputs, config)
    try:
        before = workplace.survey_so_far(output)
        if beam:
            survey = beam.survey()
        else:
            survey = before if before and inputs.fixed else take_survey(inputs, config)
        if before not in (None, survey):
            tell(f"{output}: the text has changed since it was begun, so it begins anew")
            workplace.clear(output)
        if isinstance(inputs.train, Files):
            tell(inputs.train.describe())
        folder = workplace.begin(output, arguments)
        workplace.keep_survey(folder, survey)
        if not (folder / MANIFEST).exists():
            tokenizer = _tokenizer(folder, inputs, survey, config, trained, beam)
            if beam:
                splits = beam.splits(survey, tokenizer)
            else:
                splits = encode_blocks(folder, inputs, survey, config, tokenizer)
            manifest = _manifest(inputs, survey, tokenizer, arguments, splits)
            write_json(folder / MANIFEST, manifest, indent=None)
        workplace.move_up(output)
    except UserError as error:
        # What is mended is another text, with other arguments.
        if isinstance(error, TextChanged) or (beam and not workplace.survey_so_far(output)):
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
    folder: Path,
    inputs: Inputs,
    survey: Survey,
    config: PrepareConfig,
    trained: Tokenizer | None,
    beam: "_OverBeam | None",
) -> Tokenizer:
    """The tokenizer in the folder; put there first, given or trained on training documents."""
    place = folder / "tokenizer"
    if (place / tokenizers.DESCRIPTION).exists():
        return loading.load(place)
    tokenizer = trained
    if tokenizer is None:
        words = beam.words(survey) if beam else _words(inputs, survey, config)
        tokenizer = _learned(words, survey, config)
    tokenizer.save(place)
    return tokenizer


def _share(survey: Survey, config: PrepareConfig) -> float:
    """Of the training text that a tokenizer is trained on."""
    return min(1.0, config.sample_characters / survey.train_characters)


def _words(inputs: Inputs, survey: Survey, config: PrepareConfig) -> Counter[str]:
    share = _share(survey, config)
    sample = chain.from_iterable(
        sampled(blocks, number, config.seed, share)
        for number, blocks in enumerate(divided_units(inputs, survey, config))
    )
    characters = round(share * survey.train_characters)
    counts = Counter()
    processes = workers.number(config.workers, characters)
    with (
        workers.Progress("counting words", characters) as progress,
        workers.mapping(processes) as mapped,
    ):
        for part in mapped(word_counter(config), in_pieces(sample)):
            counts.update(part)
            progress.add(sum(len(unit) * count for unit, count in part.items()))
    return counts


def _learned(counts: Counter[str], survey: Survey, config: PrepareConfig) -> Tokenizer:
    usual = min(40_000, max(sentencepiece_bpe.SIZES[0], survey.train_characters // 100))
    tell(f"training a tokenizer on {len(counts)} distinct words")
    if config.tokenizer == "original":
        learned = vocabulary.learn(counts, config.vocab_size, usual)
        return gpt1_bpe.OriginalTokenizer(learned)
    size = config.vocab_size or usual
    tokenizer = sentencepiece_bpe.train_sentencepiece(counts, size)
    if tokenizer.vocab_size < size:
        say(f"the text has only {tokenizer.vocab_size} pieces; vocab_size is reduced to that")
    return tokenizer


def word_counter(config: PrepareConfig) -> Callable[[list[Block]], Counter[str]]:
    """What counts the words of blocks, of which the tokenizer of `config` is made."""
    return _original_words if config.tokenizer == "original" else _units


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


# The three readings over Beam

_READINGS = {"count": "reading", "words": "counting words", "encode": "encoding"}


@dataclass(frozen=True)
class _UnitJob:
    """One reading of one unit, done by a worker of Beam, and what came of it kept as JSON in
    `folder`: {"unit", "value"}, or {"unit", "error", "changed"} for a mistake of the user's."""

    name: str
    folder: Path
    config: PrepareConfig
    chance: float
    survey: Survey | None = None

    def __call__(self, item: tuple[int, Unit]) -> None:
        number, unit = item
        try:
            outcome = {"value": self.value(number, unit)}
        except UserError as error:
            outcome = {"error": str(error), "changed": isinstance(error, TextChanged)}
        write_json(self.path(number), {"unit": unit.source.identity, **outcome}, indent=None)

    def path(self, number: int) -> Path:
        return self.folder / f"{self.name}-{number:06d}.json"

    def kept(self, number: int, unit: Unit) -> dict | None:
        """What came of a unit, if it is the one that is there now."""
        try:
            found = json_files.read(self.path(number), dict[str, Any], "prepare again")
        except FileNotFoundError:
            return None
        return found if found.get("unit") == unit.source.identity else None

    def value(self, number: int, unit: Unit) -> Any:
        if self.name == "count":
            return asdict(count(unit, self.config.seed, self.chance))
        if self.name == "words":
            share = _share(self.survey, self.config)
            sample = sampled(self._blocks(number, unit), number, self.config.seed, share)
            words = Counter()
            for piece in in_pieces(sample):
                words.update(word_counter(self.config)(piece))
            return words
        target = self.folder / f"encode-{number:06d}"
        shutil.rmtree(target, ignore_errors=True)  # of an attempt that was killed
        with new_folder(target, "--output") as place:
            tokenizer = self.folder.parent / "tokenizer"
            return encode_unit(self._blocks(number, unit), tokenizer, place)

    def _blocks(self, number: int, unit: Unit) -> Iterator[Block]:
        counted = replace(self, name="count").kept(number, unit)
        if counted is None:
            raise TextChanged(f"{unit.source.identity}: changed while it was prepared")
        (digest,) = counted["value"]["digests"]
        return blocks_of_unit(unit, digest, self.chance, self.survey, self.config)


class _OverBeam:
    """The same work by unit, on Apache Beam. What came of each unit is kept in the folder, so that
    the same command does what is missing."""

    def __init__(self, folder: Path, inputs: Inputs, config: PrepareConfig):
        assert isinstance(inputs.train, Files)
        self._folder, self._inputs, self._config = folder, inputs, config

    def survey(self) -> Survey:
        counts = [Count(**value) for value in self._done("count")]
        return survey_of(self._inputs, counts)

    def words(self, survey: Survey) -> Counter[str]:
        found = Counter()
        for words in self._done("words", survey):
            found.update(words)
        return found

    def splits(self, survey: Survey, tokenizer: Tokenizer) -> dict[str, dict]:
        found = enumerate(self._done("encode", survey))
        units = self._folder / workplace.UNITS
        places = ((units / f"encode-{number:06d}", splits) for number, splits in found)
        limit, dtype = self._config.shard_tokens, id_dtype(tokenizer)
        return join_units(self._folder, places, self._inputs.splits, limit, dtype)

    def _done(self, name: str, survey: Survey | None = None) -> list[Any]:
        """What comes of a reading of each unit, in order."""
        folder = self._folder.absolute() / workplace.UNITS
        folder.mkdir(exist_ok=True)
        job = _UnitJob(name, folder, self._config, self._inputs.chance, survey)
        units = list(enumerate(self._inputs.units))
        missing = [item for item in units if job.kept(*item) is None]
        if missing:
            tell(f"{_READINGS[name]}: {len(missing)} of {len(units)} files over Beam")
            processes = min(self._config.workers or workers.cores(), len(missing))
            workers.over_beam(job, missing, self._config.beam_options, processes)
        outcomes = [job.kept(*item) for item in units]
        for (number, unit), outcome in zip(units, outcomes, strict=True):
            if outcome is None or "error" in outcome:
                job.path(number).unlink(missing_ok=True)
                changed = outcome is None or outcome["changed"]
                said = outcome["error"] if outcome else f"{unit.source.identity}: changed meanwhile"
                raise TextChanged(said) if changed else UserError(said)
        return [outcome["value"] for outcome in outcomes]


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


def _summary(output: str, manifest: Manifest) -> dict:
    splits = {
        name: {key: value for key, value in split.items() if key != "starts"}
        | {"shards": len(split["shards"])}
        for name, split in manifest["splits"].items()
    }
    source = {"sha256": manifest["source"]["sha256"]}
    return {"output": output} | manifest | {"source": source, "splits": splits}
