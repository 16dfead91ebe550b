"""Fine-tuning in every shape, from the weights of a run to answers."""

import json
import math

import jax
import numpy as np
import pytest
import runs

from gpt1_jax.data.task_files import RowFormat, read_examples
from gpt1_jax.errors import UserError
from gpt1_jax.evaluation import evaluate
from gpt1_jax.inference import predictions, trained_model
from gpt1_jax.recipe import sharding
from gpt1_jax.training import train
from gpt1_jax.weights import transfer
from gpt1_jax.weights.checkpoint import Checkpoints

LAST = runs.FINE_TUNING["steps"]
# A save costs as much as many updates: where checkpoints are not the question.
LAST_SAVED = {"checkpoint.every": 1000}


def result_file(workdir):
    return json.loads((workdir / "result.json").read_text())


@pytest.fixture(
    scope="module",
    params=[
        "classification",
        "entailment",
        pytest.param("similarity", marks=pytest.mark.exhaustive),
        "multiple_choice",
        pytest.param("score", marks=pytest.mark.slow),
    ],
)
def fine_tuned(request, pretrained, classification, finetuned, tmp_path_factory):
    """(shape, metric, task folder, workdir) of each shape, and of a similarity with scores."""
    if request.param == "classification":
        return request.param, "accuracy", classification, finetuned
    score = request.param == "score"
    shape = "similarity" if score else request.param
    metric = "pearson" if score else runs.METRIC[shape]
    folder = tmp_path_factory.mktemp(request.param)
    task = runs.write_task(folder / "task", shape, score)
    runs.run(runs.fine_tuning(pretrained, task, shape, metric, **LAST_SAVED), folder / "run")
    return shape, metric, task, folder / "run"


def test_tokens_of_the_first_format_are_trained_on(tmp_path):
    tokens = runs.ROOT / "tests" / "golden" / "tokens_format_1"
    given = runs.pretraining(tokens, **{"stop_after": 2, "eval.every": 2})
    assert runs.verb(*runs.words(given, tmp_path)).result["step"] == 2
    valid = runs.verb("evaluate", f"--workdir={tmp_path}").result["metrics"]["valid"]
    assert valid == pytest.approx(result_file(tmp_path)["metrics"]["valid"])


def test_every_shape_fine_tunes_evaluates_and_predicts(fine_tuned, tmp_path):
    shape, metric, task, workdir = fine_tuned
    result = result_file(workdir)
    assert set(result["metrics"]) == {"train", "dev"}
    assert set(result["metrics"]["dev"]) == {"loss", metric}
    terms = result["metrics"]["train"]
    assert terms["loss"] == pytest.approx(terms["task_loss"] + 0.5 * terms["lm_loss"], rel=1e-6)

    model = trained_model.load(workdir)
    assert model.step == result["best"]["step"]
    metrics = model.evaluate_task(None, "dev")[0]
    recorded = [r for r in runs.rows(workdir) if r["split"] == "dev" and r["step"] == model.step]
    assert metrics == pytest.approx({k: recorded[0][k] for k in metrics}, rel=1e-5, abs=1e-6)

    for split, count in (("dev", 12), ("test", 5)):
        output = tmp_path / "answers.jsonl"
        found = predictions.predict(model, str(task / f"{split}.jsonl"), str(output))
        assert found["examples"] == count
        answers = [json.loads(line) for line in output.read_text().splitlines()]
        assert len(answers) == count
        for answer in answers:
            assert sum(answer["probabilities"]) == pytest.approx(1.0)
            assert_answer(answer, shape, metric)


