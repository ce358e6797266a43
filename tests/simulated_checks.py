"""Checks that behave in every possible way. In their own module: the doctor's processes import nothing else of the tests."""

import os
import time

from regcls.checks import bad, good
from regcls.errors import UserError


def passing(place):
    return good(f"in {place.root}")


def failing(place):
    return bad("broken", "mend it")


def raising_user_error(place):
    raise UserError("the file x is missing. Restore it. Or make it.")


def buggy(place):
    raise KeyError("who\nknows")


def unimportable(place):
    import no_such_package  # noqa: F401


def crashing(place):
    os.kill(os.getpid(), 11)  # as a broken driver does


def hanging(place):
    time.sleep(100)
