"""The four input shapes, and what is cut when they do not fit."""

import doctest
import itertools
import random
from dataclasses import dataclass

import pytest

from gpt1_jax.data import transformations
from gpt1_jax.data.tasks import FIELDS, TASKS, Example
from gpt1_jax.data.transformations import TRUNCATIONS, encode, encode_all
from gpt1_jax.errors import UserError

S, D, E = 300, 301, 302


@dataclass
class Digits:
    """A stand-in for a tokenizer: each digit is a token, and a space in front of it adds 100."""

    start: int = S
    delimiter: int = D
    classify: int = E

    def encode(self, text: str) -> list[int]:
        spaced = [text[place - 1 : place] == " " for place in range(len(text))]
        return [
            int(character) + 100 * space
            for character, space in zip(text, spaced, strict=True)
            if character != " "
        ]


def sequences(shape, texts, choices=(), n_ctx=64, truncation=None):
    return encode(Example(texts, choices, None, 1), shape, Digits(), n_ctx, truncation)


def test_the_worked_examples_of_the_module():
    """Golden ids, in the docstring: each shape, and what each rule cuts."""

    def digits():
        return Digits(10, 11, 12)

    names = {"Digits": digits, "Example": Example}
    done = doctest.testmod(transformations, extraglobs=names)
    assert (done.failed, done.attempted >= 10) == (0, True)


def test_the_four_shapes():
    assert sequences("classification", ("123",)) == ([[S, 1, 2, 3, E]], False)
    assert sequences("entailment", ("12", "3")) == ([[S, 1, 2, D, 3, E]], False)
    both_orders = [[S, 1, 2, D, 3, E], [S, 3, D, 1, 2, E]]
    assert sequences("similarity", ("12", "3")) == (both_orders, False)
    each_choice = [[S, 1, 2, 103, D, 4, E], [S, 1, 2, 103, D, 5, 6, E]]
    assert sequences("multiple_choice", ("12", "3"), ("4", "56")) == (each_choice, False)


@pytest.mark.parametrize(
    ("texts", "prefix"), [(("", "3"), [3]), (("12", ""), [1, 2]), (("", ""), [])]
)
def test_multiple_choice_without_context_or_question(texts, prefix):
    candidates, cut = sequences("multiple_choice", texts, ("4", "5"))
    assert candidates == [[S, *prefix, D, 4, E], [S, *prefix, D, 5, E]]
    assert not cut


@pytest.mark.parametrize(
    ("shape", "texts", "choices", "candidates"),
    [
        ("classification", ("1234567",), (), [[S, 1, 2, 3, 4, 5, 6, E]]),
        ("entailment", ("123456", "7"), (), [[S, 1, 2, 3, 4, D, 7, E]]),
        ("entailment", ("1234", "5678"), (), [[S, 1, 2, D, 5, 6, E]]),
        ("entailment", ("1", "345678"), (), [[S, 1, D, 3, 4, 5, 6, E]]),
        ("similarity", ("1", "345678"), (), [[S, 1, D, 3, 4, 5, 6, E], [S, 3, 4, 5, 6, D, 1, E]]),
        (
            "multiple_choice",
            ("1234", "5"),
            ("6", "78"),
            [[S, 1, 2, 105, D, 6, E], [S, 1, 2, 105, D, 7, 8, E]],
        ),
        # Question and choice are too long by themselves: cut as a pair, in the room of 5.
        (
            "multiple_choice",
            ("1", "234"),
            ("5", "678"),
            [[S, 1, 102, 3, D, 5, E], [S, 1, 102, 3, D, 6, 7, E]],
        ),
    ],
)
def test_what_is_cut(shape, texts, choices, candidates):
    assert sequences(shape, texts, choices, n_ctx=8) == (candidates, True)


