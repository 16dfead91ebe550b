"""What a reproduction needs, looked at before its first cell: tasks, tokens, weights."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from gpt1_jax.data.tasks import TASKS
from gpt1_jax.errors import UserError
from gpt1_jax.experiments.config import Request
from gpt1_jax.inference import trained_model
from gpt1_jax.messages import say
from gpt1_jax.results.paper import Paper
from gpt1_jax.run_files import read_config
from gpt1_jax.text import shards
from gpt1_jax.text.tfds_records import available_builder
from gpt1_jax.typed_values import nearest


@dataclass(frozen=True)
class TaskSource:
    """Where a task is read from: the folder of its files, or TFDS, which keeps its data in
    data_dir, by default its own choice."""

    name: str
    path: str | None
    data_dir: str | None

    @property
    def settings(self) -> dict[str, str]:
        """The same as config keys."""
        found = {"task.path": self.path, "task.data_dir": self.data_dir}
        return {key: value for key, value in found.items() if value is not None}


@dataclass(frozen=True)
class Sources:
    """The tasks that can be read, and why others of the paper cannot, by name."""

    tasks: tuple[TaskSource, ...]
    absent: dict[str, str]

    @property
    def names(self) -> list[str]:
        return [source.name for source in self.tasks]


def sources(request: Request, paper: Paper) -> Sources:
    """The tasks of a request: a folder that was named, one of task_data, or TFDS.

    A task that nobody named, but that the paper has in this table or figure, may be absent. Raises
    UserError for one that was named, where all are absent, and where TFDS would have to download
    one and cannot be reached: alone it takes minutes to say so.
    """
    if request.table == 1:
        return Sources((), {})
    names = _tasks_of_the_paper(request, paper) if request.tasks is None else request.tasks
    if request.task_data and not Path(request.task_data).expanduser().is_dir():
        raise UserError(f"--task_data={request.task_data} is not a folder")
    tasks, absent = [], {}
    for name in names:
        task, folder = _named(name, request.task_data)
        row = TASKS[task]
        if folder is not None and not folder.is_dir():
            absent[task] = f"{folder} is not a folder"
        elif folder is None and not row.builders:
            absent[task] = "TensorFlow Datasets does not have it; give --task_data=FOLDER"
        elif task in [source.name for source in tasks]:
            raise UserError(f"--tasks={','.join(names)} has {task} twice; expected each task once")
        else:
            path = None if folder is None else str(folder)
            tasks.append(TaskSource(task, path, request.data_dir))
    if absent and (request.tasks is not None or not tasks):
        reasons = "; ".join(f"{task}: {reason}" for task, reason in absent.items())
        raise UserError(f"no data of {reasons}")
    _require_tfds(tasks)
    return Sources(tuple(tasks), absent)


def _tasks_of_the_paper(request: Request, paper: Paper) -> tuple[str, ...]:
    if request.figure is not None:
        return paper.figures[request.figure].tasks
    return () if request.table is None else paper.tasks(request.table)


def _named(name: str, task_data: str | None) -> tuple[str, Path | None]:
    """A task by its name or its folder, and the folder, None for TFDS."""
    if name in TASKS:
        folder = Path(task_data, name).expanduser().absolute() if task_data else None
        return name, folder
    folder = Path(name).expanduser().absolute()
    if folder.is_dir() and folder.name in TASKS:
        return folder.name, folder
    near = nearest(name, TASKS)
    hint = f"did you mean {near}?" if near else f"the known ones are {', '.join(TASKS)}"
    raise UserError(f"--tasks={name} is neither a known task nor the folder of one; {hint}")


def _require_tfds(tasks: Iterable[TaskSource]) -> None:
    for task in tasks:
        for name in () if task.path else TASKS[task.name].builders:
            available_builder(
                name,
                task.data_dir,
                f"give --task_data=FOLDER with a folder of the files of {task.name} in it, or "
                "--data_dir, where TFDS has prepared it",
            )


def check_weights(request: Request, bodies: Iterable[str], workdir: Path) -> None:
    """Raises UserError for weights that were given and are none, or of another body; and where a
    body has to be pre-trained and there is nothing to do it on."""
    for body in bodies:
        given = weights_given(request, body)
        if given is not None:
            found = trained_model.load(given).model_config.body
            if found != body:
                raise UserError(f"{given} holds a {found}, expected a {body}")
            continue
        tokens = tokens_given(request, body, workdir)
        if tokens is not None:
            shards.read_manifest(tokens)
        elif request.scale != "small":
            flag = "--initial_lstm" if body == "lstm" else "--initial"
            raise UserError(
                f"nothing to pre-train the {body} on: give --data (a folder of `prepare`), or "
                f"weights with {flag}"
            )


def tokens_given(request: Request, body: str, workdir: Path) -> Path | None:
    """The tokens to pre-train a body on: those that were named, or those of the run that has begun
    already, also where they were moved with it."""
    begun, own = workdir / "pretrained" / body, workdir / "tokens"
    if request.data is not None:
        return Path(request.data).expanduser()
    if not (begun / "config.json").exists():
        return None
    read = Path(read_config(begun)["data"]["path"])
    moved = read.name == own.name and own.is_dir() and not read.exists()
    return own if moved else read


def weights_given(request: Request, body: str) -> str | None:
    """The weights to take in place of pre-training a body."""
    return request.initial_lstm if body == "lstm" else request.initial


def say_what_is_not_read(request: Request, bodies: Sequence[str], trained: Sequence[str]) -> None:
    """A line about each flag that makes no difference to this table or figure."""
    fine_tunes = request.table != 1 and request.figure != "2right"
    reads = {
        "seeds": fine_tunes or request.seeds == Request.seeds,
        "tasks": request.table != 1,
        "variants": fine_tunes,
        "task_data": request.table != 1,
        "data_dir": request.table != 1,
        "data": bool(trained),
        "initial": "transformer" in bodies,
        "initial_lstm": "lstm" in bodies,
    }
    for name, read in reads.items():
        if not read and getattr(request, name) is not None:
            say(f"--{name} makes no difference here")
