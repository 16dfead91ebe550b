"""What a task gives to those who cannot read: guessing, the commonest class, a bag of words.

A score means something beside these, taken on the same labels.
"""

import functools
import re
import statistics
from collections.abc import Callable

from gpt1_jax.data.metrics import METRICS


def baselines(task, split: str = "dev", pairs: bool = False) -> dict[str, float]:
    """Scores, by the task's metric, of rules that do not know the order of words; none that are
    undefined.

    Args:
      task: a LoadedTask; baselines learn from its train split.
      split: where they are measured.
      pairs: whether to fit one that knows of the order what two neighbours show.

    Returns:
      `chance`: what guessing is expected to score (`chance`). `majority`: the class or place that
      is commonest in train; of a regression the mean score, a constant, hence 0. `bag_of_words`:
      logistic regression on word counts, ridge regression where labels are scores. Texts of a pair
      have separate vocabularies and add how many words they share; in a multiple choice each
      choice beside its context is judged true or false, and the likeliest is taken. Of an
      entailment also `hypothesis_only`: the same without the premise, which by rights says nothing.
      With `pairs`, `word_pairs`: as bag_of_words, of words and pairs of neighbours by their TF-IDF.
    """
    from sklearn.linear_model import LogisticRegression, Ridge

    train, held_out = task.splits["train"], task.splits[split]
    linear = Ridge() if task.task.regression else LogisticRegression(max_iter=1000)
    metric, labels = METRICS[task.task.metric], [example.label for example in held_out]

    def score(predictions: list) -> float | None:
        return metric(labels, predictions)

    def fitted(read: Callable, chosen: slice = slice(None)) -> float | None:
        choices = task.task.shape == "multiple_choice"
        fit = functools.partial(_fitted, linear, read)
        if choices:
            return score(_predict_choices(fit, train, held_out))
        return score(_predict_texts(fit, train, held_out, chosen))

    known = [example.label for example in train]
    constant = statistics.mean(known) if task.task.regression else _commonest(known)
    n_classes = len(train[0].choices) or len(task.labels)
    found = {
        "chance": chance(task.task.metric, labels, n_classes),
        "majority": score([constant] * len(labels)),
        "bag_of_words": fitted(_words),
    }
    if task.task.shape == "entailment":
        found["hypothesis_only"] = fitted(_words, slice(1, 2))
    if pairs:
        found["word_pairs"] = fitted(_word_pairs)
    return {name: value for name, value in found.items() if value is not None}


def chance(metric: str, labels: list, n_classes: int) -> float:
    """The score of guesses in which all classes are equally likely: accuracy 1 / n_classes, no
    correlation, and the F1 of the counts that are expected, of p positives and q = 1/2 guessed to
    be 2 p q / (p + q).

        labels 1 1 0, f1: p = 2/3   ->   (2/3) / (2/3 + 1/2) = 4/7
    """
    if metric == "accuracy":
        return 1 / n_classes
    if metric == "f1":
        positive = sum(label == 1 for label in labels) / len(labels)
        return positive / (positive + 0.5)
    return 0.0


def _commonest(labels: list[int]) -> int:
    return max(sorted(set(labels)), key=labels.count)


def _predict_texts(fit: Callable, train: list, held_out: list, chosen: slice) -> list[float]:
    train_texts, texts = ([example.texts[chosen] for example in part] for part in (train, held_out))
    model, features = fit(train_texts, [example.label for example in train])
    return model.predict(features(texts)).tolist()


def _predict_choices(fit: Callable, train: list, held_out: list) -> list[int]:
    def rows(part):
        return [(" ".join(example.texts), choice) for example in part for choice in example.choices]

    correct = [place == example.label for example in train for place in range(len(example.choices))]
    classifier, features = fit(rows(train), correct)
    scores = classifier.decision_function(features(rows(held_out)))
    # Choices of the same words tie, and the first is taken; the last digits decide nothing.
    return scores.round(9).reshape(len(held_out), -1).argmax(axis=1).tolist()


def _words():
    from sklearn.feature_extraction.text import CountVectorizer

    # A single letter is a word.
    return CountVectorizer(token_pattern=r"\w+")


def _word_pairs():
    from sklearn.feature_extraction.text import TfidfVectorizer

    return TfidfVectorizer(token_pattern=r"\w+", ngram_range=(1, 2), sublinear_tf=True)


def _fitted(linear, read: Callable, rows: list[tuple[str, ...]], labels: list):
    """The linear model fitted to rows of one or two texts, as `read` counts what is in them, and
    the function that gives features."""
    from scipy.sparse import csr_matrix, hstack

    # The constant keeps the vocabulary from being empty, as it would be where no example has a
    # context.
    vectorizers = [read().fit(["constant", *texts]) for texts in zip(*rows, strict=True)]

    def features(rows):
        columns = [
            vectorizer.transform(texts)
            for vectorizer, texts in zip(vectorizers, zip(*rows, strict=True), strict=True)
        ]
        if len(vectorizers) == 2:
            columns.append(csr_matrix([_overlap(*row) for row in rows], dtype=float))
        return hstack(columns).tocsr()

    return linear.fit(features(rows), labels), features


def _overlap(first: str, second: str) -> tuple[float, float]:
    """Words that two texts share: their number, and their part of all words of both."""
    words, others = (set(re.findall(r"\w+", text.lower())) for text in (first, second))
    return len(words & others), len(words & others) / max(1, len(words | others))