@pytest.mark.parametrize("fine_tuned", ["entailment", "score"], indirect=True)
def test_a_correlation_with_labels_that_are_all_the_same_is_undefined(fine_tuned, tmp_path):
    _, metric, task, workdir = fine_tuned
    lines = (task / "dev.jsonl").read_text().splitlines()
    same = [line for line in lines if json.loads(line)["label"] == json.loads(lines[0])["label"]]
    (tmp_path / "one.jsonl").write_text(lines[0])
    (tmp_path / "dev.jsonl").write_text("\n".join(same[:2]))
    files = f"--input={tmp_path / 'one.jsonl'}", f"--output={tmp_path / 'answer.jsonl'}"
    predicted = runs.verb("predict", f"--workdir={workdir}", *files)
    assert (predicted.result["labelled"], predicted.result[metric]) == (1, None)
    assert f"{metric} undefined: there is one label" in predicted.said
    evaluated = runs.verb("evaluate", f"--workdir={workdir}", f"--task={tmp_path}")
    assert evaluated.result["metrics"]["dev"][metric] is None
    assert evaluated.result["metrics"]["dev"]["loss"] > 0
    assert f"dev: {metric} undefined: the 2 labels are all the same" in evaluated.said


@pytest.mark.exhaustive
def test_where_dev_tells_nothing_no_checkpoint_is_the_best(pretrained, tmp_path):
    task = runs.write_task(tmp_path / "task", "similarity", score=True)
    lines = (task / "dev.jsonl").read_text().splitlines()
    dev = [json.loads(line) | {"label": 3.0} for line in lines]
    runs.write_jsonl(task / "dev.jsonl", dev)
    given = runs.fine_tuning(pretrained, task, "similarity", "pearson")
    given |= {"log.tensorboard": True, "eval.train_examples": 4}
    done = runs.verb(*runs.words(given, tmp_path / "run"))
    assert done.status == 0, done.said
    early = "dev: pearson undefined: the 12 labels are all the same, so that no checkpoint"
    assert done.said[0].startswith(early)
    assert done.result["best"] == {"step": None, "score": None}
    assert done.result["metrics"]["dev"]["pearson"] is None
    assert "step 6/6 dev: pearson undefined: the 12 labels are all the same" in done.said
    assert runs.verb("evaluate", f"--workdir={tmp_path / 'run'}").result["step"] == 6
    again = runs.verb("report", f"--runs={tmp_path / 'run'}", f"--output={tmp_path / 'report'}")
    assert again.status == 0, again.said


def assert_answer(answer, shape, metric):
    probabilities, label = answer["probabilities"], answer["label"]
    if metric == "pearson":
        assert len(probabilities) == 6
        expected = sum(score * p for score, p in enumerate(probabilities))
        assert label == pytest.approx(expected)
        return
    assert len(probabilities) == 2
    names = ["rain", "sun"] if shape == "classification" else [0, 1]
    assert label == names[int(np.argmax(probabilities))]


def test_the_predictions_are_what_the_metric_counts(finetuned, classification):
    model = trained_model.load(finetuned)
    accuracy = model.evaluate_task(None, "dev")[0]["accuracy"]
    examples = read_examples(classification / "dev.jsonl", RowFormat("classification"))
    right = [
        answer["label"] == example.label
        for answer, example in zip(model.predict(examples), examples, strict=True)
    ]
    assert accuracy == pytest.approx(sum(right) / len(right))


def test_an_easy_rule_is_learned(pretrained, classification, tmp_path):
    """Which of two words begins the text: at chance by the first step, then never wrong."""
    given = runs.fine_tuning(pretrained, classification, "classification")
    changes = {"steps": 80, "eval.every": 1000, "checkpoint.every": 1000}
    result = runs.run({**given, **changes}, tmp_path)
    assert result["metrics"]["dev"]["accuracy"] == 1.0
    assert result["metrics"]["dev"]["loss"] < 0.1
    first = runs.rows(tmp_path)[0]
    assert abs(first["task_loss"] - math.log(2)) < 0.3


# Enough to learn the words, not only to run.
LEARNING = {"steps": 120, "eval.every": 60, "checkpoint.every": 1000, "model.dropout": 0.0}


