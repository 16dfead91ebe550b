"""The zero-shot probes against slow and obvious versions of themselves, for both bodies; and as an
action of a run."""

import json
import random
import shutil

import numpy as np
import oracles
import pytest
import runs
import tiny

from gpt1_jax.__main__ import main
from gpt1_jax.data.metrics import matthews
from gpt1_jax.data.task_files import pronoun_starts
from gpt1_jax.data.tasks import Example
from gpt1_jax.errors import UserError
from gpt1_jax.evaluation import evaluate, probes, zero_shot_scores
from gpt1_jax.evaluation.placed_model import PlacedModel
from gpt1_jax.evaluation.probes import PROBES, Anchor, AnchorsConfig, ProbeConfig, fitted
from gpt1_jax.inference import probe_curve
from gpt1_jax.model.config import ModelConfig
from gpt1_jax.model.objective import network as any_network
from gpt1_jax.storage.retention import on_grid
from gpt1_jax.tokenization import loading
from gpt1_jax.training.actions import Actions

N_CTX = 40
BODIES = {
    "transformer": {"n_layer": 2, "n_head": 4},
    "lstm": {"body": "lstm", "n_layer": 1, "n_units": 24},
}
EXAMPLES = 12


@pytest.fixture(scope="module", params=BODIES)
def model(request):
    sizes = {"vocab_size": 300, "n_ctx": N_CTX, "n_embd": 16, **BODIES[request.param]}
    network = any_network(ModelConfig(**sizes), "plain", None, 0)
    return network, tiny.params(network)


