"""What is said to a person: lines on standard error, which leave standard output to the result."""

import sys


def say(line: str) -> None:
    """One line, at once."""
    print(line, file=sys.stderr, flush=True)
