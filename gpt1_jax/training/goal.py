"""What a run trains towards: the text itself, or a task. All that differs between the two is here.

Both give the batches to train on, a digest of the data, and what is measured of the model while it
is trained.
"""

import hashlib
import itertools
import json
import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol

import numpy as np

from gpt1_jax.data import task_loading, transformations
from gpt1_jax.data.batches import Examples, Windows
from gpt1_jax.data.metrics import METRICS, undefined
from gpt1_jax.data.task_loading import LoadedTask
from gpt1_jax.data.tasks import NO_TASK
from gpt1_jax.evaluation import evaluate
from gpt1_jax.evaluation.baselines import baselines
from gpt1_jax.evaluation.evaluate import EvaluationConfig
from gpt1_jax.evaluation.placed_model import PlacedModel
from gpt1_jax.messages import say
from gpt1_jax.recipe.experiment import Experiment
from gpt1_jax.text import shards
from gpt1_jax.text.shards import Tokens
from gpt1_jax.tokenization.tokenizer import Tokenizer

# Fewer updates than this leave a classifier near where it began.
FEW_UPDATES = 100
# Training examples that the bag of words learns from at most, so that it takes seconds.
BASELINE_EXAMPLES = 10_000


@dataclass(frozen=True)
class Measurement:
    """What was found on a split, by name, None for what is undefined. `score` is what the best
    checkpoint is chosen by, of a task; `remarks` are for the person who watches."""

    split: str
    metrics: dict[str, float | None]
    score: float | None = None
    remarks: tuple[str, ...] = ()


class Goal(Protocol):
    """What `LanguageModelling` and `FineTuning` have in common.

    loaded: the task, of which there is none in pre-training. source: of the batches. digest: of the
    data; digests: of its splits, which tell what of it changed. steps_per_epoch: updates of an
    epoch where evaluation follows epochs. longest: tokens of the longest sequence that the model
    meets.
    """

    loaded: LoadedTask
    digest: str
    digests: dict[str, str]

    @property
    def source(self) -> Windows | Examples: ...

    @property
    def steps_per_epoch(self) -> int | None: ...

    @property
    def longest(self) -> int: ...

    def measure(self, model: PlacedModel, config: EvaluationConfig) -> Iterator[Measurement]:
        """The measurements of an evaluation, each as it is ready."""
        ...

    def windows(self, config: EvaluationConfig) -> tuple[int, int] | None:
        """Of the held-out text, the windows that `measure` reads, and all; None where there is
        none."""
        ...

    def compared(self) -> dict[str, float]:
        """Scores of rules that do not learn to read, to set beside the model's."""
        ...

    def opening(self, total_steps: int) -> list[str]:
        """What a person should know before the first step, a line each."""
        ...


def loaded_task(experiment: Experiment) -> LoadedTask:
    """The task that is to be learned; that of a language model is NO_TASK."""
    if not experiment.is_task:
        return LoadedTask(NO_TASK, (), {})
    loaded = task_loading.load_task(experiment.task)
    # Examples that are missing are no progress: they are said also to those who asked for quiet.
    for note in loaded.notes:
        say(note)
    metric, labels = loaded.task.metrics[0], [one.label for one in loaded.splits["dev"]]
    for line in undefined({metric: METRICS[metric](labels, labels)}, len(labels)):
        say(f"dev: {line}, so that no checkpoint is the best by it")
    return loaded


def goal(
    experiment: Experiment,
    tokenizer: Tokenizer,
    loaded: LoadedTask,
    tell: Callable[[str], None],
    packed: bool = False,
) -> Goal:
    """The goal of a run, with its data read; `packed` as in `Examples`. Raises UserError for data
    that do not fit."""
    if loaded.task.has_head:
        return FineTuning(experiment, tokenizer, loaded, tell, packed)
    return LanguageModelling(experiment, tokenizer, loaded, tell)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


class LanguageModelling:
    """Pre-training: windows of the train split of `data.path`, measured on its valid split."""

    steps_per_epoch: int | None = None

    def __init__(
        self,
        experiment: Experiment,
        tokenizer: Tokenizer,
        loaded: LoadedTask,
        tell: Callable[[str], None],
    ):
        config, n_ctx = experiment.data, experiment.model.n_ctx
        manifest = shards.read_manifest(config.path)
        separator = tokenizer.separator(config.separator)
        tokens = Tokens.open(config.path, "train", separator)
        self.loaded, self.longest = loaded, n_ctx
        self.source = Windows(tokens, n_ctx, experiment.batch_size, experiment.seed, config.windows)
        checksums = {
            name: [shard["sha256"] for shard in split["shards"]]
            for name, split in manifest["splits"].items()
        }
        self.digest = _digest(json.dumps([*itertools.chain(*checksums.values())]))
        self.digests = {name: _digest(json.dumps(of_one)) for name, of_one in checksums.items()}
        self.held_out = None
        if "valid" in manifest["splits"]:
            self.held_out = Tokens.open(config.path, "valid", separator)
            if len(self.held_out) < 2:
                tell(f"the valid split of {config.path} has one token, too few to evaluate")
                self.held_out = None

    def measure(self, model: PlacedModel, config: EvaluationConfig) -> Iterator[Measurement]:
        """Loss, perplexity and bits per byte of the valid split, if there is one."""
        if self.held_out is None:
            return
        n_tokens = len(self.held_out)
        total, count = evaluate.stream_losses(
            model, self.held_out.read, n_tokens, config.stride, config.windows
        )
        info = self.held_out.split_info
        yield Measurement("valid", evaluate.perplexity_metrics(total, count, n_tokens, info))

    def windows(self, config: EvaluationConfig) -> tuple[int, int] | None:
        if self.held_out is None:
            return None
        there_are = evaluate.window_count(len(self.held_out), self.longest, config.stride)
        return min(config.windows or there_are, there_are), there_are

    def compared(self) -> dict[str, float]:
        return {}

    def opening(self, total_steps: int) -> list[str]:
        return []


