"""The weights that a reproduction starts from: those given, or those pre-trained in its workdir."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path, PurePath

from gpt1_jax.errors import UserError
from gpt1_jax.experiments.config import Request, Scale
from gpt1_jax.experiments.ledger import Ledger
from gpt1_jax.experiments.requirements import tokens_given, weights_given
from gpt1_jax.experiments.runs import Run, config_string
from gpt1_jax.inference import trained_model
from gpt1_jax.messages import tell
from gpt1_jax.model.config import ModelConfig
from gpt1_jax.recipe import experiment
from gpt1_jax.recipe.experiment import Experiment
from gpt1_jax.run_files import read_config
from gpt1_jax.text import corpus, documentation
from gpt1_jax.text.config import PrepareConfig
from gpt1_jax.text.shards import read_manifest

# Small pre-training without tokens of one's own reads the documentation that is installed.
SMALL_VOCAB_SIZE = 4096
# Of the curve by tokens, as parts of the whole.
LENGTHS = (0.01, 0.03, 0.1, 0.3, 1.0)


def pretraining_config(scale: Scale, body: str) -> str:
    return config_string(scale, "pretrain", "lstm" if body == "lstm" else "")


class Weights:
    """The weights of each body: those given, or trained when they are first asked for. What failed
    once is not tried again."""

    def __init__(self, request: Request, settings: dict[str, str], ledger: Ledger):
        self._request, self._settings, self._ledger = request, settings, ledger
        self._found: dict[str, str | UserError] = {}
        self._models: dict[str, ModelConfig] = {}

    @property
    def workdir(self) -> Path:
        """That of the reproduction."""
        return self._ledger.workdir

    def model(self, body: str) -> ModelConfig:
        """The sizes of a body, also before there are weights."""
        if body not in self._models:
            given = weights_given(self._request, body)
            if given is not None:
                self._models[body] = trained_model.load(given).model_config
            else:
                tokens = tokens_given(self._request, body, self.workdir)
                n_ids = SMALL_VOCAB_SIZE
                if tokens is not None:
                    n_ids = read_manifest(tokens)["tokenizer"]["vocab_size"]
                self._models[body] = replace(self._described(body).model, vocab_size=n_ids)
        return self._models[body]

    def _described(self, body: str) -> Experiment:
        spec = pretraining_config(self._request.scale, body)
        return experiment.load(spec, self._settings)[0]

    def work(self, bodies: Iterable[str]) -> tuple[int, float]:
        """Tokens of the pre-trainings of these bodies, in the curve by tokens those of the shorter
        ones too, and the FLOPs of their products. Of a config that counts epochs they are not known
        yet."""
        tokens, flops = 0, 0.0
        for body in bodies:
            described, model = self._described(body), self.model(body)
            read = (described.steps or 0) * described.batch_size * model.n_ctx
            if self._request.figure == "tokens":
                read = sum(each for _, each in self.lengths())
            tokens += read
            flops += read * model.flops_per_token(model.n_ctx)
        return tokens, flops

    def of(self, body: str) -> str:
        """A source of weights, a workdir for the most part. Raises UserError where its training
        failed."""
        if body not in self._found:
            try:
                self._found[body] = weights_given(self._request, body) or self._trained(body)
            except UserError as error:
                self._found[body] = error
        found = self._found[body]
        if isinstance(found, UserError):
            raise found
        return found

    def as_begun(self, workdir: Path, initial: str) -> str:
        """Weights of this reproduction by the name that a run of it knows them by: that which they
        had when it began, before all was moved here."""
        here, source = self.workdir.expanduser().absolute(), Path(initial).absolute()
        if not (source.is_relative_to(here) and (workdir / "config.json").exists()):
            return initial
        before, within = read_config(workdir).get("initial") or "", source.relative_to(here).parts
        return before if PurePath(before).parts[-len(within) :] == within else initial

    def add_given(self, body: str) -> None:
        """Notes that a run, or a probe, began with the weights of a body, where they were given."""
        given = weights_given(self._request, body)
        if given is not None:
            here, folder = self._ledger.workdir.absolute(), Path(given).absolute()
            within = folder.is_relative_to(here)
            self._ledger.add_pretraining(body, str(folder.relative_to(here)) if within else given)

    def run(self, body: str, steps: int | None = None) -> Run:
        """The pre-training of a body that is not given, or one of so many updates."""
        workdir, folder = self._ledger.workdir, _folder(body)
        tokens = tokens_given(self._request, body, workdir) or _documentation(workdir)
        settings = {"data.path": str(tokens), **self._settings}
        if steps is not None:
            settings["steps"], folder = str(steps), folder.with_name(f"{body}_{steps}")
        spec = pretraining_config(self._request.scale, body)
        return Run(spec, settings, workdir / folder)

    def lengths(self) -> list[tuple[int, int]]:
        """Updates and tokens of the Transformer's pre-training and of shorter ones, each with a
        schedule of its own."""
        described = self._described("transformer")
        if described.steps is None:
            raise UserError("--figure=tokens needs a number of updates; give --config.steps")
        found = sorted({max(1, round(part * described.steps)) for part in LENGTHS})
        return [(n, n * described.batch_size * described.model.n_ctx) for n in found]

    def shorter(self) -> list[Run]:
        """All but the whole one."""
        return [self.run("transformer", steps) for steps, _ in self.lengths()[:-1]]

    def after(self, steps: int) -> str:
        """The weights of a shorter pre-training of the Transformer, of so many updates."""
        run = self.run("transformer", steps)
        run.result()
        return str(run.workdir)

    def _trained(self, body: str) -> str:
        run = self.run(body)
        tell(f"pre-training the {body}")
        run.result(quiet=False)
        self._ledger.add_pretraining(body, str(_folder(body)))
        return str(run.workdir)


def _folder(body: str) -> Path:
    return Path("pretrained", body)


def _documentation(workdir: Path) -> Path:
    """Tokens of the documentation installed here, made if they are not there."""
    found = documentation.documents(workers=2)
    tell(found.describe())
    output = workdir / "tokens"
    config = PrepareConfig(output=str(output), vocab_size=SMALL_VOCAB_SIZE, workers=2)
    corpus.prepare(config, found.documents)
    return output
