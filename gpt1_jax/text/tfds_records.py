"""Records of TensorFlow Datasets (TFDS), for text sets and tasks alike: one place that opens a
builder, hides the GPU from TensorFlow, and turns what goes wrong into one line, at once."""

import contextlib
import importlib.util
import os
import sys
from collections.abc import Iterator
from typing import Any

from gpt1_jax.errors import UserError

# Seconds in which a server is found or not. TFDS itself tries for minutes.
PATIENCE = 5


class TfdsSplit:
    """A split of a set, downloaded when it is not there yet.

    Args:
      name: as TFDS has it, with config and version if need be: glue/rte, wiki40b/en, lm1b:1.1.0.
      data_dir: where TFDS keeps its data, by default its own choice.
      instead: what else the user can do, for messages.

    Raises:
      UserError: TFDS is not installed, does not know the set, cannot download it, or has no such
        split.
    """

    def __init__(self, name: str, split: str, data_dir: str | None, instead: str):
        self._where, self._instead = f"{name}, split {split}", instead
        builder = available_builder(name, data_dir, instead)
        with _in_one_line(self._where, instead):
            import tensorflow_datasets as tfds

            # What TFDS says about it is progress.
            with contextlib.redirect_stdout(sys.stderr):
                builder.download_and_prepare()
            # One file at a time and no shuffling: the order is that of the files.
            reading = tfds.ReadConfig(interleave_cycle_length=1)
            self._rows = builder.as_dataset(split=split, shuffle_files=False, read_config=reading)
            written = builder.info.splits
            self.n_written = written[split].num_examples if split in written else None

    def records(self) -> Iterator[dict[str, Any]]:
        """One after the other, in the order of the files; `n_written` is how many TFDS wrote when
        it made the set, None if it did not say."""
        import tensorflow_datasets as tfds

        with _in_one_line(self._where, self._instead):
            yield from tfds.as_numpy(self._rows)


def available_builder(name: str, data_dir: str | None, instead: str) -> Any:
    """The builder of a set that is prepared, or whose server answers; nothing is downloaded. Raises
    UserError as TfdsSplit does."""
    missing = [
        package
        for package in ("tensorflow", "tensorflow_datasets")
        if importlib.util.find_spec(package) is None
    ]
    if missing:
        raise UserError(
            f"tfds {name} needs tensorflow and tensorflow-datasets ({missing[0]} is missing); "
            f"install them, or {instead}"
        )
    # What it finds of GPUs is nothing that anybody asked for.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with _in_one_line(name, instead):
        import tensorflow as tf
        import tensorflow_datasets as tfds

        tf.config.set_visible_devices([], "GPU")
        tfds.disable_progress_bar()
        builder = tfds.builder(name, data_dir=data_dir)
        if not builder.is_prepared():
            require_reachable(builder.url_infos or ())
        return builder


@contextlib.contextmanager
def _in_one_line(where: str, instead: str) -> Iterator[None]:
    try:
        yield
    except UserError:
        raise
    except (Exception, SystemExit) as error:  # whatever its many downloaders and readers raise
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"TFDS cannot provide {where} ({reason}); {instead}") from error


def require_reachable(urls) -> None:
    """Asks the server of the first of the addresses for a sign of life, whatever it answers. Raises
    ConnectionError if there is none."""
    import requests

    url = next(iter(urls), None)
    if url is None or not url.startswith("http"):
        return
    try:
        requests.head(url, timeout=PATIENCE)
    except requests.RequestException as error:
        raise ConnectionError(f"no connection to {url.split('/')[2]}") from error
