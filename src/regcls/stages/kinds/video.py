"""Progress of videos."""

from pathlib import Path

from regcls.datasets.video import VideoSet
from regcls.params import Params
from regcls.params.video import VideoOptions
from regcls.runs import RunSpec
from regcls.runs.video import VideoSpec, single_spec
from regcls.stages.kinds.ensembles import train_one
from regcls.stages.kinds.kind import Session
from regcls.training import ensemble_study, video_study
from regcls.training.outcome import Outcome
from regcls.training.video_networks import VideoNetworks, result_code


class VideoKind:
    """See `kind.Kind`."""

    spec_type: type[RunSpec] = VideoSpec
    error = ("test RMSE", "test_rmse")

    def open(self, params: Params, dataset: str, folder: Path, *, verify: bool) -> VideoSet:
        return VideoSet(folder, verify=verify, made_from=params.breakfast.data)

    def open_as_it_is(self, folder: Path, *, verify: bool) -> VideoSet:
        return VideoSet(folder, verify=verify)

    def digest(self, spec: VideoSpec, data: VideoSet) -> str:
        return data.digest

    def misfit(self, spec: VideoSpec, data: VideoSet) -> str:
        return "" if spec.split in data.splits else f"have the splits {', '.join(data.splits)}, not the run's {spec.split}"

    def code(self) -> str:
        return result_code()

    def fingerprint(self, spec: VideoSpec, data: VideoSet) -> str:
        return ensemble_study.fingerprints(VideoNetworks(data, spec.dataset), [spec])[spec]

    def single_spec(self, params: Params, dataset: str, options: VideoOptions) -> VideoSpec:
        return single_spec(params.breakfast, dataset, options)

    def train_grids(self, data: VideoSet, session: Session) -> Outcome:
        networks, params = VideoNetworks(data, session.dataset), session.params
        tags = session.tags(self.code())
        return video_study.train_grids(params.breakfast, networks, session.tracker, params.compute, tags, lineage=session.origin)

    def train_one(self, spec: VideoSpec, data: VideoSet, session: Session) -> Outcome:
        return train_one(spec, VideoNetworks(data, session.dataset), session)
