"""A kind of data whose training processes tell of every epoch."""

from functools import partial

from regcls.training import ensemble_worker


class ToldOften:
    """Another kind, but for that."""

    def __init__(self, kind):
        self.kind = kind

    def __getattr__(self, name):
        return getattr(self.kind, name)

    def reopened(self):
        return partial(reopen, self.kind.reopened())


def reopen(how):
    ensemble_worker.TELL_EVERY = 0.0
    return how()
