"""The command line: flags are parsed here and nowhere else.

A verb is a dataclass: its fields are the flags, its docstring the help, `run` what it does. Every
verb imports what it needs when it runs, so that `gpt1 --help` answers at once. One that measures or
produces ends with one line of JSON on standard output; everything else it says goes to standard
error. Exit status: 0 done, 2 the user's mistake, 75 stopped early and resumable, 128 + its number
stopped by a signal before there was anything to save.
"""

import signal

if __name__ == "__main__":
    # They wait while that is loaded which listens to them.
    _mask = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM, signal.SIGHUP))

from gpt1_jax import signals

if __name__ == "__main__":
    # Before anything else is loaded, which a signal must not hit unprepared.
    signals.start()
    signal.pthread_sigmask(signal.SIG_SETMASK, _mask)

import errno
import json
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Protocol

from gpt1_jax.errors import Interrupted, PartlyFailed, UserError
from gpt1_jax.experiments.config import QuickstartConfig, Request
from gpt1_jax.flags import Flag, Quiet, names, parse, require_one, usage
from gpt1_jax.inference.verbs import (
    SOURCES,
    Evaluate,
    Inspect,
    Predict,
    Probes,
    Sample,
    Score,
    Submission,
)
from gpt1_jax.machine.config import (
    Compile,
    FineTuneBenchmark,
    PrepareBenchmark,
    SampleBenchmark,
    TrainBenchmark,
)
from gpt1_jax.messages import answer, hushed, say, tell
from gpt1_jax.runtime import jax_environment, processes, releases
from gpt1_jax.runtime.processes import Processes
from gpt1_jax.text.config import CompareConfig, PrepareConfig
from gpt1_jax.tokenization.tokenizer import VocabularyMode
from gpt1_jax.typed_values import nearest

DESCRIPTION = "GPT-1 in JAX: pre-training, fine-tuning and the paper's experiments."


class Verb(Protocol):
    """What a command line asks for."""

    def run(self) -> dict: ...


@dataclass(frozen=True, kw_only=True)
class Quickstart:
    """The whole paper in miniature, offline, on two cores."""

    config: QuickstartConfig
    quiet: Quiet = False

    def run(self) -> dict:
        # At once, for JAX takes seconds to import.
        workdir = self.config.workdir
        tell(f"the paper in miniature, in {workdir}; if stopped, the same command goes on")
        from gpt1_jax.experiments.quickstart import quickstart

        return quickstart(self.config)


@dataclass(frozen=True, kw_only=True)
class Reproduce:
    """The runs of a table or figure of the paper, and its report."""

    request: Request
    quiet: Quiet = False

    def run(self) -> dict:
        from gpt1_jax.experiments.reproduce import reproduce

        result = reproduce(self.request)
        _show_report(result["report"])
        return result


@dataclass(frozen=True, kw_only=True)
class Prepare:
    """Text to token shards."""

    config: PrepareConfig
    docs: Annotated[bool, Flag("the documentation installed here, in place of --input")] = False
    quiet: Quiet = False

    def __post_init__(self):
        require_one(input=self.config.inputs, tfds=self.config.tfds, docs=self.docs)

    def run(self) -> dict:
        from gpt1_jax.text import corpus, documentation
        from gpt1_jax.text.inputs import check_config

        documents = None
        if self.docs:
            check_config(self.config)  # before a site-packages is read
            found = documentation.documents(workers=self.config.workers or os.cpu_count() or 1)
            tell(found.describe())
            documents = found.documents
        result = corpus.prepare(self.config, documents)
        for name, split in result["splits"].items():
            tell(f"{name}: {split['tokens']:,} tokens, documents: {split['documents']:,}")
        start = ["gpt1", "train", "--config=configs/pretrain.py:tiny", "--workdir=runs/lm"]
        tell(f"next: {shlex.join([*start, f'--config.data.path={self.config.output}'])}")
        return result


