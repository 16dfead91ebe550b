"""Makes format_1.tar.xz: a run of two updates, with the tokens it was trained on, as the first
version of the files of a run has them (docs/formats.md), and what `evaluate` said of it.

    python tests/golden/make_format_1.py

It was made once, by the code before checkpoints had a number of their format. To make it anew would
take its meaning away.
"""

import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

# Some files of a run hold the path of their folder.
HERE = Path("/tmp/gpt1_format_1")
SIZES = {"n_layer": 1, "n_embd": 2, "n_head": 1, "n_ctx": 4, "dropout": 0.0}


def gpt1(*words: str) -> str:
    command = [sys.executable, "-m", "gpt1_jax", *words]
    return subprocess.run(command, cwd=HERE, check=True, capture_output=True, text=True).stdout


def main() -> None:
    shutil.rmtree(HERE, ignore_errors=True)
    (HERE / "texts").mkdir(parents=True)
    for number in range(4):
        text = f"the cat sat on the mat, and the dog ran to hill {number} and saw the cat"
        (HERE / "texts" / f"{number}.txt").write_text(text)
    asked = ["--output=tokens", "--input", "texts/*.txt", "--vocab_size=300", "--workers=1"]
    gpt1("prepare", *asked, "--valid_fraction=0.25")
    keys = {f"model.{name}": value for name, value in SIZES.items()}
    keys |= {"data.path": "tokens", "steps": 4, "stop_after": 2, "batch_size": 2, "mesh.data": 1}
    keys |= {"log.every": 1, "log.tensorboard": False, "checkpoint.keep": 1}
    flags = [f"--config.{key}={value}" for key, value in keys.items()]
    gpt1("train", "--config=configs/pretrain.py", "--workdir=run", "--quiet", *flags)
    (HERE / "evaluated.json").write_text(gpt1("evaluate", "--workdir=run"))
    with tarfile.open(Path(__file__).with_name("format_1.tar.xz"), "w:xz") as archive:
        for name in ("tokens", "run", "evaluated.json"):
            archive.add(HERE / name, name)
    shutil.rmtree(HERE)


if __name__ == "__main__":
    main()
