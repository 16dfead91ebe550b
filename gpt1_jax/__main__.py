"""The command line: flags are parsed here and nowhere else.

Every verb imports what it needs when it runs, so that `gpt1 --help` answers at once. A verb that
measures or produces ends with one line of JSON on standard output; everything else it says goes to
standard error. Exit status: 0 done, 2 the user's mistake, 75 stopped early and resumable.
"""

import argparse
import json
import os
import re
import signal
import sys
import time
from typing import NoReturn

from gpt1_jax.errors import Interrupted, PartlyFailed, UserError
from gpt1_jax.messages import say

SOURCES = "a workdir, openai:D, hf:D or hf:NAME on the Hub"
DESCRIPTION = "GPT-1 in JAX: pre-training, fine-tuning and the paper's experiments."


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, as every other mistake is said."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} (see {self.prog} --help)")


def parser() -> Parser:
    """The verbs and their flags."""
    top = Parser(prog="gpt1", description=DESCRIPTION, allow_abbrev=False)
    verbs = top.add_subparsers(dest="verb", required=True, metavar="VERB", parser_class=Parser)

    def verb(name: str, run, summary: str) -> Parser:
        sub = verbs.add_parser(name, help=summary, description=summary, allow_abbrev=False)
        sub.set_defaults(run=run)
        return sub

    sub = verb("quickstart", quickstart, "the whole paper in miniature, offline, on two cores")
    sub.add_argument("--workdir", default="runs/quickstart", help="default: %(default)s")
    sub.add_argument(
        "--minutes", type=float, default=8.0, help="time to plan for; default: %(default)g"
    )

    sub = verb("reproduce", reproduce, "the runs of a table or figure of the paper, and its report")
    sub.add_argument("--table", type=int, help="1 to 5")
    sub.add_argument("--figure", metavar="2left|2right")
    sub.add_argument("--workdir", required=True)
    sub.add_argument("--scale", default="paper", help="paper or small; default: %(default)s")
    sub.add_argument("--seeds", default="0,1,2", help="default: %(default)s")
    sub.add_argument("--tasks", help="names or folders, with commas; default: those of the paper")
    sub.add_argument("--data", metavar="TOKENS", help="a folder of prepare, to pre-train on")
    sub.add_argument("--task_data", metavar="D", help="a folder with a folder of each task's files")
    sub.add_argument("--data_dir", metavar="D", help="where TensorFlow Datasets keeps its data")
    sub.add_argument("--initial", metavar="WORKDIR", help="weights in place of pre-training")
    sub.add_argument("--initial_lstm", metavar="WORKDIR", help="the same for the LSTM")

    sub = verb("prepare", prepare, "text to token shards")
    sub.add_argument("--output", metavar="D", help="folder for shards, manifest and tokenizer")
    source = sub.add_mutually_exclusive_group(required=True)
    source.add_argument("--input", nargs="+", metavar="GLOB", help="text, .gz, .xz or .jsonl files")
    source.add_argument("--tfds", metavar="NAME", help="a TensorFlow Datasets text set")
    source.add_argument("--docs", action="store_true", help="the documentation installed here")
    sub.add_argument("--data_dir", metavar="D", help="where TensorFlow Datasets keeps its data")
    sub.add_argument(
        "--tokenizer",
        default="sentencepiece",
        metavar="MODE",
        help="sentencepiece (default), original or hf_basic",
    )
    sub.add_argument(
        "--vocab", metavar="FOLDER", help="take the tokenizer or vocabulary there, or on the Hub"
    )
    sub.add_argument(
        "--compare",
        metavar="MODES",
        help="original,hf_basic: only say how the ids of --input differ, with --vocab",
    )
    sub.add_argument("--vocab_size", type=int, help="ids to learn; 40000, less for small corpora")
    sub.add_argument("--valid", nargs="+", metavar="GLOB", help="files of the valid split")
    sub.add_argument("--valid_fraction", type=float, help="share of documents for the valid split")
    sub.add_argument("--seed", type=int, default=0, help="of the choice of valid documents")
    sub.add_argument("--workers", type=int, help="processes; default: one for each core")
    sub.add_argument("--runner", default="local", help="default: %(default)s")

    sub = verb("train", train, "pre-train or fine-tune; the same command again resumes")
    sub.add_argument(
        "--config", required=True, metavar="FILE[:ARGS]", help="and --config.KEY=VALUE"
    )
    sub.add_argument("--workdir", required=True)
    sub.add_argument("--initial", metavar="SOURCE", help="weights to start from; " + SOURCES)
    sub.add_argument("--profile", metavar="FIRST:LAST", help="trace these steps")
    sub.add_argument("--quiet", action="store_true", help="no progress")
    sub.add_argument("--coordinator", metavar="HOST:PORT", help="of several processes")
    sub.add_argument("--num_processes", type=int)
    sub.add_argument("--process_id", type=int)

    sub = verb("evaluate", evaluate, "held-out perplexity, or the metric of a task")
    _takes_model(sub)
    sub.add_argument("--split", help="default: valid for tokens, dev for a task")
    sub.add_argument("--data", metavar="TOKENS", help="a folder of prepare")
    sub.add_argument("--task", metavar="NAME", help="another task of this shape, or a folder")
    sub.add_argument(
        "--probes", action="store_true", help="zero-shot; and --config.probes.KEY=VALUE"
    )
    sub.add_argument(
        "--probe_data", metavar="FOLDER", help="of the probes' task folders; default: TFDS"
    )

    sub = verb("sample", sample, "text that continues a prompt")
    _takes_model(sub)
    sub.add_argument("--prompt", required=True)
    sub.add_argument("--length", type=int, help="new tokens; default: 64, or what fits")
    sub.add_argument("--temperature", type=float, default=1.0)
    sub.add_argument("--top_k", type=int, default=0)
    sub.add_argument("--top_p", type=float, default=1.0)
    sub.add_argument("--num_samples", type=int, default=1)
    sub.add_argument("--seed", type=int, default=0)
    sub.add_argument("--stop", help="newline, document or none; default: document if there is one")

    sub = verb("score", score, "the log-probability of each token of a text, and its perplexity")
    _takes_model(sub)
    sub.add_argument(
        "--input", required=True, metavar="FILE", help="text, or .jsonl; also .gz, .xz"
    )
    sub.add_argument("--stride", type=int, help="between windows; default: eval.stride of the run")
    sub.add_argument("--output", metavar="G.jsonl", help="default: standard output")

    sub = verb("predict", predict, "labels and probabilities of a fine-tuned model")
    _takes_model(sub)
    sub.add_argument("--input", metavar="F.jsonl", help="rows like the task's")
    sub.add_argument("--output", required=True, metavar="G.jsonl")
    sub.add_argument(
        "--glue", action="store_true", help="a file for the GLUE server, by default of the test set"
    )
    sub.add_argument("--task", metavar="NAME", help="with --glue: another task, such as ax")

    sub = verb("convert", convert, "weights and tokenizer from one layout to another")
    sub.add_argument("--from", dest="source", required=True, metavar="SOURCE", help=SOURCES)
    sub.add_argument("--to", required=True, metavar="TARGET", help="openai:D, hf:D or native:D")
    sub.add_argument(
        "--tokenizer", metavar="MODE", help="of foreign weights: original (openai:), hf_basic (hf:)"
    )
    sub.add_argument("--step", type=int, help="default: the best of a task, else the newest")

    sub = verb("report", report, "tables, figures and one page from what has run")
    sub.add_argument("--runs", required=True, help="what reproduce filled, or folders of runs")
    sub.add_argument("--output", required=True, help="folder for the report")
    return top


