"""Makes hf_basic.json: ids by the OpenAIGPTTokenizer of transformers with the vocabulary of GPT-1.

    python tests/golden/make_hf_basic.py DATA

where transformers 5 is installed and DATA holds gpt1_bpe/ and books/train/*.txt.xz. The file has
the ids of the texts in texts.py, and of the first PIECE characters of each of NOVELS novels a
SHA-256 over their ids, as JSON.
"""

import hashlib
import json
import lzma
import sys
from pathlib import Path

from texts import HARD

PIECE, NOVELS = 20_000, 20


def main(data: Path) -> None:
    import transformers

    merges = (data / "gpt1_bpe" / "vocab_40000.bpe").read_text("utf-8").split("\n")[1:-1]
    tokenizer = transformers.OpenAIGPTTokenizer(
        vocab=json.loads((data / "gpt1_bpe" / "encoder_bpe_40000.json").read_text("utf-8")),
        merges=[tuple(merge.split()) for merge in merges],
    )
    novels = {}
    for path in sorted((data / "books" / "train").glob("*.txt.xz"))[:NOVELS]:
        with lzma.open(path, "rt", encoding="utf-8", newline="") as stream:
            ids = tokenizer(stream.read(PIECE))["input_ids"]
        novels[path.name] = hashlib.sha256(json.dumps(ids).encode()).hexdigest()
    made = {
        "transformers": transformers.__version__,
        "texts": [tokenizer(text)["input_ids"] for text in HARD],
        "novels": novels,
    }
    Path(__file__).with_name("hf_basic.json").write_text(json.dumps(made, indent=1) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