@pytest.mark.parametrize(
    ("shape", "texts", "choices", "candidates"),
    [
        # Of a premise that leaves no room one token stays; the hypothesis is whole where it can.
        ("entailment", ("1234", "5678"), (), [[S, 1, D, 5, 6, 7, 8, E]]),
        ("entailment", ("1234", "56789"), (), [[S, 1, D, 5, 6, 7, 8, E]]),
        ("entailment", ("123456", "7"), (), [[S, 1, 2, 3, 4, D, 7, E]]),
    ],
)
def test_what_is_cut_of_the_context_alone(shape, texts, choices, candidates):
    assert sequences(shape, texts, choices, 8, "context") == (candidates, True)


def test_halves_are_those_of_the_released_code():
    """n_ctx / 2 - 2 tokens from the front of each, whatever the other one has: at 512, 254."""
    long = "1" * 600
    candidates, cut = sequences("multiple_choice", (long, ""), (long, "2"), 512, "halves")
    assert cut
    assert candidates == [
        [S, *[1] * 254, D, *[1] * 254, E],
        [S, *[1] * 254, D, 2, E],
    ]
    # The question is kept, and what stands before it is cut.
    found = sequences("multiple_choice", ("12345", "67"), ("8", "9"), 12, "halves")
    assert found == ([[S, 1, 2, 106, 7, D, 8, E], [S, 1, 2, 106, 7, D, 9, E]], True)
    found = sequences("similarity", ("12345", "6"), (), 12, "halves")
    assert found == ([[S, 1, 2, 3, 4, D, 6, E], [S, 6, D, 1, 2, 3, 4, E]], True)


def test_what_fits_is_whole_under_every_rule():
    for shape, rules in TRUNCATIONS.items():
        texts = ("12", "3")[: len(FIELDS[shape])]
        for rule in rules:
            choices = ("4", "56") if shape == "multiple_choice" else ()
            assert sequences(shape, texts, choices, 20, rule) == sequences(shape, texts, choices)


def test_the_rules_of_the_tasks_are_rules_of_their_shapes():
    for row in TASKS.values():
        assert row.truncation is None or row.truncation in TRUNCATIONS[row.shape]
    assert TASKS["race"].truncation == "context"
    assert TASKS["story_cloze"].truncation == "halves"


RULES = [(shape, rule) for shape, rules in TRUNCATIONS.items() for rule in rules]


@pytest.mark.parametrize(("shape", "rule"), RULES)
def test_any_lengths_fit_and_keep_every_text(shape, rule):
    draw = random.Random(0)
    for _ in range(150):
        n_ctx = draw.randint(6, 20)
        first, second, third, fourth = (
            "".join(draw.choices("123456789", k=draw.randint(1, 25))) for _ in range(4)
        )
        choices = (third, fourth)
        texts = (first, second)[: len(FIELDS[shape])]
        candidates, cut = sequences(shape, texts, choices, n_ctx, rule)
        whole, _ = sequences(shape, texts, choices, 1000, rule)
        assert cut == (candidates != whole)
        for ids in candidates:
            assert len(ids) <= n_ctx
            assert (ids[0], ids[-1], ids.count(E)) == (S, E, 1)
            pieces = [
                list(piece) for is_d, piece in itertools.groupby(ids[1:-1], D.__eq__) if not is_d
            ]
            assert len(pieces) == (1 if shape == "classification" else 2)


def test_a_cut_similarity_stays_symmetric():
    for n_ctx in range(5, 12):
        one, _ = sequences("similarity", ("1111111", "2222222"), n_ctx=n_ctx)
        other, _ = sequences("similarity", ("2222222", "1111111"), n_ctx=n_ctx)
        assert one == other[::-1]


def test_cut_examples_are_counted():
    examples = [Example((text,), (), None, 1) for text in ("123", "123456", "1234567", "12345678")]
    candidates, n_cut = encode_all(examples, "classification", Digits(), n_ctx=8)
    assert [len(example[0]) for example in candidates] == [5, 8, 8, 8]
    assert n_cut == 2


def test_no_room_for_a_text():
    with pytest.raises(UserError, match=r"model\.n_ctx=4 is too short"):
        sequences("entailment", ("1", "2"), n_ctx=4)
    with pytest.raises(UserError, match=r"model\.n_ctx=5 is too short.* at least 6"):
        sequences("entailment", ("1", "2"), n_ctx=5, truncation="halves")
