"""What went wrong, said to the person who can mend it."""


class UserError(Exception):
    """A mistake of the user or of the machine (not a bug): printed in a line or two, exit code 2, no traceback.

    The message says what is wrong, where, and what to do.
    """


class MissingError(UserError):
    """What was asked for is not there: for who can do without it."""
