"""Fine-tuning on one task (Radford et al. 2018, sections 3.2 and 4.1): 3 epochs, rate 6.25e-5.

    gpt1 train --config=configs/finetune.py:rte --workdir=RUN --initial=PRETRAINED \
        --config.task.path=FOLDER

The first argument names a task; key=value sets a config key, some of which have short names:
    finetune.py:rte,lm_coef=0
    finetune.py:path=FOLDER,shape=classification,metric=accuracy
The folder holds train.jsonl and dev.jsonl. The sizes of the model come from --initial.
"""

from ml_collections import ConfigDict

from gpt1_jax.data.tasks import TASKS
from gpt1_jax.training.experiment import with_arguments

SHORT = {
    "lm_coef": "objective.lm_coef",
    "name": "task.name",
    "path": "task.path",
    "shape": "task.shape",
    "metric": "task.metric",
    "labels": "task.labels",
}


def get_config(arguments: str = "") -> ConfigDict:
    config = ConfigDict()
    config.epochs = 3
    config.batch_size = 32
    config.objective = {"lm_coef": 0.5}
    config.optimizer = {"learning_rate": 6.25e-5, "schedule": "warmup_linear"}
    words = dict.fromkeys(TASKS, "task.name")
    return with_arguments(config, arguments, words, SHORT)