def test_pretraining_learns_the_words(tokens, tmp_path):
    """From nearly uniform towards the entropy of a word drawn at random and the letters it has."""
    result = runs.run(runs.pretraining(tokens, **LEARNING), tmp_path)
    first, last = (row for row in runs.rows(tmp_path) if row["split"] == "valid")
    assert last["loss"] < first["loss"] < math.log(300)
    assert last["loss"] < 3.0
    metrics = result["metrics"]["valid"]
    assert metrics["perplexity"] == pytest.approx(math.exp(metrics["loss"]))
    info = json.loads((tokens / "manifest.json").read_text())["splits"]["valid"]
    nats = metrics["loss"] * info["tokens"]
    assert metrics["bits_per_byte"] == pytest.approx(nats / math.log(2) / info["bytes"])
    assert metrics["perplexity_per_word"] == pytest.approx(math.exp(nats / info["words"]))


@pytest.mark.exhaustive
def test_without_the_auxiliary_loss_there_is_no_such_term(pretrained, classification, tmp_path):
    changes = {"objective.lm_coef": 0.0, "stop_after": 1}
    given = runs.fine_tuning(pretrained, classification, "classification", **changes)
    terms = runs.run(given, tmp_path)["metrics"]["train"]
    assert "lm_loss" not in terms
    assert terms["loss"] == terms["task_loss"]


def test_fine_tuning_without_weights_takes_the_tokenizer_of_the_tokens(
    tokens, classification, tmp_path
):
    sizes = {k: v for k, v in runs.PRETRAINING.items() if k.startswith("model.")}
    given = runs.fine_tuning(None, classification, "classification", **sizes)
    given |= {"initial": None, "data.path": str(tokens), "stop_after": 1}
    result = runs.run(given, tmp_path)
    assert result["tokenizer"] == trained_model.load(tmp_path).tokenizer.fingerprint
    assert runs.params(tmp_path, 1)["wte"]["embedding"].shape == (303, 16)


@pytest.fixture(scope="module")
def of_two_blocks(tokens, once):
    """A pre-training that was stopped early, when its weights had moved."""
    given = runs.pretraining(tokens, **{"model.n_layer": 2, "stop_after": 2})
    return once("of_two_blocks", lambda folder: runs.run(given, folder / "run")) / "run"


@pytest.mark.parametrize(
    ("n_transfer", "taken"),
    [
        pytest.param(None, 2, marks=pytest.mark.slow),
        (1, 1),
        pytest.param(0, 0, marks=pytest.mark.slow),
        (-1, -1),
    ],
)
def test_weights_are_taken_up_to_a_block(
    of_two_blocks, classification, tmp_path, n_transfer, taken
):
    """The first update has rate 0, so step 1 holds what the run began with."""
    changes = {"n_transfer": n_transfer, "stop_after": 1}
    given = runs.fine_tuning(of_two_blocks, classification, "classification", **changes)
    runs.run(given, tmp_path)
    source, found = runs.params(of_two_blocks, 2), runs.params(tmp_path, 1)

    def same(name):
        cut = {"wte": {"embedding": found["wte"]["embedding"][:300]}}
        return jax.tree.all(jax.tree.map(np.array_equal, {**found, **cut}[name], source[name]))

    assert [same(name) for name in ("wte", "wpe")] == [taken >= 0] * 2
    assert [same(f"h_{i}") for i in range(2)] == [taken >= i + 1 for i in range(2)]


def test_the_first_blocks_are_counted_by_number_and_not_by_name():
    """Sorted as text, h_10 and h_11 come before h_2, and JAX sorts so."""
    table = {"wte": {"embedding": np.zeros((4, 2))}, "wpe": {"embedding": np.zeros((4, 2))}}
    fresh = table | {f"h_{i}": {"kernel": np.zeros(1)} for i in range(12)}
    source = table | {f"h_{i}": {"kernel": np.ones(1)} for i in range(12)}
    fresh = jax.tree.map(lambda leaf: leaf, fresh)
    for n_transfer in range(13):
        found = transfer.transfer(fresh, source, n_transfer)
        taken = [i for i in range(12) if found[f"h_{i}"]["kernel"] == 1]
        assert taken == list(range(n_transfer))
    with pytest.raises(UserError, match=r"n_transfer is 13.*12 blocks"):
        transfer.transfer(fresh, source, 13)


