"""The ways in which a command ends early, apart from a bug."""


class UserError(Exception):
    """The user's mistake: one line that names the place, what was expected and how to mend it.

    The command line prints the line and ends with exit status 2.
    """


class PartlyFailed(UserError):
    """Some of what was asked for failed, and the rest was done: `result` is what that gave.

    The command line prints the result all the same, then the line, and ends with exit status 2.
    """

    def __init__(self, message: str, result: dict):
        super().__init__(message)
        self.result = result


class Interrupted(Exception):
    """Stopped before the end with everything saved; the same command continues.

    The command line prints the line and ends with exit status 75.
    """
