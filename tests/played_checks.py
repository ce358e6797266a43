"""Checks that behave in every way there is. A module of its own: the doctor's processes import it, and nothing else of the tests."""

import os
import time

from regcls.checks import bad, good
from regcls.errors import UserError


def well(place):
    return good(f"in {place.root}")


def ill(place):
    return bad("broken", "mend it")


def mistaken(place):
    raise UserError("the file x is missing. Restore it. Or make it.")


def buggy(place):
    raise KeyError("who\nknows")


def unimportable(place):
    import no_such_package  # noqa: F401


def crashing(place):
    os.kill(os.getpid(), 11)  # as a broken driver does


def hanging(place):
    time.sleep(100)
