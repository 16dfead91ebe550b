"""The weights that a reproduction starts from: those given, or those pre-trained in its workdir."""

from pathlib import Path

from gpt1_jax.experiments.config import Request, Scale
from gpt1_jax.experiments.ledger import Ledger
from gpt1_jax.experiments.requirements import weights_given
from gpt1_jax.experiments.runs import config_string, result_of
from gpt1_jax.messages import say
from gpt1_jax.text import corpus, documentation
from gpt1_jax.text.config import PrepareConfig

# Small pre-training without tokens of one's own reads the documentation that is installed.
SMALL_VOCAB_SIZE = 4096


def pretraining_config(scale: Scale, body: str) -> str:
    return config_string(scale, "pretrain", "lstm" if body == "lstm" else "")


def weights(request: Request, body: str, settings: dict[str, str], ledger: Ledger) -> str:
    """The folder or name of a body's weights; trained with these config keys if none are given."""
    given = weights_given(request, body)
    if given is not None:
        here, folder = ledger.workdir.absolute(), Path(given).absolute()
        within = folder.is_relative_to(here)
        ledger.add_pretraining(body, str(folder.relative_to(here)) if within else given)
        return given
    tokens = _documentation(ledger.workdir) if request.data is None else Path(request.data)
    say(f"pre-training the {body}")
    folder = Path("pretrained", body)
    settings = {"data.path": str(tokens.expanduser()), **settings}
    spec = pretraining_config(request.scale, body)
    result_of(spec, settings, ledger.workdir / folder, quiet=False)
    ledger.add_pretraining(body, str(folder))
    return str(ledger.workdir / folder)


def _documentation(workdir: Path) -> Path:
    """Tokens of the documentation installed here, made if they are not there."""
    found = documentation.documents(workers=2)
    say(found.describe())
    output = workdir / "tokens"
    config = PrepareConfig(output=str(output), vocab_size=SMALL_VOCAB_SIZE, workers=2)
    corpus.prepare(config, found.documents)
    return output
