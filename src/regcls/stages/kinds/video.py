"""Progress of videos."""

from regcls.datasets.video import VideoSet
from regcls.params import Params
from regcls.params.video import Video, VideoOptions
from regcls.runs import RunSpec
from regcls.runs.video import VideoSpec, single_spec
from regcls.stages.kinds.ensembles import EnsembleKind
from regcls.stages.kinds.kind import Session
from regcls.training import video_study
from regcls.training.outcome import Outcome
from regcls.training.video_networks import VideoNetworks, result_code


class VideoKind(EnsembleKind):
    """See `kind.Kind`."""

    spec_type: type[RunSpec] = VideoSpec
    error = ("test RMSE", "test_rmse")
    data_type = VideoSet

    def section(self, params: Params) -> Video:
        return params.breakfast

    def networks(self, data: VideoSet, dataset: str) -> VideoNetworks:
        return VideoNetworks(data, dataset)

    def digest(self, spec: VideoSpec, data: VideoSet) -> str:
        return data.digest

    def misfit(self, spec: VideoSpec, data: VideoSet) -> str:
        return "" if spec.split in data.splits else f"have the splits {', '.join(data.splits)}, not the run's {spec.split}"

    def code(self) -> str:
        return result_code()

    def single_spec(self, params: Params, dataset: str, options: VideoOptions) -> VideoSpec:
        return single_spec(params.breakfast, dataset, options)

    def train_grids(self, data: VideoSet, session: Session) -> Outcome:
        networks, params = VideoNetworks(data, session.dataset), session.params
        tags = session.tags(self.code())
        return video_study.train_grids(params.breakfast, networks, session.tracker, params.compute, tags, lineage=session.origin)
