"""The embedded corpus: the English prose of the documentation installed on this machine.

Sources are the Python language reference (``pydoc_data``), the docstrings of the standard library
and those of a fixed list of packages, most of them this project's dependencies. Files are read as
text and parsed with ``ast``; nothing is imported. What is code, a table of parameters, a doctest, a
heading or a formula is left out, paragraph by paragraph, and a paragraph that was met before is
dropped.

    A docstring                            becomes
    Return the mean of :func:`values`.     Return the mean of `values`.
                                           It is the sum over the count.
    Parameters
    ----------
    values : array_like

    Notes
    -----
    It is the sum over
    the count.
"""

import ast
import functools
import hashlib
import importlib.metadata
import importlib.util
import inspect
import os
import platform
import re
import sysconfig
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from gpt1_jax.errors import UserError
from gpt1_jax.text import workers as processes

_CHUNK = 32  # files that a worker reads at a time

STANDARD_LIBRARY = "python"
REFERENCE = "pydoc_data/topics.py"  # the language reference, which some distributions leave out

# (name to import, name to install), in the order in which they are read.
PACKAGES = (
    (STANDARD_LIBRARY, STANDARD_LIBRARY),
    ("numpy", "numpy"),
    ("scipy", "scipy"),
    ("sklearn", "scikit-learn"),
    ("matplotlib", "matplotlib"),
    ("jax", "jax"),
    ("flax", "flax"),
    ("optax", "optax"),
    ("orbax", "orbax-checkpoint"),
    ("ml_collections", "ml_collections"),
    ("tensorflow", "tensorflow"),
    ("keras", "keras"),
    ("tensorflow_datasets", "tensorflow-datasets"),
    ("tensorboardX", "tensorboardX"),
    ("sentencepiece", "sentencepiece"),
    ("tokenizers", "tokenizers"),
    ("safetensors", "safetensors"),
    ("huggingface_hub", "huggingface_hub"),
    ("ftfy", "ftfy"),
    ("spacy", "spacy"),
    ("thinc", "thinc"),
    ("etils", "etils"),
    ("treescope", "treescope"),
    ("fsspec", "fsspec"),
    ("PIL", "pillow"),
    ("pygments", "Pygments"),
    ("pip", "pip"),
    ("setuptools", "setuptools"),
    ("pytest", "pytest"),
    ("_pytest", "pytest"),
)

# Tests describe themselves rather than the library; vendored code would be counted twice.
SKIPPED_FOLDERS = re.compile(
    r"tests?|testing|idlelib|lib2to3|turtledemo|ensurepip|__pycache__|(site|dist)-packages"
    r"|_vendor|_distutils|externals|third_party"
    r"|_api"  # TensorFlow's table of public names
)


@dataclass(frozen=True)
class Document:
    """The prose of one docstring or reference topic: one paragraph a line."""

    text: str
    package: str
    source: str  # path of the file below the folder that holds its package, with forward slashes

    @property
    def name(self) -> str:
        """The file it comes from; documents of one name are never divided between splits."""
        return f"{self.package}/{self.source}"


@dataclass(frozen=True)
class Corpus:
    """Documents in a fixed order, and where they come from."""

    documents: tuple[Document, ...]
    versions: dict[str, str]  # package to version, the packages found
    missing: tuple[str, ...]  # what the list names and this machine lacks

    @functools.cached_property
    def fingerprint(self) -> str:
        """Hexadecimal sha256 over all packages, paths and texts."""
        digest = hashlib.sha256()
        for document in self.documents:
            for field in (document.package, document.source, document.text):
                digest.update(field.encode() + b"\0")
        return digest.hexdigest()

    def describe(self) -> str:
        """What was read, in a line for a person; `summary` has the packages."""
        missing = f"; not installed: {', '.join(self.missing)}" if self.missing else ""
        return (
            f"documentation of {len(self.versions)} packages: {len(self.documents):,} texts, "
            f"{sum(len(d.text) for d in self.documents):,} characters, fingerprint "
            f"{self.fingerprint[:16]}{missing}"
        )

    def summary(self) -> dict:
        """Counts, versions and fingerprint, ready for JSON."""
        return {
            "documents": len(self.documents),
            "characters": sum(len(document.text) for document in self.documents),
            "files": len({document.source for document in self.documents}),
            "packages": self.versions,
            "missing": list(self.missing),
            "fingerprint": self.fingerprint,
        }


