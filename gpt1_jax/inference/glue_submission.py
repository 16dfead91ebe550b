"""Files for the GLUE server: predictions for test sets whose labels it keeps (Wang et al. 2018).

    index   prediction
    0       entailment

One file for each test set, MultiNLI having two; `index` counts the rows of the test set from 0.
Predictions are names of classes for MNLI, AX, QNLI and RTE, numbers for the others.
"""

import contextlib
import os
from pathlib import Path

from gpt1_jax import disk
from gpt1_jax.data.labels import HIGHEST_SCORE
from gpt1_jax.data.task_files import RowFormat, read_examples
from gpt1_jax.data.tasks import TASKS
from gpt1_jax.errors import UserError
from gpt1_jax.messages import say
from gpt1_jax.storage import places


def submit(model, output: str, task: str | None = None, path: str | None = None) -> dict:
    """Writes the submission of a fine-tuned model: into the folder `output` under the names that
    the server knows, or to the file `output`, which then ends in .tsv.

    Args:
      model: a TrainedModel of one of the tasks that the server scores.
      task: another one of those, whose classes the model has: "ax" for a model of MNLI.
      path: a file with the rows of the test set in their order; by default the task's own
        test set, from where the training found the task.

    Returns:
      {"step", "files": {file: number of rows}}

    Raises:
      UserError: a task that the server does not score, classes that it does not know, a test set
        that is not there, an output that cannot be written. Nothing is written then.
    """
    if not model.task.has_head:
        raise UserError(f"{model.workdir} holds a language model; fine-tune it on a task first")
    name = task or model.task.name
    row = TASKS.get(name)
    if row is None or not row.glue:
        scored = ", ".join(known.name for known in TASKS.values() if known.glue)
        raise UserError(f"--glue: the GLUE server does not score {name}; it knows {scored}")
    if row.shape != model.task.shape:
        raise UserError(
            f"--glue: {row.name} is {row.shape}, but {model.workdir} was trained on "
            f"{model.task.shape}"
        )
    words = _words(row, model)
    with places.output(output) as place:
        targets = _targets(row, place, path)
        written = {}
        for split, target in targets.items():
            if path is None:
                examples = model.load_task(row.name, split).splits[split]
            else:
                examples = read_examples(places.here(path), RowFormat(row.shape, task=row))
            expected = row.counts["tfds"][split]
            if len(examples) != expected:
                say(f"{target.name}: {len(examples)} rows, but the server expects {expected}")
            labels = [answer["label"] for answer in model.predict(examples)]
            lines = [f"{index}\t{words(label)}\n" for index, label in enumerate(labels)]
            written[target] = ["index\tprediction\n", *lines]
        _write(written, [] if path is None else [places.here(path)])
    files = {str(target): len(lines) - 1 for target, lines in written.items()}
    if places.is_url(output):
        files = {name.replace(str(place), output.rstrip("/"), 1): n for name, n in files.items()}
    return {"step": model.step, "files": files}


def _words(row, model):
    """The function from a label of the model to what the server wants to read."""
    if row.name == "stsb":
        if not model.task.regression:
            raise UserError(f"--glue: {model.workdir} predicts classes, but STS-B wants scores")
        return lambda score: f"{min(max(score, 0.0), float(HIGHEST_SCORE)):.6f}"
    unknown = [label for label in model.labels if row.class_number(label) is None]
    if unknown or model.task.regression:
        raise UserError(
            f"--glue: {model.workdir} has the label {unknown[0]!r}; {row.name} has "
            f"{', '.join(map(str, row.labels))}"
        )
    if row.glue_numbers:
        return lambda label: str(row.class_number(label))
    return lambda label: str(row.labels[row.class_number(label)])


def _targets(row, output: Path, path: str | None) -> dict[str, Path]:
    """Where each split goes. UserError if that cannot be written, or is not one file where one is
    wanted."""
    if output.suffix == ".tsv":
        if len(row.glue) > 1 and path is None:
            raise UserError(
                f"--output={output} is one file, {row.name} has {' and '.join(row.glue.values())}; "
                "give a folder, or one test set with --input"
            )
        targets = {next(iter(row.glue)): output}
    elif len(row.glue) > 1 and path is not None:
        raise UserError(
            f"--input is one of the test sets of {row.name}; give the file that it becomes, "
            f"--output={output / next(iter(row.glue.values()))} for instance"
        )
    else:
        targets = {split: output / name for split, name in row.glue.items()}
    folder = next(iter(targets.values())).parent
    nearest = next(parent for parent in (folder, *folder.parents) if parent.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK):
        raise UserError(f"--output={output}: {nearest} is no folder that can be written to")
    for target in targets.values():
        if target.is_dir():
            raise UserError(f"--output={target} is a folder; expected a file")
    return targets


def _write(files: dict[Path, list[str]], inputs: list[Path]) -> None:
    """All of the files or, if one cannot be written, none."""
    with contextlib.ExitStack() as written:
        for target, lines in files.items():
            target.parent.mkdir(parents=True, exist_ok=True)
            file = written.enter_context(disk.replacing(target, inputs=inputs))
            file.write("".join(lines))
            file.flush()  # all of them have found their place before the first is put into it
