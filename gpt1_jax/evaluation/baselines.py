"""What a task gives to those who cannot read: guessing, the commonest class, a bag of words.

A score means something beside these, taken on the same labels.
"""

import re
import statistics

from gpt1_jax.data.metrics import METRICS


def baselines(task, split: str = "dev") -> dict[str, float]:
    """Scores, by the task's metric, of rules that do not know the order of words.

    Args:
      task: a LoadedTask; baselines learn from its train split.
      split: where they are measured.

    Returns:
      `chance`: what guessing is expected to score (`chance`). `majority`: the class or place that
      is commonest in train; of a regression the mean score, a constant, hence 0. `bag_of_words`:
      logistic regression on word counts, ridge regression where labels are scores. Texts of a pair
      have separate vocabularies and add how many words they share; in a multiple choice each
      choice beside its context is judged true or false, and the likeliest is taken. Of an
      entailment also `hypothesis_only`: the same without the premise, which by rights says nothing.
    """
    from sklearn.linear_model import LogisticRegression, Ridge

    train, held_out = task.splits["train"], task.splits[split]
    linear = Ridge() if task.task.regression else LogisticRegression(max_iter=1000)
    metric, labels = METRICS[task.task.metric], [example.label for example in held_out]

    def score(predictions: list) -> float:
        return float(metric(labels, predictions))

    known = [example.label for example in train]
    constant = statistics.mean(known) if task.task.regression else _commonest(known)
    predict = _predict_choices if task.task.shape == "multiple_choice" else _predict_texts
    n_classes = len(train[0].choices) or len(task.labels)
    found = {
        "chance": chance(task.task.metric, labels, n_classes),
        "majority": score([constant] * len(labels)),
        "bag_of_words": score(predict(linear, train, held_out)),
    }
    if task.task.shape == "entailment":
        hypothesis = slice(1, 2)
        found["hypothesis_only"] = score(_predict_texts(linear, train, held_out, hypothesis))
    return found


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


def _predict_texts(linear, train: list, held_out: list, chosen: slice = slice(None)) -> list[float]:
    train_texts, texts = ([example.texts[chosen] for example in part] for part in (train, held_out))
    model, features = _fitted(linear, train_texts, [example.label for example in train])
    return model.predict(features(texts)).tolist()


def _predict_choices(linear, train: list, held_out: list) -> list[int]:
    def rows(part):
        return [(" ".join(example.texts), choice) for example in part for choice in example.choices]

    correct = [place == example.label for example in train for place in range(len(example.choices))]
    classifier, features = _fitted(linear, rows(train), correct)
    scores = classifier.decision_function(features(rows(held_out)))
    # Choices of the same words tie, and the first is taken; the last digits decide nothing.
    return scores.round(9).reshape(len(held_out), -1).argmax(axis=1).tolist()


def _fitted(linear, rows: list[tuple[str, ...]], labels: list):
    """The linear model fitted to rows of one or two texts, and the function that gives features."""
    from scipy.sparse import csr_matrix, hstack
    from sklearn.feature_extraction.text import CountVectorizer

    vectorizers = []
    for texts in zip(*rows, strict=True):
        # A single letter is a word. The constant keeps the vocabulary from being empty, as it
        # would be where no example has a context.
        vectorizer = CountVectorizer(token_pattern=r"\w+")
        vectorizers.append(vectorizer.fit(["constant", *texts]))

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
