"""What a task gives to those who cannot read: guessing, the commonest class, a bag of words.

A score means something beside these three, taken on the same labels.
"""

import re

from gpt1_jax.evaluation.scores import METRICS


def baselines(task, split: str = "dev") -> dict[str, float]:
    """Scores, by the task's metric, of rules that do not know the order of words.

    Args:
      task: a LoadedTask of classes or choices; baselines learn from its train split.
      split: where they are measured.

    Returns:
      `chance`: expected accuracy of a guess, whatever the metric. `majority`: the class or place
      that is commonest in train. `bag_of_words`: logistic regression on word counts. Texts of a
      pair have separate vocabularies and add how many words they share; in a multiple choice each
      choice beside its context is judged true or false, and the likeliest is taken.

    Raises:
      ValueError: the task is a regression.
    """
    if task.task.regression:
        raise ValueError(f"{task.task.name} is a regression; baselines are for classes and choices")
    train, held_out = task.splits["train"], task.splits[split]
    labels = [example.label for example in held_out]
    majority = _commonest([example.label for example in train])
    predict = _predict_choices if task.task.shape == "multiple_choice" else _predict_classes
    metric = METRICS[task.task.metric]
    return {
        "chance": 1 / (len(train[0].choices) or len(task.labels)),
        "majority": float(metric(labels, [majority] * len(labels))),
        "bag_of_words": float(metric(labels, predict(train, held_out))),
    }


def _commonest(labels: list[int]) -> int:
    return max(sorted(set(labels)), key=labels.count)


def _predict_classes(train: list, held_out: list) -> list[int]:
    train_texts, texts = ([example.texts for example in part] for part in (train, held_out))
    classifier, features = _fitted(train_texts, [example.label for example in train])
    return classifier.predict(features(texts)).tolist()


def _predict_choices(train: list, held_out: list) -> list[int]:
    def rows(part):
        return [(" ".join(example.texts), choice) for example in part for choice in example.choices]

    correct = [place == example.label for example in train for place in range(len(example.choices))]
    classifier, features = _fitted(rows(train), correct)
    scores = classifier.decision_function(features(rows(held_out)))
    # Choices of the same words tie, and the first is taken; the last digits decide nothing.
    return scores.round(9).reshape(len(held_out), -1).argmax(axis=1).tolist()


def _fitted(rows: list[tuple[str, ...]], labels: list):
    """A classifier fitted to rows of one or two texts, and the function that gives features."""
    from scipy.sparse import csr_matrix, hstack
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import LogisticRegression

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

    return LogisticRegression(max_iter=1000).fit(features(rows), labels), features


def _overlap(first: str, second: str) -> tuple[float, float]:
    """Words that two texts share: their number, and their part of all words of both."""
    words, others = (set(re.findall(r"\w+", text.lower())) for text in (first, second))
    return len(words & others), len(words & others) / max(1, len(words | others))
