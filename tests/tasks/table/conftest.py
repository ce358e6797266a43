import numpy as np
import pandas as pd
import pytest
import yaml

from conftest import SHRUNK, overlay, shipped_tree
from regcls.params import load_params
from regcls.pipeline.prepare import prepare
from regcls.tasks import task_named
from regcls.tasks.task import open_data


def messy_table(rows=120, seed=0):
    """A table of houses with numbers, names, yes and no, dates, missing values and columns that say nothing."""
    rng = np.random.default_rng(seed)
    area, town, pool = (
        rng.lognormal(4.5, 0.4, rows),
        rng.choice(["Ulm", "Köln", "Bad; Ems"], rows, p=[0.6, 0.3, 0.1]),
        rng.random(rows) < 0.2,
    )
    built = pd.Timestamp("1950-01-01") + pd.to_timedelta(rng.integers(0, 25000, rows), unit="D")
    price = 2000 * area + 30000 * pool + 20000 * (town == "Köln") + rng.normal(0, 3000, rows)
    table = pd.DataFrame(
        {
            "id": np.arange(rows),
            "Area": area.round(2),
            "town": town,
            "pool": np.where(pool, "yes", "no"),
            "built": built.strftime("%Y-%m-%d"),
            "rooms": rng.integers(1, 8, rows),
            "owner": rng.integers(0, 30, rows),
            "country": "DE",
            "Price": price.round(),
        }
    )
    table.loc[rng.choice(rows, 15, replace=False), "rooms"] = None
    table.loc[rng.choice(rows, 5, replace=False), "town"] = None
    return table


@pytest.fixture
def make_table(tmp_path):
    """Write a raw table and its section of params.yaml; return the project's root."""

    def make(table, *, data=None, **section):
        root = tmp_path / "project"
        raw = root / "data" / "houses" / "raw"
        raw.mkdir(parents=True, exist_ok=True)
        table.to_csv(raw / "houses.csv", index=False, sep=";", decimal=",", encoding="utf-8-sig", lineterminator="\r\n")
        own = {"source": "raw", "file": "houses.csv", "target": "price", "unit": "$"} | (data or {})
        tree = overlay(shipped_tree(), SHRUNK) | {"houses": {"like": "diabetes", "title": "Houses", "data": own, **section}}
        (root / "params.yaml").write_text(yaml.safe_dump(tree | {"datasets": ["houses"]}, sort_keys=False))
        return root

    return make


@pytest.fixture
def prepared(make_table, capsys):
    """Prepare a table; return the opened data, and the lines printed."""

    def prepared(table, **options):
        root = make_table(table, **options)
        params = load_params(root / "params.yaml")
        prepare(params, root, "houses")
        assert task_named("table").open(root / "data" / "houses" / "prepared", section=params.datasets["houses"], verify=True)
        return open_data(params, root, "houses", verify=False), capsys.readouterr().out.splitlines()

    return prepared
