"""What faces and depth share: runs of one network each."""

from pathlib import Path

from regcls.stages.kinds.kind import Session
from regcls.training.single import Data, Making
from regcls.training.single_study import Study


def study_of(making: Making, data: Data, prepared: Path, samples: int, session: Session, *, adopt: bool) -> Study:
    """What the train stage works on. `samples`: trained on in an epoch."""
    params = session.params
    return Study(
        making=making,
        dataset=session.dataset,
        data=data,
        prepared=prepared,
        samples=samples,
        tracker=session.tracker,
        compute=params.compute,
        tags=session.tags(making.code),
        lineage=session.origin,
        state_epochs=params.tracking.state_epochs,
        adopt=adopt and session.repeats is None,
        repeats=session.repeats,
    )
