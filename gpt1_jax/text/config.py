"""What is to be prepared, and compared."""

from dataclasses import dataclass
from typing import Annotated, Literal

from gpt1_jax.flags import Flag
from gpt1_jax.tokenization.tokenizer import Mode, VocabularyMode

VALID_FRACTION = 0.01


@dataclass(frozen=True, kw_only=True)
class PrepareConfig:
    """What to prepare, and how.

    output: the folder to make.
    inputs: globs of text files and tables, see sources.Files; or
    tfds: a text set of TFDS, with data_dir in place of its usual folder.
    text_key: the column of tables that holds the text of a document; None is `text` of JSON.
    tokenizer: its mode; vocab: a folder with a trained one, used as it is; of the modes original
      and hf_basic also one with the released vocabulary, or its name on the Hub.
    vocab_size: of the one to train (sentencepiece, original); None is 40,000 (original: merges),
      less for a corpus of under 4 million characters: one for each hundred. A corpus with fewer
      possible pieces gets what there are.
    valid: globs of the validation files; they are taken out of inputs. Otherwise
    valid_fraction: of the documents, chosen by a hash of seed and name, at least one; a single
      document gives its tail; 0 gives none. None is VALID_FRACTION, or the held-out split of a
      TFDS set.
    workers: processes; None is the number of cores.
    runner: local, or beam: the files of inputs divided over Apache Beam, to the same result.
    beam_options: what Beam is told, in its own flags; None is its DirectRunner with `workers`.
    shard_tokens: length of a shard; the last one is shorter.
    sample_characters: the tokenizer is trained on about as much text, drawn with seed.
    """

    output: Annotated[str, Flag("folder for shards, manifest and tokenizer", "D")]
    inputs: Annotated[
        tuple[str, ...],
        Flag("text files and tables, also .gz or .xz", "GLOB", name="input", several=True),
    ] = ()
    text_key: Annotated[
        str | None, Flag("the column of the text in tables; default: text, of JSON", "COLUMN")
    ] = None
    tfds: Annotated[str | None, Flag("a TensorFlow Datasets text set", "NAME")] = None
    data_dir: Annotated[str | None, Flag("where TensorFlow Datasets keeps its data", "D")] = None
    tokenizer: Annotated[Mode, Flag()] = "sentencepiece"
    vocab: Annotated[
        str | None, Flag("take the tokenizer or vocabulary there, or on the Hub", "FOLDER")
    ] = None
    vocab_size: Annotated[
        int | None, Flag("ids to learn; default: 40000, less for small corpora")
    ] = None
    valid: Annotated[tuple[str, ...], Flag("files of the valid split", "GLOB", several=True)] = ()
    valid_fraction: Annotated[
        float | None, Flag(f"share of documents for the valid split; default: {VALID_FRACTION}")
    ] = None
    workers: Annotated[int | None, Flag("processes; default: one for each core")] = None
    runner: Annotated[Literal["local", "beam"], Flag("what does the work")] = "local"
    beam_options: Annotated[
        str | None, Flag("Beam's own flags in one word; default: its DirectRunner", "FLAGS")
    ] = None
    seed: Annotated[int, Flag("of the choice of valid documents")] = 0
    shard_tokens: int = 2**26
    sample_characters: int = 2**27


@dataclass(frozen=True, kw_only=True)
class CompareConfig:
    """modes: two different ones. inputs, text_key: as of PrepareConfig. vocab: the vocabulary of
    both, a folder or a name on the Hub. workers: processes; None is the number of cores."""

    modes: Annotated[tuple[VocabularyMode, ...], Flag("the two", "MODE,MODE", name="compare")]
    inputs: Annotated[tuple[str, ...], Flag("text files", "GLOB", name="input", several=True)]
    text_key: Annotated[str | None, Flag("the column of the text in tables", "COLUMN")] = None
    vocab: Annotated[str, Flag("the vocabulary of both, a folder or on the Hub", "FOLDER")]
    workers: Annotated[int | None, Flag("processes; default: one for each core")] = None