def documents(packages: Iterable[str] | None = None, workers: int = 1) -> Corpus:
    """The corpus of this machine, the same for the same installed versions.

    Args:
      packages: names to import, a subset of `PACKAGES`; all of them by default.
      workers: processes that read files; the result does not depend on it.

    Raises:
      UserError: a name is not in the list, or no prose was found at all.
    """
    names = [name for name, _ in PACKAGES]
    wanted = names if packages is None else list(packages)
    if unknown := sorted(set(wanted) - set(names)):
        raise UserError(f"documentation of {unknown[0]}: not among {', '.join(names)}")
    roots = {name: _folder(name) for name in names if name in wanted}
    files = [
        (name, file, file.relative_to(root.parent if name != STANDARD_LIBRARY else root).as_posix())
        for name, root in roots.items()
        if root is not None
        for file in _python_files(root)
    ]
    seen: set[str] = set()
    found = []
    sizes = [file.stat().st_size for _, file, _ in files]
    with processes.Progress("reading the documentation", sum(sizes)) as progress:
        for (name, _, source), texts, size in zip(
            files, _read_all(files, workers), sizes, strict=True
        ):
            for text in texts:
                fresh = [line for line in text.split("\n") if line not in seen]
                seen.update(fresh)
                if fresh:
                    found.append(Document("\n".join(dict.fromkeys(fresh)), name, source))
            progress.add(size)
    if not found:
        raise UserError(f"documentation of {', '.join(wanted)}: no English prose is installed")
    versions = {name: _version(name) for name, root in roots.items() if root is not None}
    missing = tuple(name for name, root in roots.items() if root is None)
    if STANDARD_LIBRARY in wanted and not any(source == REFERENCE for _, _, source in files):
        missing += (REFERENCE,)
    return Corpus(tuple(found), versions, missing)


# Finding the files


def _folder(name: str) -> Path | None:
    """Where the sources of a package lie; None if it is not installed. Imports nothing."""
    if name == STANDARD_LIBRARY:
        return Path(sysconfig.get_path("stdlib"))
    try:
        spec = importlib.util.find_spec(name)
    except ValueError:  # a module that is loaded without a spec
        return None
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(next(iter(spec.submodule_search_locations)))


def _version(name: str) -> str:
    if name == STANDARD_LIBRARY:
        return platform.python_version()
    try:
        return importlib.metadata.version(dict(PACKAGES)[name])
    except importlib.metadata.PackageNotFoundError:  # a build under another name: tensorflow-cpu
        owners = importlib.metadata.packages_distributions().get(name, ())
        return importlib.metadata.version(owners[0]) if owners else "unknown"


def _python_files(root: Path) -> Iterator[Path]:
    """Every module below a folder, in the order of their paths, without tests and vendored code."""
    for folder, subfolders, names in os.walk(root):
        subfolders[:] = sorted(name for name in subfolders if not SKIPPED_FOLDERS.fullmatch(name))
        for name in sorted(names):
            if name.endswith(".py") and not name.startswith("test_") and "_test" not in name:
                yield Path(folder, name)


def _read_all(files: list[tuple[str, Path, str]], workers: int) -> Iterator[list[str]]:
    paths = [file for _, file, _ in files]
    if workers <= 1 or len(paths) < 100:
        yield from map(read, paths)
        return
    chunks = [paths[first : first + _CHUNK] for first in range(0, len(paths), _CHUNK)]
    with processes.mapping(workers) as mapped:
        for texts in mapped(_read_chunk, chunks):
            yield from texts


def _read_chunk(files: list[Path]) -> list[list[str]]:
    return [read(file) for file in files]


