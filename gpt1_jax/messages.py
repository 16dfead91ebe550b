"""What is said to a person: lines on standard error, which leave standard output to the result."""

import sys


def say(line: str) -> None:
    """One line, at once; above the progress bars, where there are any."""
    if "tqdm" in sys.modules:
        sys.modules["tqdm"].tqdm.write(line, file=sys.stderr)
        sys.stderr.flush()
    else:
        print(line, file=sys.stderr, flush=True)


def visible(text: str) -> str:
    """`text` on one line: line breaks, control characters and bytes that are no text, which names
    of files and tasks may have, as escapes."""
    return "".join(
        one if one.isprintable() else one.encode("unicode_escape").decode() for one in text
    )
