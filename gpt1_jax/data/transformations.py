"""Examples to token sequences: the transformations of Radford et al. 2018 (section 3.3, figure 1).

S, D and E stand for the start, delimiter and classify tokens; the head reads the state at E.

    classification    S text E
    entailment        S premise D hypothesis E
    similarity        S a D b E    and    S b D a E
    multiple_choice   S context question D choice E    for each choice

What is too long loses the tail of its texts; S, D and E always stay. The paper is silent on how,
and the released code cuts both texts of ROCStories to the same length. Here, with n_ctx = 8:

    classification    S 1 2 3 4 5 6 7 E       ->  S 1 2 3 4 5 6 E
    pairs             S 1 2 3 4 5 6 D 7 E     ->  S 1 2 3 4 D 7 E     the longer text is cut until
                      S 1 2 3 4 D 5 6 7 8 E   ->  S 1 2 D 5 6 E       it fits or both are equal
    multiple_choice   S 1 2 3 4 5 D 6 E       ->  S 1 2 5 D 6 E       only the context (1 2 3 4) is
                      S 1 2 3 4 5 D 7 8 E     ->  S 1 2 5 D 7 8 E     cut, alike for all choices

The pair whose texts end up equal may leave one place empty: this way the cut does not depend on
which text comes first, and a similarity stays symmetric. Where a question and its longest choice
are too long even without the context, they are cut as a pair.
"""

from collections.abc import Iterable

from gpt1_jax.errors import UserError
from gpt1_jax.text.tokenizer import Tokenizer


def encode(example, shape: str, tokenizer: Tokenizer, n_ctx: int) -> tuple[list[list[int]], bool]:
    """The candidates of an Example of tasks.py, each up to `n_ctx` ids, and whether they were cut.

    One candidate for classification and entailment, two for similarity, one for each choice else.
    Raises UserError if `n_ctx` has no room for one token of each text.
    """
    if n_ctx < 5:
        raise UserError(f"model.n_ctx={n_ctx} is too short for a task; expected at least 5")
    texts = [tokenizer.encode(text) for text in example.texts]
    if shape == "classification":
        candidates = [[texts[0][: n_ctx - 2]]]
        cut = len(texts[0]) > n_ctx - 2
    elif shape == "multiple_choice":
        # The question goes on where the context ends, which takes a space between them.
        if all(example.texts):
            texts[1] = tokenizer.encode(" " + example.texts[1])
        choices = [tokenizer.encode(choice) for choice in example.choices]
        candidates, cut = _fitting_choices(*texts, choices, n_ctx - 3)
    else:
        first, second = _fitting_pair(*texts, n_ctx - 3)
        candidates = (
            [[first, second], [second, first]] if shape == "similarity" else [[first, second]]
        )
        cut = len(first) + len(second) < sum(map(len, texts))
    return [_sequence(texts, tokenizer) for texts in candidates], cut


def encode_all(
    examples: Iterable, shape: str, tokenizer: Tokenizer, n_ctx: int
) -> tuple[list[list[list[int]]], int]:
    """The candidates of each example, and the number of examples that were cut (see `encode`)."""
    encoded = [encode(example, shape, tokenizer, n_ctx) for example in examples]
    return [candidates for candidates, _ in encoded], sum(cut for _, cut in encoded)


def _sequence(texts: list[list[int]], tokenizer: Tokenizer) -> list[int]:
    ids = [tokenizer.start]
    for place, text in enumerate(texts):
        ids += [tokenizer.delimiter, *text] if place else text
    return [*ids, tokenizer.classify]


def _fitting_pair(first: list[int], second: list[int], room: int) -> tuple[list[int], list[int]]:
    """Each keeps half of the room, or what the other leaves of it."""
    half = room // 2
    return first[: max(half, room - len(second))], second[: max(half, room - len(first))]


def _fitting_choices(
    context: list[int], question: list[int], choices: list[list[int]], room: int
) -> tuple[list[list[list[int]]], bool]:
    longest = max(choices, key=len)
    question_kept, longest_kept = _fitting_pair(question, longest, room)
    choices_kept = [choice[: len(longest_kept)] for choice in choices]
    context_kept = context[: room - len(question_kept) - len(longest_kept)]
    before = len(context) + len(question) + len(longest)
    after = len(context_kept) + len(question_kept) + len(longest_kept)
    return [[context_kept + question_kept, choice] for choice in choices_kept], after < before
