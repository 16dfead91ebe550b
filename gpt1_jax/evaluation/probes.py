"""Zero-shot heuristics: a language model answers with no training on the task (Radford et al. 2018,
section 5).

Shapes: N sequences, L tokens.
"""

from collections.abc import Callable, Sequence

import jax
import numpy as np

from gpt1_jax.errors import UserError
from gpt1_jax.evaluation.evaluate import sequence_losses
from gpt1_jax.model.objective import Network


def mean_log_probabilities(
    network: Network,
    params: dict,
    sequences: Sequence[tuple[list[int], list[int]]],
    place: Callable[[np.ndarray], jax.Array],
    batch_size: int = 64,
) -> np.ndarray:
    """For each (context, continuation) of ids, the mean log-probability in nats [N] of the
    continuation's tokens given what stands before them.

    Where the context is empty nothing predicts the first token, and the mean is over the others. A
    context that is too long loses its beginning; UserError where a continuation alone does not fit
    or has no token that is predicted.

        context [7, 8], continuation [9, 5]:   inputs 7 8 9   targets 8 9 5   scored - 9 5
    """
    n_ctx = network.body.config.n_ctx
    means = []
    for first in range(0, len(sequences), batch_size):
        inputs_NL = np.zeros((batch_size, n_ctx), np.int32)
        targets_NL, scored_NL = np.zeros_like(inputs_NL), np.zeros(inputs_NL.shape)
        chosen = sequences[first : first + batch_size]
        for row, (context, continuation) in enumerate(chosen):
            if not 1 <= len(context[:1]) + len(continuation) - 1 <= n_ctx:
                raise UserError(
                    f"a choice of {len(continuation)} tokens cannot be scored in {n_ctx} places"
                )
            ids = [*context, *continuation][-(n_ctx + 1) :]
            length = len(ids) - 1
            inputs_NL[row, :length], targets_NL[row, :length] = ids[:-1], ids[1:]
            scored_NL[row, max(0, length - len(continuation)) : length] = 1.0
        losses_NL = sequence_losses(network, params, place(inputs_NL), place(targets_NL))
        totals_N = (np.asarray(losses_NL, np.float64) * scored_NL).sum(axis=1)
        means.append(-totals_N[: len(chosen)] / scored_NL[: len(chosen)].sum(axis=1))
    return np.concatenate(means)
