"""The verbs that use a model, whose fields are their flags. Nothing heavy is imported before one
runs."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from gpt1_jax.errors import UserError
from gpt1_jax.evaluation.sample_config import SampleConfig
from gpt1_jax.flags import Flag, Quiet, require_one
from gpt1_jax.inference.config import PathsConfig
from gpt1_jax.messages import say, show, tell

if TYPE_CHECKING:
    from gpt1_jax.inference.trained_model import TrainedModel

SOURCES = "a workdir, openai:D, hf:D or hf:NAME on the Hub"


@dataclass(frozen=True, kw_only=True)
class Model:
    """Which model a verb uses."""

    workdir: Annotated[str | None, Flag("a run of train")] = None
    initial: Annotated[str | None, Flag("in its place weights: " + SOURCES, "SOURCE")] = None
    step: Annotated[int | None, Flag("default: the best of a task, else the newest")] = None

    def __post_init__(self):
        require_one(workdir=self.workdir, initial=self.initial)

    def load(self, for_task: bool = False) -> "TrainedModel":
        """`for_task`: to answer as it was fine-tuned to."""
        from gpt1_jax.inference import trained_model

        return trained_model.load(self.source, self.step, for_task=for_task)

    @property
    def source(self) -> str:
        """What to read the weights from: a workdir is a folder, whatever it is called."""
        from gpt1_jax.weights.source import parse_source

        if self.workdir is None:
            return self.initial or ""
        if Path(self.workdir).expanduser().exists():
            return f"native:{self.workdir}"
        if parse_source(self.workdir)[0] != "native":
            raise UserError(
                f"--workdir={self.workdir}: there is no folder of this name; weights that are no "
                f"run of train are named by --initial={self.workdir}"
            )
        return self.workdir


@dataclass(frozen=True, kw_only=True)
class Evaluate:
    """Held-out perplexity, or the metric of a task."""

    model: Model
    split: Annotated[str | None, Flag("default: valid for tokens, dev for a task")] = None
    data: Annotated[str | None, Flag("a folder of prepare", "TOKENS")] = None
    task: Annotated[str | None, Flag("another task of this shape, or a folder", "NAME")] = None
    quiet: Quiet = False

    def __post_init__(self):
        if self.data is not None and self.task is not None:
            raise UserError("--data and --task: give one of them")

    def run(self) -> dict:
        model = self.model.load(for_task=self.task is not None)
        began = time.monotonic()
        if model.task.has_head and self.data is None:
            split = self.split or "dev"
            metrics, n_tokens, n_cut = model.evaluate_task(self.task, split)
            tell(f"{n_cut} examples cut to fit n_ctx")
            return measured(model, split, metrics, n_tokens, began, truncated=n_cut)
        if self.task is not None:
            raise UserError(
                f"{model.workdir} holds a language model, --task needs a fine-tuned one"
            )
        split = self.split or "valid"
        metrics, n_tokens = model.evaluate_tokens(self.data, split)
        found = (f"{name.replace('_', ' ')} {value:.5g}" for name, value in metrics.items())
        tell(f"{split}, {n_tokens:,} tokens predicted: {', '.join(found)}")
        return measured(model, split, metrics, n_tokens, began)


@dataclass(frozen=True, kw_only=True)
class Probes:
    """The zero-shot probes of figure 2, in place of held-out text or a task."""

    model: Model
    probes: Annotated[bool, Flag("zero-shot")] = False
    probe_data: Annotated[
        str | None, Flag("of the probes' task folders; default: TFDS", "FOLDER")
    ] = None
    keys: Annotated[
        Mapping[str, str], Flag("probes.KEY: a key of the probes", "VALUE", name="config.KEY")
    ] = field(default_factory=dict)

    def run(self) -> dict:
        from gpt1_jax.inference import probe_curve
        from gpt1_jax.recipe import experiment

        keys = dict(self.keys)
        if self.probe_data is not None:
            keys["probes.path"] = self.probe_data
        model = self.model.load()
        began = time.monotonic()
        config = experiment.section("probes", model.config.probes, keys)
        rows, n_tokens = probe_curve.of_trained(model, config)
        metrics = {row.pop("probe"): row for row in rows}
        return measured(model, "probes", metrics, n_tokens, began)


def measured(model, split: str, metrics: dict, n_tokens: int, began: float, **more) -> dict:
    """The line of `evaluate`."""
    seconds = time.monotonic() - began
    return {
        "step": model.step,
        "metrics": {split: metrics},
        **more,
        "tokens_per_s": n_tokens / seconds,
    }


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Text that continues a prompt."""

    model: Model
    prompt: Annotated[str, Flag("how the text begins")]
    config: SampleConfig

    def run(self) -> dict:
        model = self.model.load()
        from gpt1_jax.evaluation import sample

        tokenizer, samples = model.tokenizer, []
        for ids in model.sample_ids(self.prompt, self.config):
            samples.append(tokenizer.decode(ids))
            added = sample.continuation(tokenizer, self.prompt, ids)
            show(self.prompt + added + "\n")
        return {"step": model.step, "prompt": self.prompt, "samples": samples}