# From a file to docstrings


def read(file: Path) -> list[str]:
    """The prose of each docstring of a Python file, in their order; none if it cannot be read."""
    try:
        source = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return []
    if '"""' not in source and "'''" not in source and file.parent.name != "pydoc_data":
        return []  # not worth parsing: a docstring of several lines needs them
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # escapes in other people's strings
            tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError):
        return []
    texts = ("\n".join(paragraphs(docstring)) for docstring in _docstrings(tree.body))
    return [text for text in texts if text]


def _docstrings(body: list[ast.stmt]) -> Iterator[str]:
    """Docstrings, texts handed to add_newdoc (NumPy, SciPy) and the topics of pydoc.

    Only statements are visited: walking through every expression takes as long as parsing.
    """
    for first, node in enumerate(body):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            if first == 0 and isinstance(node.value.value, str):
                yield inspect.cleandoc(node.value.value)
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            if getattr(node.value.func, "id", "") == "add_newdoc":
                yield from _strings(node.value)
        elif isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "topics":
            if isinstance(node.value, ast.Dict):
                yield from _strings(node.value)
        else:
            yield from _docstrings(getattr(node, "body", []))
            yield from _docstrings(getattr(node, "orelse", []))


def _strings(node: ast.expr) -> Iterator[str]:
    """The longer string constants inside an expression."""
    for part in ast.walk(node):
        if isinstance(part, ast.Constant) and isinstance(part.value, str) and len(part.value) > 40:
            yield inspect.cleandoc(part.value)


# From a docstring to paragraphs

_UNDERLINE = re.compile(r"([=\-~^*#+\"`'.:_])\1{2,}\s*$")
_TABLES = re.compile(
    r"((other |call |keyword )?(parameters?|arguments|args)|kwargs|(return|yield|receive)s?"
    r"|return values?|raises|warn(ing)?s|attributes|methods|(properties|fields)( and methods)?"
    r"|see also|references?|citations|(in|out)puts?( shape)?|usage|examples?|copyright|licen[sc]e"
    r"|authors?):?",
    re.IGNORECASE,
)
_LABEL = re.compile(r"\s*(?:\*\*)?([A-Z][A-Za-z ]{2,30}?)(?:\*\*)?\s*:\s*(?:\*\*)?$")
_DIRECTIVE = re.compile(r"\s*\.\. ")
_SPOKEN_DIRECTIVE = re.compile(r"\s*\.\. (?:note|warning|tip|hint|important|caution)::\s*(.*)")
_ITEM = re.compile(r"\s*(?:[*+\-•]|\d{1,2}[.)]|#\.)\s+")
_FIELD = re.compile(r"\s*(?::[a-z]+[^:`]*:|@\w+)(?:\s|$)")


def paragraphs(docstring: str) -> list[str]:
    """The paragraphs of English prose in a docstring, each on one line, markup removed."""
    blocks = _blocks(_spoken_lines(docstring.expandtabs().splitlines()))
    cleaned = (clean(" ".join(block)) for block in blocks)
    return [text for text in cleaned if is_prose(text)]


def _spoken_lines(lines: list[str]) -> Iterator[str]:
    """The lines outside tables, code and directives; a blank line where something was left out."""
    skip_deeper_than: int | None = None  # inside something indented that is not prose
    in_table = in_fence = in_doctest = False
    for number, line in enumerate(lines):
        following = lines[number + 1] if number + 1 < len(lines) else ""
        stripped, indent = line.strip(), len(line) - len(line.lstrip())
        if stripped.startswith(("```", "~~~")):
            in_fence = not in_fence
            yield ""
        elif in_fence:
            continue
        elif not stripped:
            in_doctest = False
            yield ""
        elif in_doctest or stripped.startswith((">>>", "In [", "$ ")):
            in_doctest = True
        elif skip_deeper_than is not None and indent > skip_deeper_than:
            continue
        elif _UNDERLINE.match(stripped):
            yield ""
        elif _UNDERLINE.match(following.strip()) and len(stripped) <= 80 and not in_fence:
            in_table, skip_deeper_than = bool(_TABLES.fullmatch(stripped)), None
        elif in_table:
            continue
        elif (label := _LABEL.match(line)) and _TABLES.fullmatch(label[1]):
            skip_deeper_than = indent
            yield ""
        elif spoken := _SPOKEN_DIRECTIVE.match(line):
            skip_deeper_than = None
            yield ""
            yield spoken[1]
        elif _DIRECTIVE.match(line) or _FIELD.match(line):
            skip_deeper_than = indent
            yield ""
        else:
            skip_deeper_than = indent if stripped.endswith("::") else None
            yield line