@pytest.fixture(scope="module")
def tokenizer(tokens):
    return loading.load(tokens / "tokenizer")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A task for each probe, under the names of the defaults; nothing in them can be known."""
    folder, draw = tmp_path_factory.mktemp("probes"), random.Random(3)

    def text():
        return runs.sentence(draw, draw.choice([1, 3, 6]))

    def row(task, number):
        label = number % 2
        if task in ("sst2", "cola"):
            return {"text": text(), "label": label}
        if task == "race":
            choices = [text() for _ in range(4)]
            return {
                "context": " ".join([text()] * 9),
                "question": "who",
                "choices": choices,
                "label": number % 4,
            }
        context = f"{text()} because she {text()}."
        choices = ["The cat", "Dora"]
        return {"context": context, "question": "she", "choices": choices, "label": label}

    for task in ("sst2", "cola", "race", "dprd"):
        for split in ("train", "dev"):
            rows = [row(task, number) for number in range(EXAMPLES)]
            runs.write_jsonl(folder / task / f"{split}.jsonl", rows)
    return folder


def slowly(network, params, context, continuation):
    """The mean over the continuation from the whole logits, in numpy, one sequence at a time."""
    ids = np.asarray(context + continuation)
    if network.body.config.body == "lstm":
        hidden = oracles.lstm_hidden(params, ids[None, :-1])
    else:
        hidden = oracles.hidden(params, ids[None, :-1], n_head=4)
    log_probabilities = oracles.log_softmax(hidden @ params["wte"]["embedding"].T)[0]
    places = range(max(1, len(context)), len(ids))
    return float(np.mean([log_probabilities[place - 1, ids[place]] for place in places]))


def test_the_mean_is_over_the_continuation_alone(model):
    long = tiny.tokens(1, 33)[0].tolist()
    pairs = [([7, 8], [9, 5]), ([], [4, 3, 2]), ([1], [2]), (long, [5] * 8), ([1, 2, 3], long)]
    found = zero_shot_scores.mean_log_probabilities(PlacedModel(*model, batch_size=2), pairs)
    np.testing.assert_allclose(found, [slowly(*model, *pair) for pair in pairs], rtol=1e-5)


@pytest.mark.parametrize("pair", [([], [1]), ([1, 2], []), ([], [])])
def test_where_nothing_is_predicted_nothing_is_likely(model, pair):
    found = zero_shot_scores.mean_log_probabilities(PlacedModel(*model), [([1], [2]), pair])
    assert np.isfinite(found[0])
    assert found[1] == -np.inf


def test_few_lengths_are_compiled_and_little_is_padding(model, monkeypatch):
    """Long before short in the file, and still no short one is padded to the length of a long."""
    shapes = []
    computed = evaluate.sequence_losses
    monkeypatch.setattr(
        evaluate, "sequence_losses", lambda *a: shapes.append(a[2].shape) or computed(*a)
    )
    pairs = [([1], [2] * length) for length in (40, 3, 17, 5, 39, 16)]
    zero_shot_scores.mean_log_probabilities(PlacedModel(*model, batch_size=2), pairs)
    assert shapes == [(2, 16), (2, 32), (2, 40)]


def test_what_is_too_long_is_cut_alike_for_all_candidates():
    context = [1, 2, 3]
    assert fitted([(context, [7, 8]), (context, [9])], 4) == (
        [(context, [7, 8]), (context, [9])],
        False,
    )
    assert fitted([(context, [7, 8, 9]), (context, [6])], 4) == (
        [([2, 3], [7, 8, 9]), ([2, 3], [6])],
        True,
    )
    assert fitted([([1, 2], [3, 4, 5, 6, 7])], 4) == ([([2], [3, 4, 5, 6])], True)
    assert fitted([([], [3, 4, 5, 6, 7])], 4) == ([([], [3, 4, 5, 6, 7])], False)
    assert fitted([([], [3, 4, 5, 6, 7, 8])], 4) == ([([], [3, 4, 5, 6, 7])], True)


def example(*texts, choices=()):
    start = pronoun_starts(*texts)[0] if len(texts) == 2 else None
    return Example(texts, choices, 0, 1, start)


def as_texts(text):
    """In place of a tokenizer: shows what would be encoded."""
    return [text]


def test_the_pairs_of_each_probe():
    assert probes.sentiment(example("it 's good . "), as_texts) == [
        (["it 's good . very"], [" negative"]),
        (["it 's good . very"], [" positive"]),
    ]
    assert probes.acceptability(example("They sleeps."), as_texts) == [([], ["They sleeps."])]
    asked = Example(("A dog sat.", "Who sat?"), ("a dog", "", " a cat "), 0, 1)
    assert probes.question_answering(asked, as_texts) == [
        (["A dog sat. Who sat?"], [" a dog"]),
        (["A dog sat. Who sat?"], []),
        (["A dog sat. Who sat?"], [" a cat"]),
    ]
    statements = Example(("", ""), ("Ice is hot.", "Ice is cold."), 0, 1)
    assert probes.question_answering(statements, as_texts)[1] == ([""], ["Ice is cold."])
    pronoun = example("Bill hit Tom because he lost, then.", "he", choices=("Bill", "Tom"))
    assert probes.pronoun_resolution(pronoun, as_texts) == [
        (["Bill hit Tom because Bill"], [" lost, then."]),
        (["Bill hit Tom because Tom"], [" lost, then."]),
    ]


def test_of_several_pronouns_it_is_not_clear_which_is_meant(tmp_path, tokenizer, capsys):
    rows = [
        {"context": context, "question": "she", "choices": ["Ann", "Sue"], "label": label}
        for label, context in enumerate(("Ann said she won.", "Ann says she knew she won."))
    ]
    for split in ("train", "dev"):
        runs.write_jsonl(tmp_path / "dprd" / f"{split}.jsonl", rows)
    changes = dict.fromkeys(PROBES) | {"pronoun_resolution": "dprd"}
    (asked,) = questions(tmp_path, tokenizer, **changes).values()
    assert asked.dev.labels.tolist() == [0]
    assert "1 of 2 examples are left out" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("sentence", "pronoun", "candidate", "substituted"),
    [
        ("The bee saw a fly, as it flew.", "it", "The bee", "The bee saw a fly, as the bee"),
        ("It flew away.", "It", "the bee", "The bee"),
        ("Tom fell. He cried.", "He", "the boy", "Tom fell. The boy"),
        ("Tom lost his hat.", "his", "Tom", "Tom lost Tom's"),
        ("They lost their hats.", "their", "The boys", "They lost the boys'"),
        ("Tom hit him there.", "him", "A. Smith", "Tom hit A. Smith"),
        ("Tom saw them there.", "them", "This", "Tom saw this"),
    ],
)
def test_a_candidate_is_written_as_its_place_asks(sentence, pronoun, candidate, substituted):
    ((context, _),) = probes.pronoun_resolution(
        example(sentence, pronoun, choices=(candidate,)), as_texts
    )
    assert context == [substituted]


def test_the_threshold_is_the_best_there_is():
    draw = np.random.default_rng(1)
    for size in (2, 5, 30):
        scores = draw.integers(0, 8, size) / 4  # some are equal
        labels = np.append(draw.integers(0, 2, size - 2), [0, 1])
        threshold = zero_shot_scores.best_threshold(scores, labels)
        found = matthews(labels, scores >= threshold)
        by_score = {score: matthews(labels, scores >= score) for score in scores}
        assert found == pytest.approx(max(by_score.values()))
        assert threshold == min(s for s, m in by_score.items() if m > found - 1e-9)
    assert (
        zero_shot_scores.best_threshold(np.array([-np.inf, 1.0, 2.0]), np.array([0, 0, 1])) == 2.0
    )


def test_what_is_measured_is_what_the_sums_over_tokens_say(model, tokenizer, folder):
    config = ProbeConfig(path=str(folder))
    questions = probes.prepare(config, tokenizer, [tokenizer.end], N_CTX)
    rows = {
        row["probe"]: row
        for row in zero_shot_scores.measure(questions, PlacedModel(*model, batch_size=8))
    }
    assert set(rows) == set(PROBES)
    assert sum(row["cut"] for row in rows.values()) > 0

    def read(task, split="dev"):
        lines = (folder / task / f"{split}.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines]

    def mean(*candidates):
        """Of each (context, continuation) of one example in text."""
        ids = [([tokenizer.end, *map_ids(a)], map_ids(b)) for a, b in candidates]
        room = N_CTX + 1 - max(len(b) for _, b in ids)
        return [slowly(*model, a[-room:], b) for a, b in ids]

    map_ids = tokenizer.encode
    answers = [
        int(np.argmax(mean(*((f"{r['text']} very", f" {w}") for w in ("negative", "positive")))))
        for r in read("sst2")
    ]
    right = [answer == r["label"] for answer, r in zip(answers, read("sst2"), strict=True)]
    assert rows["sentiment"]["value"] == np.mean(right)
    ones = np.mean(answers)
    assert rows["sentiment"]["commonest"] == pytest.approx(max(ones, 1 - ones))

    right = [
        int(np.argmax(mean(*((f"{r['context']} who", f" {c}") for c in r["choices"]))))
        == r["label"]
        for r in read("race")
    ]
    assert rows["question_answering"]["value"] == np.mean(right)

    right = []
    for row in read("dprd"):
        before, after = row["context"].split("she")
        likely = mean(*((before + name, after) for name in ("the cat", "Dora")))
        right.append(int(np.argmax(likely)) == row["label"])
    assert rows["pronoun_resolution"]["value"] == np.mean(right)

    scores = {
        s: np.array([mean(("", r["text"]))[0] for r in read("cola", s)]) for s in ("train", "dev")
    }
    labels = {s: [r["label"] for r in read("cola", s)] for s in ("train", "dev")}
    found = {t: matthews(labels["train"], scores["train"] >= t) for t in scores["train"]}
    best = min(t for t in found if found[t] > max(found.values()) - 1e-9)
    value = matthews(labels["dev"], scores["dev"] >= best - 1e-6)
    assert rows["acceptability"]["value"] == pytest.approx(value)


def questions(folder, tokenizer, **changes):
    asked = probes.prepare(ProbeConfig(path=str(folder), **changes), tokenizer, [], N_CTX)
    return {question.probe: question for question in asked}


def test_a_cap_takes_examples_from_everywhere_and_the_same_each_time(folder, tokenizer):
    whole = questions(folder, tokenizer)["sentiment"].dev
    one, again = (questions(folder, tokenizer, examples=5)["sentiment"].dev for _ in range(2))
    assert one.pairs == again.pairs
    assert len(one.labels) == 5
    places = [whole.pairs.index(pair) // 2 for pair in one.pairs[::2]]
    assert places == sorted(places) != list(range(5))


def test_the_relative_score_is_0_at_chance_and_1_at_the_best(folder, tokenizer):
    found = {name: q.anchors for name, q in questions(folder, tokenizer).items()}
    limits = {name: (anchor["random"], anchor["best"]) for name, anchor in found.items()}
    assert limits == {
        "sentiment": (50.0, 93.2),
        "acceptability": (0.0, 35.0),
        "question_answering": (25.0, 53.3),
        "pronoun_resolution": (50.0, 76.4),
    }
    assert all("unverified" in found[name]["source"] for name in list(found)[2:])
    anchors = AnchorsConfig(question_answering=Anchor(best=80.0))
    other = questions(folder, tokenizer, anchors=anchors)
    assert other["question_answering"].anchors == {
        "random": 25.0,
        "best": 80.0,
        "source": "set in the config",
    }
    network = tiny.network(vocab_size=300, n_ctx=N_CTX)
    (row,) = zero_shot_scores.measure(
        [other["question_answering"]], PlacedModel(network, tiny.params(network))
    )
    assert row["relative"] == pytest.approx((100 * row["value"] - 25) / 55)
    assert zero_shot_scores.metrics([row]) == {
        "question_answering": row["value"],
        "question_answering_relative": row["relative"],
    }


def test_without_a_known_best_it_is_a_perfect_score_and_named_so(tmp_path, tokenizer):
    rows = [{"context": "a", "question": "", "choices": ["b", "c"], "label": i % 2} for i in (0, 1)]
    for split in ("train", "dev"):
        runs.write_jsonl(tmp_path / "own" / f"{split}.jsonl", rows)
    changes = dict.fromkeys(PROBES) | {"question_answering": "own"}
    anchors = questions(tmp_path, tokenizer, **changes)["question_answering"].anchors
    assert (anchors["random"], anchors["best"]) == (50.0, 100.0)
    assert "perfect" in anchors["source"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sentiment": "imdb"}, r"probes.sentiment=imdb: there is no folder .*/imdb; name another"),
        ({"sentiment": "race"}, "sentiment=race is a task of multiple_choice; expected one of cl"),
        ({"pronoun_resolution": "race"}, "pronoun_resolution=race has no pronouns .*dprd, or None"),
        (dict.fromkeys(PROBES), "every probe is None"),
        (
            {"anchors": AnchorsConfig(sentiment=Anchor(best=50.0))},
            "probes.anchors.sentiment: best 50 is not above random 50",
        ),
    ],
)
def test_mistakes_are_named(folder, tokenizer, changes, message):
    with pytest.raises(UserError, match=message):
        probes.prepare(ProbeConfig(**{"path": str(folder), **changes}), tokenizer, [], N_CTX)


def test_three_classes_are_no_sentiment(tmp_path, tokenizer):
    for split in ("train", "dev"):
        rows = [{"text": "a", "label": label} for label in range(3)]
        runs.write_jsonl(tmp_path / "own" / f"{split}.jsonl", rows)
    with pytest.raises(UserError, match=r"probes.sentiment=own: .*own has 3 classes; expected two"):
        questions(tmp_path, tokenizer, sentiment="own")


# While training: on the grid 1, 3 (of 2 a decade) and at the end.
@pytest.fixture(scope="module")
def given(tokens, folder):
    changes = {"probes.path": str(folder), "probes.per_decade": 2, "checkpoint.per_decade": 2}
    return runs.pretraining(tokens, **changes)


@pytest.fixture(scope="module")
def probed(given, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("probed") / "run"
    runs.run(given, workdir)
    return workdir


def test_a_run_is_probed_on_the_grid_and_at_its_end(given, probed):
    rows = [row for row in runs.rows(probed) if row["split"] == "probes"]
    assert [row["step"] for row in rows] == [1, 3, 6]
    assert [s for s in range(1, 6) if on_grid(s, given["probes.per_decade"])] == [1, 3]
    names = {name for probe in PROBES for name in (probe, f"{probe}_relative")}
    assert set(rows[0]) == names | {"step", "split"}
    anchors = json.loads((probed / "config.json").read_text())["resolved"]["anchors"]
    assert anchors["sentiment"]["best"] == 93.2
    assert set(anchors) == set(PROBES)
    result = json.loads((probed / "result.json").read_text())
    assert result["metrics"]["probes"] == {name: rows[-1][name] for name in names}


@pytest.mark.slow
def test_probing_in_pieces_equals_the_whole_and_changes_no_parameter(
    given, probed, pretrained, tmp_path
):
    for stop_after in (1, 4, None):
        runs.run({**given, "stop_after": stop_after}, tmp_path)
    runs.assert_same_run(tmp_path, probed, 6)
    without = [row for row in runs.rows(probed) if row["split"] != "probes"]
    assert without == runs.rows(pretrained)


@pytest.mark.slow
def test_probes_are_recorded_before_the_checkpoint_of_their_step(given, tmp_path, monkeypatch):
    """A run that dies while probing has no checkpoint of that step, and does the step again."""
    with monkeypatch.context() as patched:
        patched.setattr(Actions, "probe", dying_at(3, Actions.probe))
        with pytest.raises(RuntimeError, match="died"):
            runs.run(given, tmp_path)
    assert not (tmp_path / "checkpoints" / "3").exists()
    runs.run(given, tmp_path)
    stands = [(row["step"], row["split"]) for row in runs.rows(tmp_path)]
    assert len(set(stands)) == len(stands)
    assert [step for step, split in stands if split == "probes"] == [1, 3, 6]


def dying_at(step, probe):
    def probed(actions, now):
        if now == step:
            raise RuntimeError("died")
        return probe(actions, now)

    return probed


def test_probes_may_change_between_the_pieces_of_a_run(given, tmp_path):
    runs.run({**given, "stop_after": 2}, tmp_path)
    runs.run({**given, "probes.question_answering": None, "stop_after": 3}, tmp_path)
    last = [row for row in runs.rows(tmp_path) if row["split"] == "probes"][-1]
    assert last["step"] == 3
    assert "question_answering" not in last


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"probes.sentiment": "imdb"}, "probes.sentiment=imdb"),
        ({"probes.examples": 0}, "probes.examples is 0"),
    ],
)
def test_mistakes_are_found_before_the_first_step(given, tmp_path, changes, message):
    with pytest.raises(UserError, match=message):
        runs.run({**given, **changes}, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_curve_has_what_was_recorded_and_begins_before_the_first_update(probed, folder):
    rows = probe_curve.curve(probed, ProbeConfig(path=str(folder)))
    assert {row["body"] for row in rows} == {"transformer"}
    kept = sorted(int(path.name) for path in (probed / "checkpoints").iterdir())
    assert [row["step"] for row in rows[:: len(PROBES)]] == [0, *kept]
    recorded = {r["step"]: r for r in runs.rows(probed) if r["split"] == "probes"}
    assert set(recorded) <= set(kept)
    for row in rows:
        if row["step"] in recorded:
            assert row["value"] == pytest.approx(recorded[row["step"]][row["probe"]])


def test_a_run_that_began_with_weights_has_no_point_before_its_first_update(finetuned, folder):
    changes = dict.fromkeys(PROBES) | {"sentiment": "sst2"}
    rows = probe_curve.curve(finetuned, ProbeConfig(path=str(folder), **changes))
    assert min(row["step"] for row in rows) > 0


def evaluated(capsys, *words):
    status = main(["evaluate", *words])
    said = capsys.readouterr()
    return json.loads(said.out) if status == 0 else said.err


def test_evaluate_puts_the_probes_to_a_checkpoint(probed, pretrained, folder, capsys):
    """The tasks' folder is that of the run's config, or the flag's for a run that had none."""
    for words in (
        [f"--workdir={probed}"],
        [f"--workdir={pretrained}", f"--probe_data={folder}"],
    ):
        found = evaluated(capsys, *words, "--probes")
        assert found["step"] == 6
        assert found["tokens_per_s"] > 0
        recorded = [row for row in runs.rows(probed) if row["split"] == "probes"][-1]
        for name in PROBES:
            measured = found["metrics"]["probes"][name]
            assert measured["value"] == pytest.approx(recorded[name])
            assert measured["n"] == EXAMPLES
            assert measured["anchors"]["random"] < measured["anchors"]["best"]
    other = "--config.probes.question_answering=dprd"  # any multiple choice
    found = evaluated(capsys, f"--workdir={probed}", "--probes", other, "--step=3")
    assert found["step"] == 3
    assert found["metrics"]["probes"]["question_answering"]["anchors"]["best"] == 76.4


