"""Makes original.json: ids of the texts in texts.py by the slow pipeline of test_gpt1_bpe.py.

    PYTHONPATH=.:tests:tests/golden python tests/golden/make_original.py DATA

where DATA holds gpt1_bpe/. With other versions of ftfy and spaCy the ids may be others.
"""

import json
import sys
from pathlib import Path

from test_gpt1_bpe import slow_ids
from texts import HARD

from gpt1_jax.tokenization import text_rules
from gpt1_jax.tokenization.loading import from_vocabulary

if __name__ == "__main__":
    tokenizer = from_vocabulary(Path(sys.argv[1]) / "gpt1_bpe", "original")
    made = text_rules.versions() | {"texts": [slow_ids(text, tokenizer) for text in HARD]}
    Path(__file__).with_name("original.json").write_text(json.dumps(made, indent=1) + "\n")
