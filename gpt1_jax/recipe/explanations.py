"""What each key of a config is, in a line; the classes that hold them say more."""

import shutil
import textwrap
from collections.abc import Iterator

from gpt1_jax.recipe.experiment import Experiment, values

EXPLANATIONS = {
    "steps": "updates in all",
    "epochs": "in place of steps: passes over the training data",
    "batch_size": "sequences, or examples of a task, an update",
    "seed": "of parameters, order of the data and dropout",
    "initial": "weights to start from: a workdir, openai:D, hf:D or hf:NAME",
    "n_transfer": "of those: None all blocks, k the embeddings and k blocks, -1 none",
    "stop_after": "save and end after this update, the schedule untouched",
    "extend": "how a run goes on to more updates: one schedule over all, or a new one",
    "model.preset": "what the paper says, or what the released code does",
    "model.body": "the Transformer, or the LSTM of the ablation",
    "model.vocab_size": "ids of text; the tokenizer says",
    "model.n_special": "rows beside them: start, delimiter, classify",
    "model.n_padding": "rows of no token behind those, as tables of a round size have them",
    "model.n_ctx": "tokens of context, and rows of positions",
    "model.n_embd": "width",
    "model.n_head": "heads of attention",
    "model.n_layer": "blocks, or layers of the LSTM",
    "model.dropout": "all rates at once",
    "model.embd_dropout": "rate on the embeddings; None: model.dropout",
    "model.attn_dropout": "rate on the weights of attention; None: model.dropout",
    "model.resid_dropout": "rate on what a block adds; None: model.dropout",
    "model.clf_dropout": "rate before the head of a task; None: model.dropout",
    "model.embd_dropout_on": "the sum of token and position, or the table; None: by preset",
    "model.softmax_rows": "rows of the output's softmax: tokens, or positions too; None: by preset",
    "model.softmax_positions": "how many positions, if any; None: as many as there are",
    "model.init_std": "of the weights at the start",
    "model.layer_norm_epsilon": "added to the variance",
    "model.dtype": "of the arithmetic; parameters stay float32",
    "model.scan_layers": "compile the blocks as one loop",
    "model.remat": "compute each block again in the backward pass, for memory",
    "model.loss_chunks": "make the scores of the vocabulary in so many parts, for memory",
    "model.n_units": "of the LSTM",
    "model.forget_bias": "of the LSTM, at the start",
    "model.tied_output": "whether the LSTM's output is its table of tokens",
    "attention.implementation": "auto takes what suits the device",
    "data.path": "a folder of `gpt1 prepare`",
    "data.windows": "each token once an epoch, or drawn with replacement",
    "data.separator": "a token that ends each document, or none",
    "data.driver": "what makes batches in the background; speed alone",
    "data.prefetch": "batches made ahead; speed alone",
    "data.buckets": "lengths that batches of examples are padded to",
    "data.packing": "leave padding out where tokens do not meet; None: on a CPU; speed alone",
    "task.name": "a task of the table, by name",
    "task.path": "a folder or file with the task; None asks TensorFlow Datasets",
    "task.shape": "of a task of one's own",
    "task.metric": "that the best checkpoint is chosen by",
    "task.labels": "the classes in their order; None: those of the training set, sorted",
    "task.columns": "KEY:COLUMN for keys that the files call otherwise",
    "task.data_dir": "where TensorFlow Datasets keeps its data",
    "task.truncation": "how a long example is cut; None: as the task does",
    "task.check_counts": "what another number of examples than the paper's does",
    "task.ambiguous_pronouns": "skip those in several places, or take the first",
    "task.train_examples": "of the training set, at most",
    "task.dev_examples": "of the dev set, at most",
    "task.split_seed": "of the division where there is no dev set",
    "task.score_loss": "how a score is learned: as a distribution, or by its square error",
    "objective.lm_coef": "weight of the language model's loss",
    "optimizer.learning_rate": "the highest",
    "optimizer.schedule": "of the rate",
    "optimizer.warmup": "below 1 a fraction of the updates, else a number of them",
    "optimizer.b1": "decay of the first moment",
    "optimizer.b2": "decay of the second moment",
    "optimizer.eps": "added to the root of the second moment",
    "optimizer.l2": "decay of the weights",
    "optimizer.vector_l2": "whether biases and norms decay, too",
    "optimizer.max_grad_norm": "to which gradients are clipped",
    "optimizer.accumulation": "microbatches that an update is computed in",
    "optimizer.skip_nonfinite": "leave out an update that is not finite rather than end the run",
    "eval.every": "updates; None: 1,000, or after each epoch of a task",
    "eval.stride": "tokens between windows of held-out text; None: model.n_ctx",
    "eval.windows": "read while training, at most; None: all",
    "eval.batch_size": "windows or examples at a time",
    "eval.train_examples": "of the training set that are measured as well",
    "probes.path": "folder of the probes' task folders; None asks TensorFlow Datasets",
    "probes.data_dir": "where TensorFlow Datasets keeps its data",
    "probes.per_decade": "zero-shot probes in each factor of ten in updates; 0: none",
    "probes.examples": "of each probe, at most",
    "probes.sentiment": "the task of this probe; None leaves it out",
    "probes.acceptability": "the task of this probe; None leaves it out",
    "probes.question_answering": "the task of this probe; None leaves it out",
    "probes.pronoun_resolution": "the task of this probe; None leaves it out",
    "probes.anchors.sentiment.random": "what is 0 in the figure, in per cent",
    "probes.anchors.sentiment.best": "what is 1 in the figure, in per cent",
    "probes.anchors.acceptability.random": "what is 0 in the figure, in per cent",
    "probes.anchors.acceptability.best": "what is 1 in the figure, in per cent",
    "probes.anchors.question_answering.random": "what is 0 in the figure, in per cent",
    "probes.anchors.question_answering.best": "what is 1 in the figure, in per cent",
    "probes.anchors.pronoun_resolution.random": "what is 0 in the figure, in per cent",
    "probes.anchors.pronoun_resolution.best": "what is 1 in the figure, in per cent",
    "checkpoint.every": "updates",
    "checkpoint.keep": "the newest so many, besides the best",
    "checkpoint.per_decade": "kept as well in each factor of ten in updates; 0: none",
    "log.every": "updates between rows of metrics.jsonl",
    "log.tensorboard": "write events, too",
    "log.sample": "a text that is continued at each evaluation, to be seen; None: none",
    "mesh.data": "devices that divide a batch; -1: all that mesh.model leaves",
    "mesh.model": "devices that divide each layer",
    "mesh.fsdp": "divide matrices and moments over mesh.data, too",
}


def table(experiment: Experiment) -> Iterator[str]:
    """A line for each key: its value, marked where it is not the default, which then stands beside
    it, and what it is. Long ones are continued below."""
    # One of steps and epochs has to be there; neither has a default.
    defaults = values(Experiment(steps=1)) | {"steps": None}
    found = values(experiment)
    shown = {key: _shown(value) for key, value in found.items()}
    for key, value in found.items():
        if value != defaults[key]:
            shown[key] += f"  (default: {_shown(defaults[key])})"
    first = max(map(len, found)) + 2
    second = 24
    room = max(shutil.get_terminal_size((120, 24)).columns - first - second - 2, 30)
    for key, text in shown.items():
        mark = "*" if found[key] != defaults[key] else " "
        lines = textwrap.wrap(EXPLANATIONS[key], room)
        begin = f"{mark} {key:<{first}}{text:<{second - 2}}  "
        yield begin + lines[0]
        for line in lines[1:]:
            yield " " * len(begin) + line


def _shown(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