def _blocks(lines: Iterable[str]) -> Iterator[list[str]]:
    """Lines grouped into paragraphs and list items."""
    block: list[str] = []
    for line in lines:
        item = _ITEM.match(line)
        if block and (item or not line.strip()):
            yield block
            block = []
        if line.strip():
            block.append(line[item.end() :].strip() if item else line.strip())
    if block:
        yield block


_MARKUP = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"\\([*_`|\\])", r"\1"),
        (r":math:`[^`]*`", "`x`"),
        (r":[a-zA-Z:+.-]+:`~?([^`<]+?)\s*(?:<[^`]*>)?`", r"`\1`"),  # role
        (r"``([^`]+)``", r"`\1`"),
        (r"`([^`<]+?)\s*<[^`>]*>`_{1,2}", r"\1"),  # link
        (r"`([^`]+)`_{1,2}", r"\1"),
        (r"!?\[([^\]]+)\]\([^)]*\)", r"\1"),  # link in Markdown
        (r"\[(`[^`]+`)\]", r"\1"),
        (r"\s*\[[\w#*]*\]_", ""),  # footnote
        (r"<https?://[^>]*>", ""),
        (r"\*\*([^*\s](?:[^*]*[^*\s])?)\*\*", r"\1"),
        (r"(?<![\w*])\*([^*\s](?:[^*]*[^*\s])?)\*(?![\w*])", r"\1"),
        (r"(?<![\w_])_([A-Za-z][\w ]*[a-z])_(?![\w_])", r"\1"),
        (r"(?<=\w)__?(?=[\s,.;)])", ""),
        (r"::\s*$", ":"),
        (r"\s+([,.;?!])(?=\s|$)", r"\1"),
        (r"\s+", " "),
    )
)


def clean(paragraph: str) -> str:
    """A paragraph without markup; code spans of every kind become `single quoted`."""
    for pattern, replacement in _MARKUP:
        paragraph = pattern.sub(replacement, paragraph)
    return paragraph.strip()


# Words that hardly any English sentence of documentation does without.
_FUNCTION_WORD = re.compile(
    r"an?|the|of|to|in|is|are|be|its?|this|that|for|on|with|as|and|or|not|if|by|from|which|when|can"
    r"|will|at|has|have|been|into|was|were|than|then",
    re.IGNORECASE,
)
_WORD = re.compile(r"[A-Za-z][a-z']*(?:-[A-Za-z]?[a-z']+)*[,.;:?!)]*$")


def is_prose(text: str) -> bool:
    """Whether a paragraph is one or several English sentences: a rule of thumb on its words."""
    words = text.split()
    if len(words) < 5 or len(text) < 30:
        return False
    if (
        not (text[0].isupper() or text[0] in "`\"'(")
        or text[-1] not in ".?!:)"
        or "://" in text
        or "`" * 2 in text
    ):
        return False
    plain = [word for word in words if _WORD.match(word.lstrip("(\"'"))]
    spoken = sum(bool(_FUNCTION_WORD.fullmatch(word.strip(",.;:()"))) for word in plain)
    symbols = sum(not (c.isalnum() or c in " .,;:'`\"()-?!") for c in text)
    return (
        len(plain) >= 0.75 * len(words)
        and spoken >= max(2, 0.12 * len(words))
        and symbols <= 0.03 * len(text)
    )
