"""Whether files are those that OpenAI released, whole and unchanged.

The ids are git's, of the blobs in openai/finetune-transformer-lm at commit a69b5c4, so that
`git hash-object FILE` gives the same. Nobody needs the files themselves to check against them.
"""

import hashlib
import os
from pathlib import Path

BLOBS = {
    "params_0.npy": "84d83ac1f1cc878f56f33b167482c184491875d2",
    "params_1.npy": "0f19f4d4cda3d8f908e3faffd2cb2a8b9a4039da",
    "params_2.npy": "25bc19c72fdff69505a828ec6d73b32063532148",
    "params_3.npy": "5b2e6958d42a930966c9d602a012eb846ca67c83",
    "params_4.npy": "87ad158987e307e6aa64952610f466d750b73bc7",
    "params_5.npy": "74f3853316bba327229605dbedfe921996f11448",
    "params_6.npy": "5ef44e40bc076d0c9686d1273d54cbc16c3f0980",
    "params_7.npy": "d8d5c8d3bee9b20a677605ac1fe6c7af4df57c94",
    "params_8.npy": "f980f4b393716f396ae5ae6401708dcf4f270dc9",
    "params_9.npy": "d389eb2074dd74754444b8062aba78b49f6a9053",
    "encoder_bpe_40000.json": "9dc3f0af5a80956e57dc8d9401e16dfadcade7c2",
    "vocab_40000.bpe": "0023a687b3d4d0b795a5e97cc914bdabb5a253df",
}
N_PARAMETERS = 116_534_784


def blob_id(path: Path) -> str:
    """The id that git gives the content of a file: SHA-1 over a header and the bytes."""
    digest = hashlib.sha1(b"blob %d\0" % os.stat(path).st_size, usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def changed_files(folder: Path) -> list[str]:
    """The names among BLOBS whose file is not the released one, or is not there."""
    return [
        name
        for name, released in BLOBS.items()
        if not (folder / name).is_file() or blob_id(folder / name) != released
    ]


def verdict(folder: Path) -> tuple[bool, str]:
    """Whether the folder holds OpenAI's own files, and a line that says so or names the others."""
    changed = changed_files(folder)
    if not changed:
        return True, f"{folder}: the files that OpenAI released, whole and unchanged"
    if len(changed) == len(BLOBS):
        return False, f"{folder}: of the size of OpenAI's model, but none of the released files"
    return False, (
        f"{folder}: not what OpenAI released, for want of {', '.join(changed)}; where a file was "
        "cut or changed on the way, copy it again"
    )
