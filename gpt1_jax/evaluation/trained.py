"""A trained model from a workdir, and what can be done with it.

Shapes: k outputs of a head, C choices.
"""

import dataclasses
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np

from gpt1_jax.data import tasks, transformations
from gpt1_jax.data.batches import Examples
from gpt1_jax.data.tasks import TASKS, Example, LoadedTask, Task, TaskConfig
from gpt1_jax.errors import UserError
from gpt1_jax.evaluation import evaluate, sample
from gpt1_jax.evaluation.evaluate import EvaluationConfig
from gpt1_jax.evaluation.sample import SampleConfig
from gpt1_jax.model.gpt import ModelConfig
from gpt1_jax.model.objective import Network, network
from gpt1_jax.text import corpus
from gpt1_jax.text import tokenizer as tokenizers
from gpt1_jax.text.corpus import Tokens
from gpt1_jax.text.tokenizer import Tokenizer
from gpt1_jax.training.checkpoint import Checkpoints


@dataclass(frozen=True)
class Trained:
    """Parameters of a workdir at `step`, with the network and the tokenizer they belong to.
    `task` and `labels` only of a fine-tuned model; `config` is the whole config.json."""

    workdir: Path
    network: Network
    params: dict
    tokenizer: Tokenizer
    step: int
    config: dict
    task: Task | None
    labels: tuple

    @property
    def model_config(self) -> ModelConfig:
        return self.network.body.config

    def sample(self, prompt: str, config: SampleConfig) -> list[str]:
        """Texts that continue the prompt, without it."""
        prompt_ids = self.tokenizer.encode(prompt)
        n_text = self.tokenizer.vocab_size
        tokens_NT = sample.generate(self.network, self.params, prompt_ids, config, n_text)
        return [self.tokenizer.decode(ids) for ids in tokens_NT.tolist()]

    def evaluate_tokens(self, folder: str | Path | None, split: str) -> tuple[dict, int]:
        """Held-out metrics on a split of a folder of `prepare`, by default that of the training,
        and the number of tokens scored."""
        data = self.config["data"]
        folder = folder or data["path"]
        if folder is None:
            raise UserError(f"{self.workdir} was trained without tokens; name some with --data")
        prepared_by = corpus.read_manifest(folder)["tokenizer"]["fingerprint"]
        if prepared_by != self.tokenizer.fingerprint:
            raise UserError(
                f"the tokens in {folder} were made by another tokenizer ({prepared_by[:12]}) than "
                f"that of {self.workdir} ({self.tokenizer.fingerprint[:12]})"
            )
        separator = self.tokenizer.end if data["separator"] == "end" else None
        tokens = Tokens.open(folder, split, separator)
        if len(tokens) < 2:
            raise UserError(
                f"the {split} split of {folder} has {len(tokens)} token(s); expected at least 2"
            )
        total, count = evaluate.stream_losses(
            self.network,
            self.params,
            tokens.read,
            len(tokens),
            EvaluationConfig(**self.config["eval"]),
            jax.device_put,
        )
        metrics = evaluate.perplexity_metrics(total, count, len(tokens), tokens.split_info)
        return metrics, count

    def evaluate_task(self, task: str | Path | None, split: str) -> tuple[dict, int, int]:
        """Loss and metrics on a split of the training's task or of another one (see `load_task`);
        the number of tokens read, and of examples that were cut to fit."""
        loaded = self.load_task(task, split)
        loaded.require_labels(split)
        logits, n_tokens, n_cut = self._logits(loaded.splits[split])
        return evaluate.task_metrics(loaded, split, logits), n_tokens, n_cut

    def load_task(self, task: str | Path | None, split: str) -> LoadedTask:
        """A split of the task that the model was trained on, with its labels: from where it was, or
        from the folder `task`, or that of the task of this name, which must have its shape."""
        self._require_task()
        own = TaskConfig(**self.config["task"])
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
            config = dataclasses.replace(
                own, path=str(task), train_examples=None, dev_examples=None
            )
        if not self.task.regression and self.task.shape != "multiple_choice":
            config = dataclasses.replace(config, labels=self.labels)
        loaded = tasks.load(config, only=split)
        for note in loaded.notes:
            print(note, file=sys.stderr)
        return loaded if row else dataclasses.replace(loaded, task=self.task)

    def predict(self, examples: list[Example]) -> list[dict]:
        """{"label", "probabilities"} of each example; a score for a label if that is the task, and
        the probabilities in the order of the labels, None where the score is all there is."""
        self._require_task()
        logits, _, n_cut = self._logits(examples)
        if n_cut:
            print(f"{n_cut} of {len(examples)} examples cut to fit n_ctx", file=sys.stderr)
        labels = evaluate.predictions(self.task, logits).tolist()
        probabilities = evaluate.probabilities(self.task, logits)
        rows = [None] * len(labels) if probabilities is None else probabilities.tolist()
        if not self.task.regression:
            labels = [self.labels[index] for index in labels]
        return [
            {"label": label, "probabilities": row} for label, row in zip(labels, rows, strict=True)
        ]

    def predict_file(self, path: str | Path, output: str | Path) -> int:
        """Writes a JSON line with the prediction of each row of `path`, which are like those of the
        task's files, with or without labels. Returns their number."""
        self._require_task()
        path, output = Path(path), Path(output)
        if not output.parent.is_dir():
            raise UserError(f"--output={output}: there is no folder {output.parent}")
        if not os.access(output.parent, os.W_OK):
            raise UserError(f"--output={output}: the folder {output.parent} cannot be written to")
        if output.is_dir():
            raise UserError(f"--output={output} is a folder; expected a file in it")
        if output.exists() and path.exists() and output.samefile(path):
            raise UserError(f"--output={output} is the file of --input; choose another")
        examples = tasks.read(path, self.task.shape)
        predictions = self.predict(examples)
        temporary = output.with_name(output.name + ".tmp")
        with temporary.open("w") as file:
            for row in predictions:
                file.write(json.dumps(row) + "\n")
        os.replace(temporary, output)
        return len(examples)

    def _require_task(self) -> None:
        if self.task is None:
            raise UserError(f"{self.workdir} holds a language model; fine-tune it on a task first")

    def _logits(self, examples: list[Example]) -> tuple[np.ndarray, int, int]:
        """[N, k], or [N, C] for multiple choice; the number of tokens that went in, and of examples
        that were cut to fit."""
        n_ctx = self.model_config.n_ctx
        candidates, n_cut = transformations.encode_all(
            examples, self.task.shape, self.tokenizer, n_ctx, self.task.truncation
        )
        source = Examples(
            candidates,
            None,
            n_ctx=n_ctx,
            batch_size=1,
            seed=0,
            buckets=tuple(self.config["data"]["buckets"]),
        )
        batches = source.evaluation(self.config["eval"]["batch_size"])
        logits = evaluate.answer_all(
            self.network, self.params, batches, jax.device_put, len(candidates)
        )
        n_tokens = sum(len(ids) for example in candidates for ids in example)
        return logits, n_tokens, n_cut


