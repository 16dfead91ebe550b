"""Fine-tuning on one task (Radford et al. 2018, sections 3.2 and 4.1): 3 epochs, rate 6.25e-5.

    gpt1 train --config=configs/finetune.py:rte --workdir=RUN --initial=PRETRAINED \
        --config.task.path=FOLDER

The first argument names a task; key=value sets a config key, some of which have short names:
    finetune.py:rte,lm_coef=0
    finetune.py:path=FOLDER,shape=classification,metric=accuracy
    finetune.py:small,rte        as `reproduce --scale=small` does it, from pretrain.py:small
    finetune.py:small_data,rte   for some hundred labels and a small model (docs/fine_tuning.md)
    finetune.py:path=FILE.csv,shape=classification,metric=accuracy,columns=text:review,label:stars
The folder holds train and dev, as .jsonl, .csv or another table (docs/tasks.md); a single file is
divided. The sizes of the model come from --initial.

    finetune.py:story_cloze,preset=released

is the one experiment that OpenAI released, ROCStories by train.py of finetune-transformer-lm, for
whoever has its data and the weights; it was not run here. FOLDER holds the two files of 2016,
cloze_test_val__spring2016.csv and cloze_test_test__spring2016.csv. Of the 1,871 validation stories,
1,497 train and 374 choose the checkpoint (train_test_split of scikit-learn with seed 3535999445,
task.split_seed); the 1,871 of the test file are scored by it. Labels 1 and 2 become 0 and 1, and
story and ending are cut to n_ctx / 2 - 2 = 254 tokens each (task.truncation=halves, the default of
this task). That is 46 updates an epoch, 138 in all. The seed of the run moves the new rows, the
head, the order and the dropout, not the division:

    for seed in 0 1 2 3 4 5 6 7 8 9; do
      gpt1 train --config=configs/finetune.py:story_cloze,preset=released --initial=openai:WEIGHTS \
          --config.task.path=FOLDER --config.seed=$seed --workdir=RUNS/$seed
      gpt1 evaluate --workdir=RUNS/$seed --split=test
    done

OpenAI reports a median accuracy of 85.8 over ten such runs, and the paper 86.5 of a single one.
docs/released_model.md says what the preset changes.
"""

from ml_collections import ConfigDict

from gpt1_jax.data.tasks import TASKS
from gpt1_jax.errors import UserError
from gpt1_jax.recipe.experiment import with_arguments

SHORT = {
    "lm_coef": "objective.lm_coef",
    "name": "task.name",
    "path": "task.path",
    "shape": "task.shape",
    "metric": "task.metric",
    "labels": "task.labels",
    "columns": "task.columns",
    "preset": "model.preset",
}


def get_config(arguments: str = "") -> ConfigDict:
    config = ConfigDict()
    config.epochs = 3
    config.batch_size = 32
    config.objective = {"lm_coef": 0.5}
    config.optimizer = {"learning_rate": 6.25e-5, "schedule": "warmup_linear"}
    parts = arguments.split(",")
    recipes = [part for part in parts if part in RECIPES]
    if len(recipes) > 1:
        raise UserError(f"config argument {arguments!r}; choose one of {', '.join(RECIPES)}")
    for name in recipes:
        RECIPES[name](config)
    rest = ",".join(part for part in parts if part not in RECIPES)
    words = dict.fromkeys(TASKS, "task.name") | dict.fromkeys(RECIPES)
    return with_arguments(config, rest, words, SHORT)


def small(config: ConfigDict) -> None:
    config.batch_size = 16
    config.optimizer.update({"learning_rate": 1e-3, "warmup": 0.1})
    config.task = {"train_examples": 8000}
    config.model = {"dtype": "bfloat16"}
    config.data = {"buckets": (16, 32, 48, 64, 96)}
    # Only at the end: a best epoch chosen on dev would flatter the table.
    config.eval = {"every": 100_000}
    config.checkpoint = {"every": 100_000, "keep": 1}
    config.log = {"tensorboard": False}


def small_data(config: ConfigDict) -> None:
    # 80 labels make a hundred updates.
    config.epochs = 20
    config.batch_size = 16
    # The softmax over the vocabulary is most of the cost of a small body, and the paper finds that
    # smaller sets do not gain by this loss (section 5).
    config.objective.lm_coef = 0.0
    config.optimizer.update({"learning_rate": 1e-3, "warmup": 0.1})


RECIPES = {"small": small, "small_data": small_data}