@dataclass(frozen=True, kw_only=True)
class Compare:
    """Only say how the ids of two tokenizers differ on some text; nothing is written."""

    config: CompareConfig

    def run(self) -> dict:
        from gpt1_jax.text import compare

        return compare.compare(self.config)


@dataclass(frozen=True, kw_only=True)
class Train:
    """Pre-train or fine-tune; the same command again resumes."""

    config: Annotated[str, Flag("a config file, with its arguments", "FILE[:ARGS]")]
    keys: Annotated[Mapping[str, str], Flag("a key of the config", "VALUE", name="config.KEY")] = (
        field(default_factory=dict)
    )
    workdir: Annotated[str, Flag("the folder of the run")]
    initial: Annotated[str | None, Flag("weights to start from: " + SOURCES, "SOURCE")] = None
    profile: Annotated[str | None, Flag("trace these steps", "FIRST:LAST")] = None
    quiet: Quiet = False
    processes: Processes

    def run(self) -> dict:
        profile = self.profiled()
        initial = {} if self.initial is None else {"initial": self.initial}
        self.processes.connect()
        from gpt1_jax.recipe import experiment
        from gpt1_jax.recipe.unread import unread
        from gpt1_jax.runtime import agreement
        from gpt1_jax.training.train import train

        with agreement.agreed():
            described, explicit = experiment.load(self.config, {**self.keys, **initial})
        for line in unread(described, self.keys):
            say(line)
        result = train(described, explicit, self.workdir, profile=profile)
        import jax

        if jax.process_index() == 0:
            from gpt1_jax.training import banner

            for line in banner.closing(self.workdir, result):
                tell(line)
        return result

    def profiled(self) -> tuple[int, int] | None:
        """The first and the last step of --profile."""
        if self.profile is None:
            return None
        first, _, last = self.profile.partition(":")
        if not (first.isdecimal() and last.isdecimal() and 1 <= int(first) <= int(last)):
            raise UserError(
                f"--profile={self.profile}; expected FIRST:LAST, two steps, as in 10:12"
            )
        return int(first), int(last)


@dataclass(frozen=True, kw_only=True)
class Convert:
    """Weights and tokenizer from one layout to another."""

    source: Annotated[str, Flag(SOURCES, "SOURCE", name="from")]
    to: Annotated[str, Flag("openai:D, hf:D or native:D", "TARGET")]
    tokenizer: Annotated[
        VocabularyMode | None,
        Flag("of foreign weights; default: original of openai:, hf_basic of hf:"),
    ] = None
    step: Annotated[int | None, Flag("default: the best of a task, else the newest")] = None

    def run(self) -> dict:
        from gpt1_jax.weights import convert

        return convert.convert(self.source, self.to, self.tokenizer, self.step)


@dataclass(frozen=True, kw_only=True)
class Report:
    """Tables, figures and one page from what has run."""

    runs: Annotated[str, Flag("what reproduce filled, or folders of runs")]
    output: Annotated[str, Flag("folder for the report")]

    def run(self) -> dict:
        from gpt1_jax.results import report

        result = report.report(self.runs, self.output)
        _show_report(self.output)
        return result


@dataclass(frozen=True, kw_only=True)
class PrintConfig:
    """Only print every key of the config with its value, default and meaning; nothing is run."""

    config: Annotated[str, Flag("a config file, with its arguments", "FILE[:ARGS]")]
    keys: Annotated[Mapping[str, str], Flag("a key of the config", "VALUE", name="config.KEY")] = (
        field(default_factory=dict)
    )
    print_config: Annotated[bool, Flag("in place of training")] = False

    def run(self) -> dict:
        from gpt1_jax.recipe import experiment, explanations

        described, _ = experiment.load(self.config, self.keys)
        for line in explanations.table(described):
            answer(line)
        return experiment.values(described)


def _show_report(folder: str) -> None:
    tell(f"{os.path.join(folder, 'report.html')}: open it in a browser; it needs nothing else")