def load(workdir: str | Path, step: int | None = None) -> Trained:
    """The model of a run at `step`; by default at its best step if it is fine-tuned, else at the
    newest whose files are sound. Raises UserError if there is none."""
    workdir = Path(workdir).expanduser()
    config = read_config(workdir)
    checkpoints = Checkpoints(workdir)
    step = _chosen_step(checkpoints, workdir, step)
    resolved = config["resolved"]
    task = Task(**resolved["task"]) if resolved["task"] else None
    trained = Trained(
        workdir=workdir,
        network=network(
            ModelConfig(**config["model"]), "plain", task and task.shape, resolved["n_outputs"]
        ),
        params=checkpoints.load_params(step),
        tokenizer=tokenizers.load(workdir / "tokenizer"),
        step=step,
        config=config,
        task=task,
        labels=tuple(resolved["labels"]),
    )
    checkpoints.close()
    return trained


def read_config(workdir: Path) -> dict:
    """config.json of a run. UserError if there is none, or it is not one that `train` wrote."""
    path = workdir / "config.json"
    try:
        config = json.loads(path.read_text())
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{workdir} is no workdir of a run: it has no config.json") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}") from None
    if not (isinstance(config, dict) and "resolved" in config and "identity" in config):
        raise UserError(f"{path} is not that of a run; expected a folder that `train` made")
    return config


def _chosen_step(checkpoints: Checkpoints, workdir: Path, step: int | None) -> int:
    steps = checkpoints.steps()
    if step is not None:
        if step not in steps:
            known = ", ".join(map(str, steps)) or "none"
            raise UserError(f"{workdir} has no checkpoint of step {step}; it has {known}")
        return step
    newest, complaints = checkpoints.newest_sound()
    if newest is None:
        why = f": {complaints[0]}" if complaints else ""
        raise UserError(f"{workdir} has no usable checkpoint{why}")
    best = checkpoints.progress(newest).get("best_step")
    return best if best in steps else newest