def _takes_model(sub: Parser) -> None:
    model = sub.add_mutually_exclusive_group(required=True)
    model.add_argument("--workdir", help="a run of train")
    model.add_argument("--initial", metavar="SOURCE", help="weights: " + SOURCES)
    sub.add_argument("--step", type=int, help="default: the best of a task, else the newest")


def _model(flags: argparse.Namespace):
    """The model that a verb was asked to use."""
    from gpt1_jax.inference import trained_model

    return trained_model.load(flags.initial or flags.workdir, flags.step)


def quickstart(flags: argparse.Namespace) -> dict:
    from gpt1_jax.experiments.config import QuickstartConfig

    config = QuickstartConfig(workdir=flags.workdir, minutes=flags.minutes)
    # At once, for JAX takes seconds to import.
    say(f"the paper in miniature, in {config.workdir}; if stopped, the same command goes on")
    from gpt1_jax.experiments.quickstart import quickstart

    return quickstart(config)


def reproduce(flags: argparse.Namespace) -> dict:
    try:
        seeds = tuple(int(seed) for seed in flags.seeds.split(","))
    except ValueError:
        raise UserError(f"--seeds={flags.seeds}; expected numbers, as in 0,1,2") from None
    from gpt1_jax.experiments.config import Request
    from gpt1_jax.experiments.reproduce import reproduce

    return reproduce(
        Request(
            workdir=flags.workdir,
            table=flags.table,
            figure=flags.figure,
            scale=flags.scale,
            seeds=seeds,
            tasks=tuple(flags.tasks.split(",")) if flags.tasks else None,
            data=flags.data,
            task_data=flags.task_data,
            data_dir=flags.data_dir,
            initial=flags.initial,
            initial_lstm=flags.initial_lstm,
            settings=flags.overrides,
        )
    )


