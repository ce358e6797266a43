"""What a page says about the data and commits of its runs, and its links to them."""

import re

import pandas as pd
import pytest

from regcls.reports.picking import origins
from reports.made_up import MadeUpLinks
from tasks.functions.made_up_functions import Store, small, with_grids

MD5 = "0123456789abcdef0123456789abcdef.dir"


@pytest.fixture(scope="module")
def store() -> Store:
    params = small()
    return Store(with_grids(params, figure5=params.datasets["functions"].grids["figure5"]))


def with_origin(runs: pd.DataFrame, **tags: object) -> pd.DataFrame:
    defaults = {"data_md5": MD5, "data_digest": "d1", "git_commit": "c" * 40, "git_dirty": "false", "rerun_of": None}
    return runs.assign(**{**defaults, **tags})


def page(store: Store, runs: pd.DataFrame) -> str:
    return store.report(runs=runs).files["index.html"]


def test_data_versions_and_commits_are_counted_most_used_first() -> None:
    runs = with_origin(
        pd.DataFrame({"run_id": list("abcd")}), git_commit=["x", "y", "y", "y"], git_dirty=["false", "true", "true", "false"]
    )
    runs.loc[0, ["data_md5", "data_digest"]] = ["unknown", "d2"]
    assert origins(runs) == {
        "data": [{"tag": "data_md5", "value": MD5, "runs": 3}, {"tag": "data_digest", "value": "d2", "runs": 1}],
        "code": [{"commit": "y", "runs": 3, "dirty": 2}, {"commit": "x", "runs": 1, "dirty": 0}],
    }


def test_a_page_names_the_commit_and_links_the_data_version(store: Store) -> None:
    html = page(store, with_origin(store.runs))
    assert f"Code – {len(store.runs)} runs: commit <code>{'c' * 12}</code>." in re.sub(r"\s+", " ", html)
    assert f'<a href="{MadeUpLinks().runs_url("data_md5", MD5)}" title="regcls show --data 0123456789ab">' in html
    assert f'title="regcls show {store.runs["run_id"][0][:12]}"' in html


def test_many_versions_unknown_to_dvc_are_only_counted(store: Store) -> None:
    html = page(store, with_origin(store.runs, data_md5="unknown", data_digest=[f"d{k % 9}" for k in range(len(store.runs))]))
    assert "9 versions of data that DVC does not know: <code>regcls show --data functions</code>" in html


def test_a_deliberate_rerun_is_not_a_duplicate(store: Store) -> None:
    again = store.runs.iloc[[0]].assign(run_id="f" * 32, started=2e9)
    for repeats, warned in ((None, True), (store.runs["run_id"][0], False)):
        both = pd.concat([with_origin(store.runs), with_origin(again, rerun_of=repeats)], ignore_index=True)
        assert ("equal to earlier ones" in page(store, both)) == warned