@pytest.mark.parametrize("task", ["cola", "own"])
def test_a_probe_whose_metric_is_undefined_is_left_out(pretrained, folder, tmp_path, task):
    """All examples of dev have one label; the other probes are put to the model."""
    tasks = shutil.copytree(folder, tmp_path / "tasks")
    rows = [{"text": "the cat sat", "label": 1}] * 3
    runs.write_jsonl(tasks / task / "dev.jsonl", rows)
    if task == "own":
        runs.write_jsonl(tasks / task / "train.jsonl", [*rows, {"text": "a dog", "label": 0}])
    words = ["evaluate", f"--workdir={pretrained}", "--probes", f"--probe_data={tasks}"]
    words.append(f"--config.probes.acceptability={task}")
    said = f"probes.acceptability={task}: matthews undefined: the 3 labels are all the same"
    done = runs.verb(*words)
    assert done.status == 0, done.said
    assert f"{said}; the probe is left out" in done.said
    assert set(done.result["metrics"]["probes"]) == set(PROBES) - {"acceptability"}
    words += [f"--config.probes.{name}=None" for name in set(PROBES) - {"acceptability"}]
    assert said in runs.refused(words, "raise probes.examples")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--probe_data=x"], "--probe_data goes with --probes"),
        (["--probes", "--probe_data=x"], "probes.sentiment=sst2: there is no folder x/sst2"),
        (["--probes", "--split=dev"], "--split does not go with --probes"),
        (["--probes", "--config.probes.sentimnt=x"], "did you mean 'probes.sentiment'"),
        (["--probes", "--config.seed=1"], "seed"),
        (["--config.probes.path=x"], "--config.probes.path"),
    ],
)
def test_mistakes_on_the_command_line(pretrained, capsys, words, message):
    assert message in evaluated(capsys, f"--workdir={pretrained}", *words)
