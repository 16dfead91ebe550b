"""Speed, and what a person sees of a run while it is trained."""

import math
import sys
import time

import jax
from tqdm import tqdm

from gpt1_jax.messages import say
from gpt1_jax.training.start import Run


class Progress:
    """Speed, and what a person sees of it: a bar on a terminal, else a line every ten seconds."""

    def __init__(self, run: Run, quiet: bool):
        self._model = run.experiment.model
        self._batch_size = run.experiment.batch_size
        self._terminal = sys.stderr.isatty()
        self._quiet = quiet or jax.process_index() != 0
        self._bar = tqdm(
            total=run.last_step,
            initial=run.first_step,
            unit="step",
            disable=self._quiet or not self._terminal,
        )
        self._said = time.monotonic()
        self._since: float | None = None
        self.seconds = 0.0
        self.tokens = 0
        self._flops = 0

    def count(self, shape: tuple[int, ...]) -> None:
        """A batch was trained on, of which this process has [B, C, L]. Time is counted from the
        end of the first, which compiles."""
        if self._since is not None:
            n_tokens = self._batch_size * math.prod(shape[1:])
            self.tokens += n_tokens
            self._flops += n_tokens * self._model.flops_per_token(shape[-1])
        self._bar.update()

    def resume_clock(self) -> None:
        self._since = time.monotonic()

    def pause_clock(self) -> None:
        """Leaves out what is no training: evaluating and saving."""
        if self._since is not None:
            self.seconds += time.monotonic() - self._since
            self._since = None

    def rates(self) -> dict[str, float]:
        """tokens_per_s and tflops_per_s of the training steps so far."""
        seconds = self.seconds + (time.monotonic() - self._since if self._since else 0.0)
        if not self.tokens or seconds <= 0:
            return {"tokens_per_s": 0.0, "tflops_per_s": 0.0}
        return {
            "tokens_per_s": self.tokens / seconds,
            "tflops_per_s": self._flops / seconds / 1e12,
        }

    def training(self, step: int, values: dict[str, float]) -> None:
        """Shows the newest loss."""
        rates = self.rates()
        speed = f"{rates['tokens_per_s']:,.0f} tok/s {rates['tflops_per_s']:.3g} TFLOP/s"
        text = f"loss {values['loss']:.4f} {speed}"
        self._bar.set_postfix_str(text, refresh=False)
        if not self._terminal and time.monotonic() - self._said > 10:
            self.say(f"step {step}/{self._bar.total}: {text}")

    @property
    def visible(self) -> bool:
        """Whether anybody sees it."""
        return not self._quiet

    def say(self, line: str) -> None:
        """One line on standard error, above the bar if there is one."""
        if not self._quiet:
            self._said = time.monotonic()
            say(line)

    def close(self) -> None:
        self._bar.close()