VERBS: Mapping[str, Mapping[str, type[Verb]]] = {
    "quickstart": {"": Quickstart},
    "reproduce": {"": Reproduce},
    "prepare": {"": Prepare, "--compare": Compare},
    "train": {"": Train, "--print_config": PrintConfig},
    "evaluate": {"": Evaluate, "--probes": Probes},
    "sample": {"": Sample},
    "score": {"": Score},
    "predict": {"": Predict, "--glue": Submission},
    "inspect": {"": Inspect},
    "convert": {"": Convert},
    "report": {"": Report},
    "compile": {"": Compile},
    "benchmark": {
        "train": TrainBenchmark,
        "finetune": FineTuneBenchmark,
        "sample": SampleBenchmark,
        "prepare": PrepareBenchmark,
    },
}
"""Each verb by name, and beside it what it becomes with a flag that changes what it does, or with a
word after it that says what."""
ALONE = (
    *("quickstart", "reproduce", "evaluate", "sample", "score", "predict", "inspect"),
    "benchmark",
)
"""The verbs that compute, but in one process."""


# Each is typed, as it stands, by a test that does what README.md and docs/ say.
EXAMPLES: Mapping[str, Sequence[str]] = {
    "quickstart": ["gpt1 quickstart"],
    "reproduce": [
        "gpt1 reproduce --table=5 --scale=small --tasks=sst2,rte --workdir=runs/table5 "
        "--data=tokens",
        "gpt1 reproduce --figure=2right --scale=small --workdir=runs/table5 --data=tokens",
    ],
    "prepare": [
        "gpt1 prepare --output=tokens --input 'books/*.txt' --vocab_size=8192",
        "gpt1 prepare --compare=original,hf_basic --vocab=gpt1_bpe --input 'books/*.txt'",
    ],
    "train": [
        "gpt1 train --config=configs/pretrain.py:tiny --workdir=runs/lm --config.data.path=tokens",
        "gpt1 train --config=configs/finetune.py:small_data,path=reviews,shape=classification,"
        "metric=accuracy --workdir=runs/reviews --initial=runs/lm",
        "gpt1 train --config=configs/finetune.py:rte --print_config",
    ],
    "evaluate": ["gpt1 evaluate --workdir=runs/lm"],
    "sample": ["gpt1 sample --workdir=runs/lm --prompt='It was a bright cold day' --num_samples=3"],
    "score": ["gpt1 score --workdir=runs/lm --input=book.txt --output=scores.jsonl"],
    "predict": ["gpt1 predict --workdir=runs/reviews --input=new.jsonl --output=labels.jsonl"],
    "inspect": [
        "gpt1 inspect --workdir=runs/lm --prompt='It was a bright cold day' --output=look.html"
    ],
    "convert": [
        "gpt1 convert --from=openai:model --to=hf:gpt1",
        "gpt1 convert --from=runs/lm --to=hf:export",
    ],
    "report": ["gpt1 report --runs=runs/table5 --output=report"],
    "compile": [
        "gpt1 compile --config=configs/pretrain.py --topology=v5e-16 --config.model.dtype=bfloat16"
    ],
    "benchmark": ["gpt1 benchmark train --batch=64 --seq=512 --json=update.json"],
}


def requested(words: Sequence[str]) -> Verb:
    """What a command line asks for. Raises UserError for words that make no sense."""
    if not words or words[0].startswith("-"):
        raise UserError("expected gpt1 VERB and its flags; gpt1 --help names the verbs")
    verb, *rest = words
    if verb not in VERBS:
        near = nearest(verb, VERBS)
        hint = f"did you mean {near}?" if near else f"expected one of {', '.join(VERBS)}"
        raise UserError(f"unknown verb {verb!r}; {hint}")
    if "" not in VERBS[verb]:
        what, *rest = rest or ["(nothing)"]
        if what not in VERBS[verb]:
            expected, near = ", ".join(VERBS[verb]), nearest(what, VERBS[verb])
            hint = f"did you mean {near}?" if near else f"expected one of {expected}"
            raise UserError(f"gpt1 {verb} is followed by {what}; {hint}")
        return parse(f"gpt1 {verb} {what}", VERBS[verb][what], rest)
    given = {word.partition("=")[0] for word in rest}
    flag = next((flag for flag in VERBS[verb] if flag in given), "")
    for other, form in VERBS[verb].items():
        for name in sorted(given & {*names(form)} - {*names(VERBS[verb][flag])}):
            which = f"goes with {other}" if other else f"does not go with {flag}"
            raise UserError(f"{name} {which} (see gpt1 {verb} --help)")
    return parse(f"gpt1 {verb} {flag}".rstrip(), VERBS[verb][flag], rest)


