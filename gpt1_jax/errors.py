"""The two ways in which a command ends early, apart from a bug."""


class UserError(Exception):
    """The user's mistake: one line that names the place, what was expected and how to mend it.

    The command line prints the line and ends with exit status 2.
    """


class Interrupted(Exception):
    """Stopped before the end with everything saved; the same command continues.

    The command line prints the line and ends with exit status 75.
    """