def prepare(flags: argparse.Namespace) -> dict:
    if flags.compare is not None:
        return _compare(flags)
    if flags.output is None:
        raise UserError("--output is missing; name the folder to make")
    from gpt1_jax.text import corpus, documentation, inputs

    config = inputs.PrepareConfig(
        output=flags.output,
        inputs=tuple(flags.input or ()),
        tfds=flags.tfds,
        data_dir=flags.data_dir,
        tokenizer=flags.tokenizer,
        vocab=flags.vocab,
        vocab_size=flags.vocab_size,
        valid=tuple(flags.valid or ()),
        valid_fraction=flags.valid_fraction,
        workers=flags.workers,
        runner=flags.runner,
        seed=flags.seed,
    )
    if not flags.docs:
        return corpus.prepare(config)
    found = documentation.documents(workers=flags.workers or os.cpu_count() or 1)
    print(found.describe(), file=sys.stderr)
    return corpus.prepare(config, found.documents)


def _compare(flags: argparse.Namespace) -> dict:
    if flags.output is not None:
        raise UserError("--compare writes nothing; leave out --output")
    if flags.input is None or flags.vocab is None:
        raise UserError("--compare needs --input and --vocab")
    from gpt1_jax.text import compare

    modes = tuple(flags.compare.split(","))
    return compare.compare(
        compare.CompareConfig(modes, tuple(flags.input), flags.vocab, flags.workers)
    )


def train(flags: argparse.Namespace) -> dict:
    profile = _profile(flags.profile)
    overrides = dict(flags.overrides)
    if flags.initial is not None:
        overrides["initial"] = flags.initial
    from gpt1_jax.recipe import experiment
    from gpt1_jax.training.train import train

    several = (flags.coordinator, flags.num_processes, flags.process_id)
    if any(value is not None for value in several):
        if any(value is None for value in several):
            raise UserError("--coordinator, --num_processes and --process_id go together")
        _connect(*several)
    described, explicit = experiment.load(flags.config, overrides)
    return train(described, explicit, flags.workdir, profile=profile, quiet=flags.quiet)


def _connect(coordinator: str, num_processes: int, process_id: int) -> None:
    import jax

    if not re.fullmatch(r".+:\d+", coordinator):
        raise UserError(f"--coordinator={coordinator}; expected HOST:PORT, as in 10.0.0.2:8476")
    if not 0 <= process_id < num_processes:
        raise UserError(
            f"--process_id={process_id}; expected 0 to {num_processes - 1}, one less than "
            "--num_processes"
        )
    # JAX's own 100 seconds are long to wait for a peer that is gone.
    jax.distributed.initialize(coordinator, num_processes, process_id, heartbeat_timeout_seconds=30)