@dataclass(frozen=True, kw_only=True)
class Score:
    """The log-probability of each token of a text, and its perplexity."""

    model: Model
    input: Annotated[str, Flag("text, or a table of texts; also .gz, .xz", "FILE")]
    text_key: Annotated[str | None, Flag("the column of the text in tables", "COLUMN")] = None
    stride: Annotated[int | None, Flag("between windows; default: eval.stride of the run")] = None
    output: Annotated[str | None, Flag("default: standard output", "G.jsonl")] = None
    quiet: Quiet = False

    def run(self) -> dict:
        from gpt1_jax.inference import batch_inference

        model, stride = self.model.load(), self.stride
        return batch_inference.score(model, self.input, self.output, stride, self.text_key)


@dataclass(frozen=True, kw_only=True)
class Predict:
    """Labels and probabilities of a fine-tuned model."""

    model: Model
    input: Annotated[str, Flag("rows like the task's", "F.jsonl")]
    output: Annotated[str, Flag("", "G.jsonl")]
    quiet: Quiet = False

    def run(self) -> dict:
        from gpt1_jax.inference import predictions

        result = predictions.predict(self.model.load(for_task=True), self.input, self.output)
        tell(f"{result['truncated']} of {result['examples']} examples cut to fit n_ctx")
        for line in predictions.confusion_lines(result):
            tell(line)
        return result


@dataclass(frozen=True, kw_only=True)
class Submission:
    """A file for the GLUE server, by default of the test set."""

    model: Model
    glue: Annotated[bool, Flag("in the form of the GLUE server")] = False
    input: Annotated[str | None, Flag("rows like the task's", "F.jsonl")] = None
    output: Annotated[str, Flag("", "G.tsv")]
    task: Annotated[str | None, Flag("another task, such as ax", "NAME")] = None

    def run(self) -> dict:
        from gpt1_jax.inference import glue_submission

        model = self.model.load(for_task=True)
        return glue_submission.submit(model, self.output, task=self.task, path=self.input)


@dataclass(frozen=True, kw_only=True)
class Inspect:
    """One page that looks inside: surprise, alternatives, attention, sampling paths."""

    model: Model
    prompt: Annotated[str, Flag("the text to look at")]
    output: Annotated[str, Flag("the page", "F.html")]
    config: PathsConfig

    def run(self) -> dict:
        from gpt1_jax import disk
        from gpt1_jax.run_files import files_of
        from gpt1_jax.storage import places

        with places.output(self.output) as page:
            disk.output_path(page)  # said before the model is loaded
            model = self.model.load()
            disk.output_path(page, files_of(model.workdir))
            found = model.inspect(self.prompt, self.config)
            found.save(page)
        say(f"{self.output}: open it in a browser; it needs nothing else")
        return {
            "step": model.step,
            "output": self.output,
            "tokens": len(found.places),
            "perplexity": found.perplexity,
        }