def test_config_json_tells_all_there_is_to_know(finetuned, pretrained):
    config = json.loads((finetuned / "config.json").read_text())
    assert config["batch_size"] == 8
    assert config["initial"] == str(pretrained)
    # The sizes are those of the source, the rows of the token table three more.
    assert config["model"]["n_embd"] == 16
    assert (config["model"]["vocab_size"], config["model"]["n_special"]) == (300, 3)
    resolved = config["resolved"]
    assert resolved["total_steps"] == LAST
    assert resolved["labels"] == ["rain", "sun"]
    assert resolved["n_outputs"] == 2
    assert resolved["task"]["shape"] == config["task"]["shape"] == "classification"
    source = json.loads((pretrained / "config.json").read_text())["resolved"]["tokenizer"]
    assert resolved["tokenizer"] == source
    for name in ("seed", "steps", "batch_size", "model.n_layer", "optimizer.learning_rate"):
        assert name in config["identity"]
    assert not [k for k in config["identity"] if k.startswith(("mesh.", "log.", "checkpoint."))]


def test_result_json_tells_what_came_out_and_of_what(finetuned):
    result = result_file(finetuned)
    assert result["step"] == LAST
    assert result["seeds"] == [42]
    assert result["tokens_per_s"] > 0
    assert result["seconds"] > 0
    assert (result["device"], result["n_devices"]) == ("cpu", 1)
    assert set(result["best"]) == {"step", "score"}
    assert {"jax", "flax", "optax", "python"} <= set(result["versions"])
    assert len(result["config_hash"]) == 64
    assert "command" in result
    assert "git" in result
    tokenizer = json.loads((finetuned / "tokenizer" / "tokenizer.json").read_text())
    assert result["tokenizer"] == tokenizer["fingerprint"]


def test_metrics_have_one_row_for_each_step_and_split(finetuned):
    stands = [(row["step"], row["split"]) for row in runs.rows(finetuned)]
    training = [(step, "train") for step in range(1, LAST + 1)]
    assert sorted(stands) == sorted([*training, (3, "dev"), (6, "dev")])


def test_partial_batches_are_dropped_and_the_last_step_is_that_of_whole_ones(pretrained, tmp_path):
    """T = floor(n_train / batch) * epochs: of 39 examples in batches of 8, 4 updates an epoch."""
    task = runs.write_task(tmp_path / "task", "classification", n_train=39)
    given = runs.fine_tuning(pretrained, task, "classification")
    given = {**given, "steps": None, "epochs": 1.5, "eval.every": None}
    assert runs.run(given, tmp_path / "run")["step"] == 6
    dev = [row["step"] for row in runs.rows(tmp_path / "run") if row["split"] == "dev"]
    assert dev == [4, 6]


def test_few_updates_are_said_with_what_may_help(pretrained, classification, tmp_path):
    given = runs.fine_tuning(pretrained, classification, "classification", stop_after=1)
    flags = [f"--config.{key}={value}" for key, value in given.items()]
    words = ["train", "--config=configs/finetune.py", f"--workdir={tmp_path / 'run'}", *flags]
    (line,) = [line for line in runs.verb(*words).said if "few for a task" in line]
    assert line.startswith("6 updates are few")
    assert line.endswith("docs/fine_tuning.md has a recipe")
    assert "small_data" in (runs.ROOT / "docs" / "fine_tuning.md").read_text()


def test_a_model_is_shown_in_a_line(finetuned):
    shown = repr(trained_model.load(finetuned))
    assert "Transformer with" in shown
    assert "fine-tuned on" in shown
    assert len(shown) < 300 + len(str(finetuned))


