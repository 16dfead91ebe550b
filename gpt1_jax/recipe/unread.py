"""Keys that were given to a run of which nothing reads them: most likely meant for another run."""

from collections.abc import Callable, Iterable
from fnmatch import fnmatchcase

from gpt1_jax.recipe.experiment import Experiment, values


def _is_new(run: Experiment) -> bool:
    """Whether `model.body` decides, and not the weights that the run starts from."""
    return run.initial is None


# Keys, what a run is that reads them, and in words. A key that no row has is read by every run, or
# refused where it does not fit.
READERS: tuple[tuple[tuple[str, ...], Callable[[Experiment], bool], str], ...] = (
    (("n_transfer",), lambda run: run.initial is not None, "is for a run with --initial"),
    (
        ("model.n_units", "model.forget_bias"),
        lambda run: run.model.body == "lstm" or not _is_new(run),
        "is for model.body=lstm",
    ),
    (
        ("model.n_head", "model.attn_dropout", "model.layer_norm_epsilon", "attention.*"),
        lambda run: run.model.body == "transformer" or not _is_new(run),
        "is for model.body=transformer",
    ),
    (
        ("model.clf_dropout", "data.buckets", "eval.train_examples"),
        lambda run: run.is_task,
        "is for fine-tuning",
    ),
    (
        ("data.windows", "data.separator", "eval.windows", "eval.stride"),
        lambda run: not run.is_task,
        "is for pre-training",
    ),
    (
        ("probes.*",),
        lambda run: run.probes.per_decade > 0,
        "is for a run with probes.per_decade",
    ),
    (
        ("task.data_dir",),
        lambda run: run.task.path is None,
        "is for a task that is read from TensorFlow Datasets, without task.path",
    ),
    (
        ("task.columns",),
        lambda run: run.task.path is not None,
        "is for a task that is read from files, with task.path",
    ),
)


def unread(run: Experiment, given: Iterable[str]) -> list[str]:
    """A line for each of the keys `given` that the run does not read, unless it has its default."""
    default, found = values(Experiment(steps=1)), values(run)
    return [
        f"nothing in this run reads --config.{key}={found[key]}: it {kind}"
        for key in given
        if found[key] != default[key]
        for keys, reads, kind in READERS
        if any(fnmatchcase(key, one) for one in keys) and not reads(run)
    ]
