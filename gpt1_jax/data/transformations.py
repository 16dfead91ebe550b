"""Examples to token sequences: the transformations of Radford et al. 2018 (section 3.3, figure 1).

S, D and E stand for the start, delimiter and classify tokens; the head reads the state at E. For an
Example of tasks.py and a tokenizer whose ids are the digits of a text, 100 more after a space,
and S 10, D 11 and E 12:

    >>> digits = Digits()
    >>> encode(Example(("123",), (), 0, 1), "classification", digits, n_ctx=8)
    ([[10, 1, 2, 3, 12]], False)
    >>> encode(Example(("12", "3"), (), 0, 1), "entailment", digits, n_ctx=8)
    ([[10, 1, 2, 11, 3, 12]], False)
    >>> encode(Example(("12", "3"), (), 0, 1), "similarity", digits, n_ctx=8)
    ([[10, 1, 2, 11, 3, 12], [10, 3, 11, 1, 2, 12]], False)
    >>> encode(Example(("12", "3"), ("4", "56"), 0, 1), "multiple_choice", digits, n_ctx=12)
    ([[10, 1, 2, 103, 11, 4, 12], [10, 1, 2, 103, 11, 5, 6, 12]], False)

so S text E; S premise D hypothesis E; both orders of a similarity; and S context question D choice
E for each choice, with no delimiter between context and question but the space that goes there. The
second value says whether anything was cut.

What is too long loses the tail of its texts; S, D and E always stay, and so does a part of each
text but a context. The paper is silent on how; TRUNCATIONS names the rules that each shape has, the
default first. `longest_first` cuts the longer text of a pair until it fits or both are equal, and
the end of a classification:

    >>> encode(Example(("1234567",), (), 0, 1), "classification", digits, n_ctx=8)
    ([[10, 1, 2, 3, 4, 5, 6, 12]], True)
    >>> encode(Example(("123456", "7"), (), 0, 1), "entailment", digits, n_ctx=8)
    ([[10, 1, 2, 3, 4, 11, 7, 12]], True)
    >>> encode(Example(("1234", "56789"), (), 0, 1), "entailment", digits, n_ctx=8)
    ([[10, 1, 2, 11, 5, 6, 12]], True)

The pair whose texts end up equal may leave one place empty: this way the cut does not depend on
which text comes first, and a similarity stays symmetric. `context` cuts only what stands before the
question and the choice (RACE: the article), alike for all choices, or only the premise:

    >>> encode(Example(("1234", "5"), ("6", "78"), 0, 1), "multiple_choice", digits, n_ctx=8)
    ([[10, 1, 2, 105, 11, 6, 12], [10, 1, 2, 105, 11, 7, 8, 12]], True)
    >>> encode(Example(("1234", "567"), (), 0, 1), "entailment", digits, 8, "context")
    ([[10, 1, 2, 11, 5, 6, 7, 12]], True)

Where a question and its longest choice are too long even without the context, they are cut as a
pair; a premise keeps one token at least. `halves` is the rule of the released code for Story Cloze:
each side of the delimiter keeps its first n_ctx / 2 - 2 tokens, whether the other needs its room or
not (a question stays, and the context before it is cut):

    >>> encode(Example(("123", ""), ("4", "5678"), 0, 1), "multiple_choice", digits, 8, "halves")
    ([[10, 1, 2, 11, 4, 12], [10, 1, 2, 11, 5, 6, 12]], True)
"""

from collections.abc import Iterable

from gpt1_jax.data.tasks import Example, Shape, Truncation
from gpt1_jax.errors import UserError
from gpt1_jax.tokenization.tokenizer import Tokenizer

TRUNCATIONS: dict[Shape, tuple[Truncation, ...]] = {
    "classification": ("longest_first",),
    "entailment": ("longest_first", "context", "halves"),
    "similarity": ("longest_first", "halves"),
    "multiple_choice": ("context", "halves"),
}
"""The rules by which too long examples of each shape are cut; the first is the default."""