def test_runs_of_any_length_share_one_program(tokens, tmp_path, monkeypatch):
    """Also one that goes on, with a schedule of its own."""
    made, update_function = [], train.update_function

    def updates(*given):
        made.append(update_function(*given))
        return made[-1]

    monkeypatch.setattr(train, "update_function", updates)
    common = {"optimizer.warmup": 0.4, "checkpoint.every": 100, "eval.every": 100}
    for changes in ({"steps": 2}, {"steps": 5, "extend": "restart"}, {"steps": 8, "stop_after": 6}):
        changes = {"extend": "stretch", **common, **changes}
        runs.run(runs.pretraining(tokens, **changes), tmp_path)
    assert len({one.span for one in made}) == 3
    (compiled,) = {one.compiled for one in made}
    assert compiled._cache_size() == 1


@pytest.mark.exhaustive
def test_padding_to_buckets_or_to_the_context_is_the_same_training(
    pretrained, classification, tmp_path, monkeypatch
):
    """With dropout on, whose masks count positions in the context."""
    lengths, put_batch = [], sharding.put_batch

    def placed(mesh, batch):
        lengths.append(batch["tokens"].shape[-1])
        return put_batch(mesh, batch)

    monkeypatch.setattr(sharding, "put_batch", placed)
    for name, buckets in (("buckets", (10,)), ("padded", ())):
        changes = {"data.buckets": buckets, **LAST_SAVED}
        given = runs.fine_tuning(pretrained, classification, "classification", **changes)
        runs.run(given, tmp_path / name)
    assert set(lengths[:LAST]) == {10, 16}
    assert set(lengths[LAST:]) == {16}
    runs.assert_close_rows(tmp_path / "buckets", tmp_path / "padded")


@pytest.mark.exhaustive
def test_the_first_training_examples_are_evaluated_like_dev(pretrained, tmp_path):
    """Dev is a copy of them here, so the two rows of a step must agree."""
    task = runs.write_task(tmp_path / "task", "classification")
    first = (task / "train.jsonl").read_text().splitlines(keepends=True)[:11]
    (task / "dev.jsonl").write_text("".join(first))
    given = runs.fine_tuning(pretrained, task, "classification", **LAST_SAVED)
    given |= {"eval.train_examples": 11}
    result = runs.run(given, tmp_path / "run")
    splits = {"dev": [], "train_examples": []}
    for row in runs.rows(tmp_path / "run"):
        if row["split"] in splits:
            splits[row.pop("split")].append(row)
    assert splits["train_examples"] == splits["dev"]
    assert [row["step"] for row in splits["dev"]] == [3, 6]
    assert result["metrics"]["train_examples"] == result["metrics"]["dev"]
    # More than there are is all.
    runs.run({**given, "eval.train_examples": 1000, "stop_after": 3}, tmp_path / "all")
    dev, train = runs.rows(tmp_path / "all")[-2:]
    assert (dev["split"], train["split"]) == ("dev", "train_examples")
    assert train["loss"] != dev["loss"]


@pytest.mark.exhaustive
def test_a_score_is_learned_by_the_squared_error(pretrained, tmp_path):
    """One linear output: predictions are scores, and there are no probabilities."""
    task = runs.write_task(tmp_path / "task", "similarity", score=True)
    for split in ("train", "dev"):
        lines = [json.loads(line) for line in (task / f"{split}.jsonl").read_text().splitlines()]
        lines = [{**row, "label": 4.5 if "sun" in row["text_a"] else 0.5} for row in lines]
        runs.write_jsonl(task / f"{split}.jsonl", lines)
    changes = {"task.score_loss": "mse", "steps": 80, "eval.every": 1000, "checkpoint.every": 1000}
    given = runs.fine_tuning(pretrained, task, "similarity", "pearson", **changes)
    result = runs.run(given, tmp_path / "run")
    assert result["metrics"]["dev"]["pearson"] > 0.95
    assert result["metrics"]["dev"]["loss"] < 0.5
    model = trained_model.load(tmp_path / "run")
    assert model.params["clf"]["kernel"].shape == (16, 1)
    answers = model.predict(read_examples(task / "dev.jsonl", RowFormat("similarity")))
    assert {answer["probabilities"] for answer in answers} == {None}
    labels = [
        example.label for example in read_examples(task / "dev.jsonl", RowFormat("similarity"))
    ]
    errors = np.subtract([answer["label"] for answer in answers], labels)
    assert np.mean(errors**2) == pytest.approx(result["metrics"]["dev"]["loss"], rel=1e-4)


