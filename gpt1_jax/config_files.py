"""Where config files are: nothing imports them, they are found by path."""

from pathlib import Path

import gpt1_jax
from gpt1_jax.errors import UserError


def find_config(name: str) -> Path:
    """A config file by path: in the current folder, then in the installation."""
    package = Path(gpt1_jax.__file__).parent
    for folder in (Path(), package, package.parent):
        if (folder / name).is_file():
            return folder / name
    shipped = [path for root in (package, package.parent) for path in root.glob("configs/*.py")]
    names = ", ".join(sorted(f"configs/{path.name}" for path in shipped))
    raise UserError(
        f"--config={name}: no such file here, nor in the installation, which has {names}"
    )
