"""The four input shapes, and what is cut when they do not fit."""

import itertools
import random
from dataclasses import dataclass

import pytest

from gpt1_jax.data.tasks import FIELDS, Example
from gpt1_jax.data.transformations import encode, encode_all
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


def sequences(shape, texts, choices=(), n_ctx=64):
    return encode(Example(texts, choices, None, 1), shape, Digits(), n_ctx)


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


def test_any_lengths_fit_and_keep_every_text():
    draw = random.Random(0)
    for _ in range(500):
        n_ctx = draw.randint(5, 20)
        first, second, third, fourth = (
            "".join(draw.choices("123456789", k=draw.randint(1, 25))) for _ in range(4)
        )
        for shape, choices in itertools.product(FIELDS, [(third, fourth)]):
            texts = (first, second)[: len(FIELDS[shape])]
            candidates, cut = sequences(shape, texts, choices, n_ctx)
            whole, _ = sequences(shape, texts, choices, 1000)
            assert cut == (candidates != whole)
            for ids in candidates:
                assert len(ids) <= n_ctx
                assert (ids[0], ids[-1], ids.count(E)) == (S, E, 1)
                pieces = [
                    list(piece)
                    for is_d, piece in itertools.groupby(ids[1:-1], D.__eq__)
                    if not is_d
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