@pytest.mark.exhaustive
def test_epochs_are_whole_passes_and_evaluated_at_their_end(pretrained, classification, tmp_path):
    """32 examples in batches of 8 are 4 updates; the partial batch of an epoch is dropped."""
    given = runs.fine_tuning(pretrained, classification, "classification")
    given = {**given, "steps": None, "epochs": 1.5, "eval.every": None}
    result = runs.run(given, tmp_path)
    assert result["step"] == 6
    assert [row["step"] for row in runs.rows(tmp_path) if row["split"] == "dev"] == [4, 6]


def test_the_best_checkpoint_is_kept_and_used(pretrained, classification, tmp_path, monkeypatch):
    """The first of equals: a later one must be better to replace it."""
    scores = iter([0.25, 0.75, 0.5, 0.75, 0.5, 0.25])
    monkeypatch.setattr(
        evaluate, "task_metrics", lambda *_: {"loss": 1.0, "accuracy": next(scores)}
    )
    changes = {"eval.every": 1, "checkpoint.every": 1, "checkpoint.keep": 1}
    given = runs.fine_tuning(pretrained, classification, "classification", **changes)
    for stop_after in (3, 5, None):
        result = runs.run({**given, "stop_after": stop_after}, tmp_path)
    assert result["best"] == {"step": 2, "score": 0.75}
    kept = {path.name for path in (tmp_path / "checkpoints").iterdir()}
    assert kept == {"2", "6"}
    assert trained_model.load(tmp_path).step == 2
    assert trained_model.load(tmp_path, 6).step == 6


def test_a_better_score_is_saved_between_two_intervals(pretrained, classification, tmp_path):
    changes = {"eval.every": 2, "checkpoint.every": 1000, "stop_after": 3}
    given = runs.fine_tuning(pretrained, classification, "classification", **changes)
    runs.run(given, tmp_path)
    assert {path.name for path in (tmp_path / "checkpoints").iterdir()} == {"2", "3"}


@pytest.mark.slow
def test_checkpoints_of_a_grid_are_kept_besides_the_newest(tokens, tmp_path):
    grid = {"checkpoint.per_decade": 3, "checkpoint.keep": 1}
    runs.run(runs.pretraining(tokens, **LEARNING, **grid, stop_after=12), tmp_path)
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.steps() == [1, 2, 5, 10, 12]
    checkpoints.close()


def test_prepared_tokens_with_a_valid_split_of_one_token_train_without_it(tokens, tmp_path, capsys):
    """Nothing can be predicted there, and the division by zero would come at the first interval."""
    (tmp_path / "valid.txt").write_text("a")
    folder = runs.prepare(
        tmp_path / "tokens",
        runs.write_documents(tmp_path / "documents"),
        valid=(str(tmp_path / "valid.txt"),),
        vocab=str(tokens / "tokenizer"),
    )
    given = runs.pretraining(folder, **{"stop_after": 1, "eval.every": 1})
    result = runs.run(given, tmp_path / "run", quiet=False)
    assert set(result["metrics"]) == {"train"}
    assert "valid" in capsys.readouterr().err


def test_without_a_valid_split_there_is_nothing_to_evaluate(tokens, tmp_path):
    folder = runs.prepare(
        tmp_path / "tokens",
        runs.write_documents(tmp_path / "documents"),
        valid_fraction=0.0,
        vocab=str(tokens / "tokenizer"),
    )
    result = runs.run(runs.pretraining(folder, stop_after=3), tmp_path / "run")
    assert set(result["metrics"]) == {"train"}