def summary(forms: Mapping[str, type[Verb]]) -> str:
    """What a verb does, in a line."""
    if "" in forms:
        return str(forms[""].__doc__)
    return f"Timed runs on this machine: {', '.join(forms)}."


def help_text(words: Sequence[str]) -> str:
    """The verbs, or the flags of the verb that `words` begin with."""
    if words[0] in VERBS:
        forms = VERBS[words[0]].items()
        parts = [usage(f"gpt1 {words[0]} {flag}".rstrip(), form) for flag, form in forms]
        examples = "\n".join(["as in", *(f"      {example}" for example in EXAMPLES[words[0]])])
        return "\n\n".join([*parts, examples])
    lines = [f"  {verb:<12}{summary(forms)}" for verb, forms in VERBS.items()]
    return "\n".join(
        [
            "usage: gpt1 VERB [--FLAG=VALUE ...]",
            "",
            DESCRIPTION,
            "",
            *lines,
            "",
            "gpt1 VERB --help has the flags of a verb, and examples. To begin with:",
            "",
            *(
                f"      {EXAMPLES[verb][0]}"
                for verb in ("quickstart", "prepare", "train", "sample")
            ),
        ]
    )


def run(words: Sequence[str]) -> None:
    """Does what is asked for and answers it."""
    if {"-h", "--help"} & set(words):
        answer(help_text(words))
        return
    jax_environment.quiet_compiler_of_tpus()
    try:
        verb = requested(words)
        if words[0] in ALONE:
            processes.require_alone(words[0])
        for line in releases.unfit():
            say(line)
        with hushed(getattr(verb, "quiet", False)):
            result = verb.run()
    except PartlyFailed as error:
        signals.conclude()
        answer(json.dumps(error.result))
        raise
    signals.conclude()
    answer(json.dumps(result))


def main(words: Sequence[str] | None = None) -> int:
    """Runs a verb and returns the exit status."""
    if sys.stderr is None:  # closed, as of a daemon
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115  it is open to the end
    with signals.listening():
        try:
            status = _status(words)
        except Exception:
            processes.leave_by_a_bug()
            raise
        processes.leave(status)
        return status


def _status(words: Sequence[str] | None) -> int:
    """The exit status, what it is for having been said. A bug is raised."""
    try:
        run(sys.argv[1:] if words is None else words)
        return 0
    except (UserError, Interrupted, OSError) as error:
        status, why = _ended_by(error)
    except Exception as error:
        status, why = 2, jax_environment.complaint(error)
        if why is None:
            raise
    signals.conclude()
    say(f"gpt1: {why}")
    return status


def _ended_by(error: UserError | Interrupted | OSError) -> tuple[int, str]:
    """The exit status and why. An error of a system that is none of writing is raised."""
    if isinstance(error, UserError):
        return 2, str(error)
    if isinstance(error, Interrupted):
        return 75, str(error)
    from gpt1_jax import disk

    if error.errno == errno.ENAMETOOLONG:
        return 2, f"{str(error.filename)[:80]}...: {error.strerror}"
    if error.errno not in disk.WHILE_WRITING:
        raise error
    return 2, f"{error.filename or 'a file'} cannot be written: {disk.reason(error)}"


if __name__ == "__main__":
    sys.exit(main())
