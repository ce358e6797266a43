"""Errors that the user can fix."""


class UserError(Exception):
    """A mistake of the user or a fault of the machine, not a bug: printed in a line or two without traceback, exit code 2.

    The message says what is wrong, where, and what to do.
    """


class MissingError(UserError):
    """Something does not exist; callers that can do without it catch this."""


class DamagedError(MissingError):
    """Something exists, but cannot be read."""
