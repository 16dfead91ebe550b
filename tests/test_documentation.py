"""The embedded corpus, on packages made for the test and on one that is installed."""

import sys
import sysconfig
from itertools import product
from pathlib import Path

import pytest

from gpt1_jax.errors import UserError
from gpt1_jax.text import documentation
from gpt1_jax.text.documentation import clean, documents, is_prose, paragraphs, read

NUMPY_STYLE = """
Return the mean of :func:`~own.values`, which is the sum over the count.

Parameters
----------
values : array_like
    The values to take the mean of, in any order that is at hand.

The paragraph stands in the table and it is a part of it.

.. versionadded:: 1.2
   The rows of this directive say nothing to a reader of the text.

Notes
-----
The mean is *not* robust: a single
value [1]_ can move it ``anywhere``.

>>> the_mean_of([1, 2])
it is the output of a doctest and it is long.

.. note:: A note is a text that is spoken to the reader.

A paragraph that ends in a block of code is kept::

    The block of code is left out, whatever it is in it.

References
----------
.. [1] A book that is cited in the text of the documentation.
"""

GOOGLE_STYLE = """Computes the mean of the values that it is given.

```python
This is a line of code that looks like a sentence of English to the filter.
```

Args:
  values: The values of which the mean is to be computed by the function.

    It is the second paragraph of the table and it is indented.

Returns:
  The mean of the values that were given to the function.

It is a paragraph that stands after the tables.

* An item of a list is a text of its own.
* The second item of the list is
  on two lines.
"""


def test_tables_code_and_directives_are_left_out():
    assert paragraphs(NUMPY_STYLE) == [
        "Return the mean of `own.values`, which is the sum over the count.",
        "The mean is not robust: a single value can move it `anywhere`.",
        "A note is a text that is spoken to the reader.",
        "A paragraph that ends in a block of code is kept:",
    ]


def test_indented_sections_fences_and_lists():
    assert paragraphs(GOOGLE_STYLE) == [
        "Computes the mean of the values that it is given.",
        "It is a paragraph that stands after the tables.",
        "An item of a list is a text of its own.",
        "The second item of the list is on two lines.",
    ]


@pytest.mark.parametrize(
    ("markup", "text"),
    [
        ("the :class:`own.Thing` of ``x[0]``", "the `own.Thing` of `x[0]`"),
        ("see `the manual <https://a.b/c>`_ or [this](https://d.e)", "see the manual or this"),
        ("**very** *much* 2 * 3 * 4", "very much 2 * 3 * 4"),
        ("a  fact\\* [12]_ , known::", "a fact* , known:".replace(" ,", ",")),
        ("returns [`Thing`] of a_name", "returns `Thing` of a_name"),
        ("the area :math:`\\pi r^2` of it", "the area `x` of it"),
    ],
)
def test_markup_is_removed(markup, text):
    assert clean(markup) == text


@pytest.mark.parametrize(
    "text",
    [
        "It is the text of a heading without an end",
        "Il est possible de lire cette phrase.",
        "See https://example.com for the documentation of the function.",
        "x = f(a, b) and y = g(b, c) or z = h(c, d).",
        "Too short to be.",
        "The A1 B2 C3 of the D4 is in the E5 or the F6.",
    ],
)
def test_what_is_not_prose(text):
    assert not is_prose(text)


def make_package(folder: Path, name: str, modules: dict[str, str]) -> None:
    (folder / name).mkdir()
    (folder / name / "__init__.py").write_text("raise RuntimeError('it was imported')\n")
    for module, text in modules.items():
        (folder / name / module).parent.mkdir(exist_ok=True)
        (folder / name / module).write_text(text, encoding="utf-8")


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A folder in which packages own_a and own_b would be found; own_c is missing."""
    rows = (("own_a", "own-a"), ("own_b", "own-b"), ("own_c", "own-c"))
    monkeypatch.setattr(documentation, "PACKAGES", rows)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def docstring(text: str) -> str:
    return f'"""{text}"""\n'


def test_reads_without_importing_and_drops_what_was_met_before(own):
    first = "The first sentence of the package is here."
    second = "The second sentence of the package is here."
    make_package(own, "own_b", {"one.py": docstring(f"{first}\n\n{second}")})
    make_package(
        own,
        "own_a",
        {
            "z.py": f"def f():\n    {docstring(second)}",
            "a.py": docstring(first),
            "test_a.py": docstring("The text of a test is not in the corpus."),
            "tests/b.py": docstring("The text of a test is not in the corpus."),
            "broken.py": docstring("The text of a broken file is not read.") + "def (",
        },
    )
    corpus = documents()
    assert [(d.text, d.package, d.source) for d in corpus.documents] == [
        (first, "own_a", "own_a/a.py"),
        (second, "own_a", "own_a/z.py"),
    ]
    assert corpus.missing == ("own_c",)
    assert corpus.versions == {"own_a": "unknown", "own_b": "unknown"}
    assert "own_a" not in sys.modules
    assert [document.text for document in corpus.documents] == [first, second]
    assert "own_c" in corpus.describe()
    assert corpus.fingerprint[:16] in corpus.describe()


def test_the_fingerprint_is_of_the_texts(own):
    make_package(own, "own_a", {"a.py": docstring("The first sentence of the package is here.")})
    before = documents().fingerprint
    assert documents().fingerprint == before
    (own / "own_a" / "a.py").write_text(docstring("The other sentence of the package is here."))
    assert documents().fingerprint != before


def test_processes_change_nothing(own):
    names = ["".join(letters) for letters in product("abcde", "fghij", "klmno")]
    modules = {
        f"{name}.py": docstring(f"The module is called {name} by those who use it.")
        for name in names
    }
    make_package(own, "own_a", modules)
    alone, together = documents(workers=1), documents(workers=2)
    assert len(alone.documents) == 125
    assert together == alone


def test_the_language_reference_and_texts_added_from_outside(tmp_path):
    text = "The statement is a part of the language and it is described."
    (tmp_path / "pydoc_data").mkdir()
    topics = tmp_path / "pydoc_data" / "topics.py"
    topics.write_text(f"topics = {{'assert': 'Title\\n*****\\n\\n{text}\\n'}}\n")
    assert read(topics) == [text]
    added = tmp_path / "added.py"
    added.write_text(f'"""."""\nadd_newdoc("own", "f", ("x",\n"""\n    {text}\n    """))\n')
    assert read(added) == [text]


def test_works_without_the_language_reference(own, monkeypatch):
    (own / "lib").mkdir()
    (own / "lib" / "a.py").write_text(docstring("The first sentence of the library is here."))
    monkeypatch.setattr(documentation, "PACKAGES", (("python", "python"),))
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(own / "lib"))
    corpus = documents()
    assert [d.source for d in corpus.documents] == ["a.py"]
    assert corpus.missing == ("pydoc_data/topics.py",)


def test_mistakes_are_named(own):
    with pytest.raises(UserError, match="nunpy: not among own_a"):
        documents(["nunpy"])
    with pytest.raises(UserError, match="no English prose"):
        documents(["own_c"])


def test_an_installed_package():
    corpus = documents(["optax"])
    assert len(corpus.documents) > 100
    assert corpus.versions["optax"] != "unknown"
    assert all(is_prose(line) for d in corpus.documents for line in d.text.split("\n"))
    lines = [line for d in corpus.documents for line in d.text.split("\n")]
    assert len(lines) == len(set(lines))
