"""A trained model, from a workdir or from released weights, and what can be done with it.

Shapes: k outputs of a head, C choices.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import jax
import numpy as np

from gpt1_jax.data import task_loading, transformations
from gpt1_jax.data.batches import Examples
from gpt1_jax.data.metrics import undefined
from gpt1_jax.data.task_files import RowFormat, examples_of_rows
from gpt1_jax.data.task_loading import LoadedTask, TaskConfig
from gpt1_jax.data.tasks import TASKS, Example, Task
from gpt1_jax.errors import UserError
from gpt1_jax.evaluation import evaluate, sample
from gpt1_jax.evaluation.evaluate import power_of_two
from gpt1_jax.evaluation.placed_model import PlacedModel
from gpt1_jax.evaluation.sample_config import SampleConfig
from gpt1_jax.inference import activations, inspection, log_probabilities
from gpt1_jax.inference.config import PathsConfig
from gpt1_jax.inference.inspection import Inspection
from gpt1_jax.inference.row_progress import counting
from gpt1_jax.messages import say
from gpt1_jax.model.config import ModelConfig
from gpt1_jax.model.objective import Network, network
from gpt1_jax.recipe import attention_choice, memory
from gpt1_jax.recipe.config_values import build, keys, require_keys
from gpt1_jax.recipe.experiment import Experiment, stored
from gpt1_jax.recipe.network import described
from gpt1_jax.storage.places import here
from gpt1_jax.text import shards
from gpt1_jax.text.shards import Tokens
from gpt1_jax.tokenization.tokenizer import Tokenizer
from gpt1_jax.weights.source import parse_source, read_weights


@dataclass(frozen=True, repr=False)
class TrainedModel:
    """Parameters of a workdir at `step`, with the network and the tokenizer they belong to.
    `task` and `labels` only of a fine-tuned model; `config` is the whole of config.json.

        >>> model = gpt1_jax.load("runs/lm")
        >>> model.sample("It was a bright cold day", num_samples=3)
        >>> model.score("It was a bright cold day")["perplexity"]

    A text longer than the context is a UserError, except in `score`, which reads it in windows, and
    in `predict`, which cuts it by the rules of transformations.py. Where a text is asked for, the
    ids of one are taken as well.
    """

    workdir: Path
    network: Network
    params: dict
    tokenizer: Tokenizer
    step: int
    config: Experiment
    task: Task
    labels: tuple

    def __repr__(self) -> str:
        task = f", fine-tuned on {self.task.name}" if self.task.has_head else ""
        what = described(self.model_config, self.params)
        return f"<TrainedModel of {self.workdir}, step {self.step}: {what}{task}>"

    @property
    def model_config(self) -> ModelConfig:
        return self.network.body.config

    def tokens(self, text: str | Sequence[int]) -> list[str]:
        """The text of each token [L], to stand beside what other methods give for each. A token
        that is a part of a character shows as U+FFFD."""
        return [self.tokenizer.decode([index]) for index in self._ids(text)]

    def sample(self, prompt: str, config: SampleConfig | None = None, **settings) -> list[str]:
        """Texts that continue the prompt, without it. Settings are the fields of SampleConfig:
        length, temperature, top_k, top_p, num_samples, seed, stop."""
        return [self.tokenizer.decode(ids) for ids in self.sample_ids(prompt, config, **settings)]

    def sample_ids(
        self, prompt: str, config: SampleConfig | None = None, **settings
    ) -> list[list[int]]:
        """The same, as the ids that were drawn."""
        require_keys(settings, keys(SampleConfig))
        config = build(SampleConfig, vars(config or SampleConfig()) | settings)
        memory.check_sampling(self.model_config, config.num_samples, "--num_samples")
        tokens_NT = sample.generate(
            self.placed,
            self.tokenizer.encode(prompt),
            config,
            self.tokenizer.vocab_size,
            sample.stop_ids(config.stop, self.tokenizer),
        )
        return [ids[ids >= 0].tolist() for ids in tokens_NT]

    def score(self, text: str | Sequence[int], stride: int | None = None) -> dict:
        """{"ids" [L], "logprobs" [L], "mean_logprob", "perplexity"}: the log-probability in nats of
        each token given those before it, None for the first.

        A text of more than n_ctx + 1 tokens is read in windows of n_ctx that start `stride` apart
        (None: eval.stride of the run), and each token is predicted in the first that reaches it.
        The language model of a fine-tuned model is scored as it is after fine-tuning.
        """
        ids = np.array(self._ids(text), np.int32)
        if not len(ids):
            raise UserError("the text is empty; expected at least one token")
        ((_, logprobs_L),) = self.log_probabilities([ids], self.stride(stride))
        # Through their shortest digits, as in a file: float32 would show digits that mean nothing.
        logprobs = [None, *map(float, logprobs_L[1:].astype(str))]
        return {"ids": ids.tolist(), "logprobs": logprobs, **log_probabilities.summary(logprobs_L)}

    def log_probabilities(
        self, documents: Iterable[np.ndarray], stride: int
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """The ids and the float32 log-probabilities [L] of each document of ids, NaN for the first
        token; as many documents are held as fill a batch."""
        return log_probabilities.log_probabilities(self.placed, documents, stride)

    def stride(self, stride: int | None) -> int:
        """The stride of `score`: as given, else eval.stride of the run. UserError outside 1 to
        n_ctx."""
        return log_probabilities.checked_stride(
            self.config.eval.stride if stride is None else stride, self.model_config.n_ctx
        )

    def hidden_states(self, text: str | Sequence[int]) -> np.ndarray:
        """float32 [n_layer + 1, L, D]: the embedding of each token, then its state after each
        layer. The last one is what the output and a task's head read.

            states = model.hidden_states("It was a bright cold day")
            states[-1].shape == (len(model.tokens("It was a bright cold day")), 768)
        """
        return activations.hidden_states(self.placed, self._ids(text))

    def attention_weights(self, text: str | Sequence[int]) -> np.ndarray:
        """float32 [n_layer, H, L, L]: how much each token (third axis) takes from each token before
        it and from itself (last axis); these sum to 1. UserError for the LSTM, which has none.

            plt.imshow(model.attention_weights("It was a bright cold day")[0, 3])
        """
        return activations.attention_weights(self.placed, self._ids(text))

    def inspect(self, text: str, sampling: PathsConfig | None = None, **settings) -> Inspection:
        """A look inside: what was expected at each token, the attention of every layer and head,
        and sampled paths from the end of the text. It shows itself in a notebook, and saves itself
        as a page. Settings are those of `sample`, here for the paths.

            model.inspect("It was a bright cold day").save("look.html")
        """
        require_keys(settings, keys(PathsConfig))
        sampling = build(PathsConfig, vars(sampling or PathsConfig()) | settings)
        return inspection.inspect(self, text, sampling)

    def evaluate_tokens(self, folder: str | Path | None, split: str) -> tuple[dict, int]:
        """Held-out metrics on a split of a folder of `prepare`, by default that of the training,
        and the number of tokens scored."""
        data = self.config.data
        folder = folder or data.path
        if folder is None:
            raise UserError(f"{self.workdir} was trained without tokens; name some with --data")
        prepared_by = shards.read_manifest(folder)["tokenizer"]["fingerprint"]
        if prepared_by != self.tokenizer.fingerprint:
            raise UserError(
                f"the tokens in {folder} were made by another tokenizer ({prepared_by[:12]}) than "
                f"that of {self.workdir} ({self.tokenizer.fingerprint[:12]})"
            )
        separator = self.tokenizer.separator(data.separator)
        shards.verify(folder, self.workdir / shards.VERIFIED)
        tokens = Tokens.open(folder, split, separator)
        if len(tokens) < 2:
            raise UserError(
                f"the {split} split of {folder} has {len(tokens)} token(s); expected at least 2"
            )
        stride = self.config.eval.stride
        windows = evaluate.window_count(len(tokens), self.model_config.n_ctx, stride)
        with counting(windows, "windows") as add:

            def read(start: int, stop: int) -> np.ndarray:
                add(1)
                return tokens.read(start, stop)

            total, count = evaluate.stream_losses(self.placed, read, len(tokens), stride)
        metrics = evaluate.perplexity_metrics(total, count, len(tokens), tokens.split_info)
        return metrics, count

    def evaluate_task(self, task: str | Path | None, split: str) -> tuple[dict, int, int]:
        """Loss and metrics on a split of the training's task or of another one (see `load_task`),
        None for one that is undefined; the number of tokens read, and of examples that were cut to
        fit."""
        loaded = self.load_task(task, split)
        loaded.require_labels(split)
        logits, n_tokens, n_cut = self._logits(loaded.splits[split])
        metrics = evaluate.task_metrics(loaded, split, logits)
        for line in undefined(metrics, len(logits)):
            say(f"{split}: {line}")
        return metrics, n_tokens, n_cut

    def load_task(self, task: str | Path | None, split: str) -> LoadedTask:
        """A split of the task that the model was trained on, with its labels: from where it was, or
        from the folder `task`, or that of the task of this name, which must have its shape."""
        self.require_task()
        own = self.config.task
        row = None if task is None or str(task) == own.name else TASKS.get(str(task))
        if row is not None and row.shape != self.task.shape:
            raise UserError(
                f"--task={task} is {row.shape}, but {self.workdir} was trained on {self.task.shape}"
            )
        if row is not None:
            config = TaskConfig(name=row.name, data_dir=own.data_dir)
        elif task is None or str(task) in TASKS:
            config = own
        else:
            config = replace(own, path=str(task), train_examples=None, dev_examples=None)
        if not self.task.regression and self.task.shape != "multiple_choice":
            config = replace(config, labels=self.labels)
        loaded = task_loading.load_task(config, only=split, whole=config.path != own.path)
        for note in loaded.notes:
            say(note)
        return loaded if row else replace(loaded, task=self.task)

    def predict(self, rows: Iterable[dict | Example]) -> list[dict]:
        """{"label", "probabilities"} of each row, which is like those of the task's files, with or
        without a label. A score is the label if that is the task; the probabilities are in the
        order of `labels`, or of the choices, None where the score is all there is.

            model.predict([{"text": "a joy from end to end"}])[0]["label"]

        Raises UserError for a language model, and for rows that are none of the task's.
        """
        examples = examples_of_rows(rows, self.row_format)
        answers, n_cut = self.answers(examples)
        if n_cut:
            say(f"{n_cut} of {len(examples)} examples cut to fit n_ctx")
        return answers

    def answers(self, examples: list[Example]) -> tuple[list[dict], int]:
        """`predict` of examples, and the number of them that were cut to fit the context."""
        task = self.require_task()
        logits, _, n_cut = self._logits(examples)
        labels = evaluate.predictions(task, logits).tolist()
        probabilities = evaluate.probabilities(task, logits)
        rows = [None] * len(labels) if probabilities is None else probabilities.tolist()
        # The label of a choice is its place, also where rows have more of them than the training.
        if not task.regression and task.shape != "multiple_choice":
            labels = [self.labels[index] for index in labels]
        pairs = zip(labels, rows, strict=True)
        return [{"label": label, "probabilities": row} for label, row in pairs], n_cut

    @property
    def row_format(self) -> RowFormat:
        """How rows look, as in the training. UserError for a language model."""
        task = self.require_task()
        row = TASKS.get(task.name)
        known = row if row and row.shape == task.shape else None
        return RowFormat(task.shape, self.config.task.columns, known)

    def require_task(self) -> Task:
        """The task it was fine-tuned on. UserError if it is a language model."""
        if not self.task.has_head:
            raise UserError(f"{self.workdir} holds a language model; fine-tune it on a task first")
        return self.task

    def _ids(self, text: str | Sequence[int]) -> list[int]:
        """The ids of a text; ids are checked and taken as they are."""
        if isinstance(text, str):
            return self.tokenizer.encode(text)
        n_rows = self.model_config.n_rows
        for index in text:
            if not 0 <= index < n_rows:
                raise UserError(f"{index} is no id of this model; expected 0 to {n_rows - 1}")
        return list(text)

    @cached_property
    def placed(self) -> PlacedModel:
        """The model on the device, where it stays: what the measures of `evaluation` take."""
        params = jax.device_put(self.params)
        return PlacedModel(self.network, params, batch_size=self.config.eval.batch_size)

    def _logits(self, examples: list[Example]) -> tuple[np.ndarray, int, int]:
        """[N, k], or [N, C] for multiple choice; the number of tokens that went in, and of examples
        that were cut to fit."""
        n_ctx = self.model_config.n_ctx
        candidates, n_cut = transformations.encode_all(
            examples, self.task.shape, self.tokenizer, n_ctx, self.task.truncation
        )
        # Those of like length in one batch, which is padded to the longest.
        order = np.argsort([max(map(len, each)) for each in candidates], kind="stable")
        source = Examples(
            [candidates[index] for index in order],
            None,
            n_ctx=n_ctx,
            batch_size=1,
            seed=0,
            buckets=self.config.data.buckets,
        )
        batch_size = min(self.config.eval.batch_size, power_of_two(len(candidates)))
        sorted_logits = evaluate.answer_all(
            self.placed, source.evaluation(batch_size), len(candidates)
        )
        logits = np.empty_like(sorted_logits)
        logits[order] = sorted_logits
        return logits, sum(len(ids) for each in candidates for ids in each), n_cut


def load(
    source: str | Path,
    step: int | None = None,
    tokenizer: str | None = None,
    for_task: bool = False,
) -> TrainedModel:
    """The model of a run at `step`, by default at its best step if it is fine-tuned, else at the
    newest whose files are sound; or that of weights in another layout: `hf:D`, `hf:NAME` on the
    Hub, `openai:D`, whose text becomes ids in the mode `tokenizer`. Raises UserError if there is
    none, or `for_task` if it has a head that cannot be used."""
    found = read_weights(source, tokenizer, step, for_task)
    kind, name = parse_source(source)
    folder = here(name if kind == "native" else source)
    device = attention_choice.device_of(jax.devices()[0])
    attention = attention_choice.choose("auto", device, found.model).implementation
    return TrainedModel(
        workdir=folder,
        network=network(found.model, attention, found.task.shape, found.n_outputs),
        params=found.params,
        tokenizer=found.tokenizer,
        step=found.step,
        config=stored(found.config, folder / "config.json"),
        task=found.task,
        labels=found.labels,
    )