class FineTuning:
    """A task: its examples as sequences of ids, measured on its dev split."""

    def __init__(
        self,
        experiment: Experiment,
        tokenizer: Tokenizer,
        loaded: LoadedTask,
        tell: Callable[[str], None],
        packed: bool = False,
    ):
        self.loaded = loaded
        self._experiment, self._tokenizer = experiment, tokenizer
        described = {}
        for split in ("train", "dev"):
            candidates, cut = self._encoded(loaded, split)
            tell(f"{loaded.task.name} {split}: {len(candidates)} examples, {cut} cut to fit n_ctx")
            targets = loaded.targets(split)
            described[split] = json.dumps([candidates, targets.tolist()])
            examples = Examples(
                candidates,
                targets,
                n_ctx=experiment.model.n_ctx,
                batch_size=experiment.batch_size,
                seed=experiment.seed,
                buckets=experiment.data.buckets,
                packed=packed,
            )
            if split == "train":
                self.source = examples
            else:
                self.dev = examples
        self.digest = _digest("".join(described.values()))
        self.digests = {split: _digest(text) for split, text in described.items()}
        _ = self.steps_per_epoch  # refuses a training set smaller than a batch

    @property
    def steps_per_epoch(self) -> int:
        return self.source.steps_per_epoch

    @cached_property
    def longest(self) -> int:
        """Over all splits that there are, test too."""
        longest = max(self.source.longest, self.dev.longest)
        if "test" in self.loaded.available:
            test, _ = self._encoded(
                task_loading.load_task(self._experiment.task, only="test"), "test"
            )
            longest = max(longest, *(len(ids) for candidates in test for ids in candidates))
        return longest

    def measure(self, model: PlacedModel, config: EvaluationConfig) -> Iterator[Measurement]:
        """Loss and metrics of the dev split; and of the first eval.train_examples of train."""
        logits = self._logits(model, self.dev, len(self.dev))
        metrics = evaluate.task_metrics(self.loaded, "dev", logits)
        score = metrics[self.loaded.task.metric]
        remarks = (*self._remarks(logits), *undefined(metrics, len(logits)))
        yield Measurement("dev", metrics, score, remarks)
        if config.train_examples:
            count = min(config.train_examples, len(self.source))
            logits = self._logits(model, self.source, count)
            metrics = evaluate.task_metrics(self.loaded, "train", logits)
            yield Measurement("train_examples", metrics, remarks=undefined(metrics, count))

    def windows(self, config: EvaluationConfig) -> None:
        return None

    def compared(self) -> dict[str, float]:
        """The majority and a bag of words, which learns from BASELINE_EXAMPLES at most."""
        splits = self.loaded.splits
        train = splits["train"][:BASELINE_EXAMPLES]
        found = baselines(replace(self.loaded, splits={**splits, "train": train}))
        shown = {"majority": "majority", "bag of words": "bag_of_words"}
        return {title: found[name] for title, name in shown.items() if name in found}

    def opening(self, total_steps: int) -> list[str]:
        """The classes with their counts; and whether the updates are too few."""
        found = self.loaded.describe()
        if total_steps >= FEW_UPDATES:
            return found
        return [
            *found,
            f"{total_steps} updates are few for a task: a classifier may end as it began, with one "
            "answer for everything; more epochs may suit a small training set, and "
            "docs/fine_tuning.md has a recipe",
        ]

    def _encoded(self, loaded: LoadedTask, split: str) -> tuple[list, int]:
        task, n_ctx = loaded.task, self._experiment.model.n_ctx
        return transformations.encode_all(
            loaded.splits[split], task.shape, self._tokenizer, n_ctx, task.truncation
        )

    def _logits(self, model: PlacedModel, examples: Examples, count: int) -> np.ndarray:
        """Of the first `count` examples."""
        batches = examples.evaluation(model.batch_size)
        needed = itertools.islice(batches, math.ceil(count / model.batch_size))
        return evaluate.answer_all(model, needed, count)

    def _remarks(self, logits: np.ndarray) -> tuple[str, ...]:
        """A line where all predictions are the same class, which no metric says."""
        task = self.loaded.task
        if task.regression or task.shape == "multiple_choice" or len(logits) < 2:
            return ()
        counts = Counter(evaluate.predictions(task, logits).tolist())
        if len(counts) > 1:
            return ()
        label = self.loaded.labels[next(iter(counts))]
        return (f"every prediction is {label!r}: the model says one class for all of dev",)