def encode(
    example: Example,
    shape: Shape,
    tokenizer: Tokenizer,
    n_ctx: int,
    truncation: Truncation | None = None,
) -> tuple[list[list[int]], bool]:
    """The candidates of an example, each up to `n_ctx` ids, and whether they were
    cut by the rule `truncation` (None: the default of the shape).

    One candidate for classification and entailment, two for similarity, one for each choice else.
    Raises UserError if `n_ctx` has no room for one token of each text.
    """
    truncation = truncation or TRUNCATIONS[shape][0]
    shortest = 6 if truncation == "halves" else 5
    if n_ctx < shortest:
        raise UserError(
            f"model.n_ctx={n_ctx} is too short for a task; expected at least {shortest}"
        )
    texts = [tokenizer.encode(text) for text in example.texts]
    if shape == "classification":
        candidates = [[texts[0][: n_ctx - 2]]]
        cut = len(texts[0]) > n_ctx - 2
    elif shape == "multiple_choice":
        context, question = texts
        # The question goes on where the context ends, which takes a space between them.
        if all(example.texts):
            question = tokenizer.encode(" " + example.texts[1])
        choices = [tokenizer.encode(choice) for choice in example.choices]
        fitting = _halved_choices if truncation == "halves" else _fitting_choices
        candidates = fitting(context, question, choices, n_ctx)
        cut = sum(map(len, _flat(candidates))) < sum(
            len(context) + len(question) + len(choice) for choice in choices
        )
    else:
        first, second = PAIR_RULES[truncation](texts[0], texts[1], n_ctx)
        candidates = (
            [[first, second], [second, first]] if shape == "similarity" else [[first, second]]
        )
        cut = len(first) + len(second) < sum(map(len, texts))
    return [_sequence(texts, tokenizer) for texts in candidates], cut


def encode_all(
    examples: Iterable[Example],
    shape: Shape,
    tokenizer: Tokenizer,
    n_ctx: int,
    truncation: Truncation | None = None,
) -> tuple[list[list[list[int]]], int]:
    """The candidates of each example, and the number of examples that were cut (see `encode`)."""
    encoded = [encode(example, shape, tokenizer, n_ctx, truncation) for example in examples]
    return [candidates for candidates, _ in encoded], sum(cut for _, cut in encoded)


def _flat(candidates: list[list[list[int]]]) -> list[list[int]]:
    return [text for texts in candidates for text in texts]


def _sequence(texts: list[list[int]], tokenizer: Tokenizer) -> list[int]:
    ids = [tokenizer.start]
    for place, text in enumerate(texts):
        ids += [tokenizer.delimiter, *text] if place else text
    return [*ids, tokenizer.classify]


def _longest_first(first: list[int], second: list[int], n_ctx: int) -> tuple[list[int], list[int]]:
    return _fitting_pair(first, second, n_ctx - 3)


def _fitting_pair(first: list[int], second: list[int], room: int) -> tuple[list[int], list[int]]:
    """Each keeps half of the room, or what the other leaves of it."""
    half = room // 2
    return first[: max(half, room - len(second))], second[: max(half, room - len(first))]


def _cut_first(first: list[int], second: list[int], n_ctx: int) -> tuple[list[int], list[int]]:
    room = n_ctx - 3
    second = second[: room - min(1, len(first))]
    return first[: room - len(second)], second


def _halved(first: list[int], second: list[int], n_ctx: int) -> tuple[list[int], list[int]]:
    half = n_ctx // 2 - 2
    return first[:half], second[:half]


PAIR_RULES = {"longest_first": _longest_first, "context": _cut_first, "halves": _halved}


def _fitting_choices(
    context: list[int], question: list[int], choices: list[list[int]], n_ctx: int
) -> list[list[list[int]]]:
    room = n_ctx - 3
    longest = max(choices, key=len)
    question_kept, longest_kept = _fitting_pair(question, longest, room)
    choices_kept = [choice[: len(longest_kept)] for choice in choices]
    context_kept = context[: room - len(question_kept) - len(longest_kept)]
    return [[context_kept + question_kept, choice] for choice in choices_kept]


def _halved_choices(
    context: list[int], question: list[int], choices: list[list[int]], n_ctx: int
) -> list[list[list[int]]]:
    half = n_ctx // 2 - 2
    question_kept = question[:half]
    before = context[: half - len(question_kept)] + question_kept
    return [[before, choice[:half]] for choice in choices]
