"""Speed, and what a person sees of a run while it is trained."""

import math
import time

import jax
from tqdm import tqdm

from gpt1_jax.data.batches import Batch
from gpt1_jax.messages import bar, is_hushed, say
from gpt1_jax.runtime.peaks import known_peak
from gpt1_jax.training.start import Run

EVERY = 10.0  # seconds between lines where there is no terminal


class Progress:
    """Speed, and what a person sees of it: a bar on a terminal, else a line every EVERY seconds."""

    def __init__(self, run: Run, quiet: bool):
        self._model = run.experiment.model
        self._batch_size = run.experiment.batch_size
        self._quiet = quiet or is_hushed() or jax.process_index() != 0
        self._bar = bar(self._quiet, total=run.last_step, initial=run.first_step, unit="step")
        device, dtype = run.mesh.devices.flat[0], run.experiment.model.dtype
        peak = known_peak(device.device_kind, dtype)
        self._peak = peak and peak.tflops * run.mesh.size
        self._first: tuple[int, float] | None = None
        self._said = time.monotonic()
        self._since: float | None = None
        self.seconds = 0.0
        self.tokens = 0
        self._flops = 0

    def count(self, batch: Batch) -> None:
        """A batch was trained on, of which this process has a part. Time is counted from the end of
        the first, which compiles."""
        if self._since is not None:
            shape = batch["tokens"].shape
            n_tokens = self._batch_size * math.prod(shape[1:])
            if len(batch.get("places", ())):
                n_tokens = len(batch["places"])
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
        """Shows the newest loss, and the speed once there is one."""
        text = ", ".join([f"loss {values['loss']:.4f}", *self._speed()])
        self._bar.set_postfix_str(text, refresh=False)
        now = time.monotonic()
        if self._first is None:
            self._first = step, now
        if self._bar.disable and now - self._said > EVERY:
            first, began = self._first
            seconds = (now - began) / max(step - first, 1) * (self._bar.total - step)
            left = f", {tqdm.format_interval(seconds)} left" if step > first else ""
            self.say(f"step {step}/{self._bar.total}: {text}{left}")

    def _speed(self) -> list[str]:
        """Tokens, arithmetic and, where the device's peak is known, the share of it."""
        rates = self.rates()
        if not rates["tokens_per_s"]:
            return []
        tflops = rates["tflops_per_s"]
        of_peak = [f"{tflops / self._peak:.0%} of the peak"] if self._peak else []
        return [f"{rates['tokens_per_s']:,.0f} tokens/s", f"{tflops:.3g} TFLOP/s", *of_peak]

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