def _profile(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    first, _, last = text.partition(":")
    if not (first.isdigit() and last.isdigit() and 1 <= int(first) <= int(last)):
        raise UserError(f"--profile={text}; expected FIRST:LAST, two steps, as in 10:12")
    return int(first), int(last)


def evaluate(flags: argparse.Namespace) -> dict:
    if flags.data is not None and flags.task is not None:
        raise UserError("--data and --task: give one of them")
    if flags.probes and (flags.data or flags.task or flags.split):
        raise UserError("--probes takes --probe_data=FOLDER, not --data, --task or --split")
    if flags.probe_data is not None and not flags.probes:
        raise UserError("--probe_data is for --probes, which is not given")
    model = _model(flags)
    began = time.monotonic()
    if flags.probes:
        metrics, n_tokens = _probes(model, flags)
        split, cut = "probes", {}
    elif model.task is not None and flags.data is None:
        split = flags.split or "dev"
        metrics, n_tokens, n_cut = model.evaluate_task(flags.task, split)
        cut = {"truncated": n_cut}
        print(f"{n_cut} examples cut to fit n_ctx", file=sys.stderr)
    else:
        if flags.task is not None:
            raise UserError(
                f"{model.workdir} holds a language model, --task needs a fine-tuned one"
            )
        split = flags.split or "valid"
        metrics, n_tokens = model.evaluate_tokens(flags.data, split)
        cut = {}
    return {
        "step": model.step,
        "metrics": {split: metrics},
        **cut,
        "tokens_per_s": n_tokens / (time.monotonic() - began),
    }


def _probes(model, flags: argparse.Namespace) -> tuple[dict, int]:
    """The zero-shot probes by name, as the run's config has them with the flags on top; and the
    number of tokens."""
    from gpt1_jax.inference import probe_curve
    from gpt1_jax.recipe import experiment

    overrides = dict(flags.overrides)
    if flags.probe_data is not None:
        overrides["probes.path"] = flags.probe_data
    config = experiment.section("probes", model.config.probes, overrides)
    rows, n_tokens = probe_curve.of_trained(model, config)
    return {row.pop("probe"): row for row in rows}, n_tokens


def sample(flags: argparse.Namespace) -> dict:
    from gpt1_jax.inference.sample import SampleConfig

    model = _model(flags)
    config = SampleConfig(
        length=flags.length,
        temperature=flags.temperature,
        top_k=flags.top_k,
        top_p=flags.top_p,
        num_samples=flags.num_samples,
        seed=flags.seed,
        stop=flags.stop,
    )
    samples = model.sample(flags.prompt, config)
    for text in samples:
        print(flags.prompt + text, end="\n\n", file=sys.stderr)
    return {"step": model.step, "prompt": flags.prompt, "samples": samples}


def score(flags: argparse.Namespace) -> dict:
    from gpt1_jax.inference import batch_inference

    model = _model(flags)
    return batch_inference.score(model, flags.input, flags.output, flags.stride)


def predict(flags: argparse.Namespace) -> dict:
    if not flags.glue and (flags.input is None or flags.task is not None):
        raise UserError("--input is needed, and --task is not; or --glue, for a submission file")
    from gpt1_jax.inference import batch_inference, glue_submission

    model = _model(flags)
    if flags.glue:
        return glue_submission.submit(model, flags.output, task=flags.task, path=flags.input)
    result = batch_inference.predict(model, flags.input, flags.output)
    cut, count = result["truncated"], result["examples"]
    print(f"{cut} of {count} examples cut to fit n_ctx", file=sys.stderr)
    return result


def report(flags: argparse.Namespace) -> dict:
    from gpt1_jax.results import report

    return report.report(flags.runs, flags.output)


def convert(flags: argparse.Namespace) -> dict:
    from gpt1_jax.weights import convert

    return convert.convert(flags.source, flags.to, flags.tokenizer, flags.step)


def _overrides(words: list[str]) -> dict[str, str]:
    """`--config.a.b=v` as {"a.b": "v"}; anything else that no flag took is a mistake."""
    found = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not key.startswith("--config.") or not equals:
            hint = "; write --config.KEY=VALUE" if key.startswith("--config.") else ""
            raise UserError(f"unknown argument {word!r}{hint}")
        found[key.removeprefix("--config.")] = value
    return found


def _require_use(flags: argparse.Namespace) -> None:
    """UserError for config keys that the verb does not read."""
    probing = flags.verb == "evaluate" and flags.probes
    for key in flags.overrides:
        training = flags.verb in ("train", "reproduce")
        if not training and not (probing and key.startswith("probes.")):
            hint = "; --probes takes --config.probes.KEY=VALUE" if probing else ""
            raise UserError(f"--config.{key} is for train and reproduce, not {flags.verb}{hint}")


def main(words: list[str] | None = None) -> int:
    """Runs a verb and returns the exit status."""

    def stopped(number, frame):
        raise Interrupted("stopped by a signal; start the same command again")

    try:
        # While training, the loop has handlers of its own, which save first.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, stopped)
        flags, rest = parser().parse_known_args(words)
        flags.overrides = _overrides(rest)
        _require_use(flags)
        print(json.dumps(flags.run(flags)))
        return 0
    except UserError as error:
        if isinstance(error, PartlyFailed):
            print(json.dumps(error.result))
        print(f"gpt1: {error}", file=sys.stderr)
        return 2
    except Interrupted as error:
        print(f"gpt1: {error}", file=sys.stderr)
        return 75


if __name__ == "__main__":
    sys.exit(main())
