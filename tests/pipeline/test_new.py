"""`regcls new`: data sets of a user's own, from their files to a section of params.yaml, and from there to a report."""

import os
import re
import shutil
import unicodedata

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from conftest import ROOT
from regcls.cli import main
from regcls.params import load_params
from regcls.params.adding import extended
from tasks.depth.made_up_pairs import write_pairs

RNG = np.random.default_rng(0)
PRICES = np.exp(RNG.normal(12.5, 0.6, 60)).round(2)
SHIPPED = (ROOT / "params.yaml").read_text()
LIST = re.findall(r"^datasets: \[.*?\]", SHIPPED, flags=re.MULTILINE)[0]


@pytest.fixture
def project(tmp_path, monkeypatch, signals):
    """A project with the params.yaml that ships, in which commands run."""
    root = tmp_path / "project"
    root.mkdir()
    shutil.copy(ROOT / "params.yaml", root)
    monkeypatch.chdir(root)
    return root


@pytest.fixture
def photos(tmp_path):
    """A csv as a user has it, elsewhere: other names of columns, semicolons, decimal commas, two photographs of a house."""
    folder = tmp_path / "mine"
    (folder / "photos").mkdir(parents=True)
    lines = ["file;price;house"]
    for place, price in enumerate(PRICES):
        grey = np.full((40, 50, 3), min(255, price / 4000)) + np.random.default_rng(place).integers(0, 9, (40, 50, 3))
        Image.fromarray(grey.clip(0, 255).astype(np.uint8)).save(folder / f"photos/{place}.png")
        lines.append(f"photos/{place}.png;{price:.2f};h{place // 2}".replace(f"{price:.2f}", f"{price:.2f}".replace(".", ",")))
    (folder / "photos.csv").write_text("\n".join(lines) + "\n")
    return folder / "photos.csv"


@pytest.fixture
def cells(tmp_path):
    """A table with a column of patients."""
    rng = np.random.default_rng(0)
    table = pd.DataFrame(rng.normal(size=(120, 3)), columns=["a", "b", "c"])
    table["dose"] = np.exp(table["a"])
    table["patient"] = [f"p{number}" for number in rng.integers(0, 30, 120)]
    file = tmp_path / "mine" / "cells.csv"
    file.parent.mkdir(exist_ok=True)
    table.to_csv(file, index=False)
    return file


def refused(capsys, *arguments):
    """The one line of error of a refused command, which writes nothing."""
    before = sorted(os.walk("."))
    assert main(["new", *map(str, arguments)]) == 2
    assert sorted(os.walk(".")) == before
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("regcls: error: ")]
    assert len(errors) == 1
    return errors[0].removeprefix("regcls: error: ")


def section_of(root, name):
    return load_params(root / "params.yaml").datasets[name]


def test_images_get_a_section_copies_and_a_readme_and_params_yaml_keeps_the_rest(project, photos, capsys):
    assert main(["new", "houses", "--images", str(photos), "--group", "house", "--unit", "$"]) == 0
    shown = capsys.readouterr().out
    after = (project / "params.yaml").read_text()
    start, end = SHIPPED.split(LIST)
    assert after.startswith(f"{start}{LIST[:-1]}, houses]{end}\n# Price of houses, from photos.csv. ")
    houses = section_of(project, "houses")
    assert (houses.data.target, houses.data.unit, houses.data.columns) == ("price", "$", {"path": "file", "group": "house"})
    assert (houses.data.layout, houses.data.size, houses.data.exif, houses.published, houses.title) == (
        "csv",
        40,
        True,
        None,
        "Price of houses",
    )
    assert (houses.training.targets, houses.training.class_range, houses.shots.by) == ("standardised", "data", "density")
    raw = project / "data/houses/raw"
    assert (raw / "houses.csv").read_bytes() == photos.read_bytes() and len(list((raw / "photos").iterdir())) == 60
    assert (raw / "photos/0.png").stat().st_nlink == 1  # no hard link: an edit of the original would go unnoticed
    readme = (project / "data/houses/README.md").read_text()
    assert readme.startswith("# Price of houses\n") and "- `price`: the target" in readme and "- `house`: group" in readme
    assert "60 images (38 train, 10 val, 12 test), typically 40 pixels on their shorter side" in shown
    assert "splits: drawn from data.split_seed, by house" in shown and "Next: dvc repro" in shown
    assert sum("█" in line for line in shown.splitlines()) >= 10 and "Many" in shown and "Few" in shown


def test_a_table_gets_a_section(project, cells, capsys):
    assert main(["new", "cells", "--table", str(cells), "--target", "Dose", "--group", "patient", "--title", "Dose: of drugs"]) == 0
    data = section_of(project, "cells").data
    assert (data.source, data.file, data.target, data.split, data.group) == ("raw", "cells.csv", "dose", None, "patient")
    assert section_of(project, "cells").title == "Dose: of drugs"
    assert (project / "data/cells/raw/cells.csv").read_bytes() == cells.read_bytes()
    shown = capsys.readouterr().out
    assert "120 rows, 3 features, 0 missing values" in shown and "10 folds" in shown and "Rare, by the relevance" in shown


def test_a_column_of_splits_and_one_called_target_are_found(project, cells, capsys):
    table = pd.read_csv(cells).rename(columns={"dose": "Target"})
    table["subset"] = (["Train"] * 4 + ["DEV", "test"]) * 20
    table.to_csv(cells, index=False)
    assert main(["new", "cells", "--table", str(cells)]) == 0
    data = section_of(project, "cells").data
    assert (data.target, data.split) == ("Target", "subset")
    assert "rows of the first: 80 train, 20 val, 20 test" in capsys.readouterr().out


def test_folds_with_numbers_are_no_splits(project, photos, capsys):
    lines = photos.read_text().splitlines()
    photos.write_text("\n".join([lines[0] + ";fold", *(f"{line};{place % 5}" for place, line in enumerate(lines[1:]))]) + "\n")
    assert "name the target with --target; the columns of numbers are price, fold" in refused(capsys, "houses", "--images", photos)
    assert main(["new", "houses", "--images", str(photos), "--target", "price"]) == 0
    assert section_of(project, "houses").data.columns == {"path": "file", "split": None}


def test_a_dry_run_shows_the_same_and_writes_nothing(project, photos, capsys):
    before = sorted(os.walk(".")), (project / "params.yaml").read_bytes()
    assert main(["new", "houses", "--images", str(photos), "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert "houses:\n  like: imdb_wiki\n" in shown and "61 files (0." in shown and "would be copied to" in shown and "Next" not in shown
    assert (sorted(os.walk(".")), (project / "params.yaml").read_bytes()) == before


def test_files_in_raw_stay_where_they_are_and_a_readme_is_never_overwritten(project, photos, capsys):
    home = project / "data/houses"
    shutil.copytree(photos.parent, home / "raw")
    (home / "README.md").write_text("mine")
    stamp = (home / "raw/photos/0.png").stat().st_mtime_ns
    assert main(["new", "houses", "--images", "data/houses/raw/photos.csv"]) == 0
    assert (home / "README.md").read_text() == "mine" and (home / "raw/photos/0.png").stat().st_mtime_ns == stamp
    assert (home / "raw/houses.csv").read_bytes() == photos.read_bytes()
    assert "1 file (0.0 MB) copied" in (shown := capsys.readouterr().out) and "60 left there as they are" in shown


def test_accented_names_from_macos_are_found_and_not_copied_twice(project, photos, capsys):
    composed, decomposed = (unicodedata.normalize(form, "photos/é.png") for form in ("NFC", "NFD"))
    (photos.parent / "photos/3.png").rename(photos.parent / decomposed)
    photos.write_text(photos.read_text().replace("photos/3.png", composed))
    shutil.copytree(photos.parent, project / "data/homes/raw")
    for name, file in (("houses", photos), ("homes", project / "data/homes/raw/photos.csv")):
        assert main(["new", name, "--images", str(file)]) == 0
        assert "not exist" not in capsys.readouterr().out
        assert len(os.listdir(project / f"data/{name}/raw/photos")) == 60
        assert (project / f"data/{name}/raw" / decomposed).is_file()


def test_images_in_an_archive_are_copied_as_the_archive(project, photos):
    shutil.make_archive(str(photos.parent / "photos"), "zip", photos.parent, "photos")
    shutil.rmtree(photos.parent / "photos")
    assert main(["new", "houses", "--images", str(photos)]) == 0
    assert sorted(os.listdir(project / "data/houses/raw")) == ["houses.csv", "photos.zip"]


def test_missing_files_and_copies_are_pointed_out(project, photos, capsys):
    (photos.parent / "photos/3.png").unlink()
    shutil.copy(photos.parent / "photos/0.png", photos.parent / "photos/7.png")
    assert main(["new", "houses", "--images", str(photos)]) == 0
    shown = capsys.readouterr().out
    assert "- 1 file does not exist, such as photos/3.png" in shown
    assert "- 1 file is a copy of another, such as photos/7.png of photos/0.png" in shown


@pytest.mark.parametrize(
    "name, message",
    [
        ("../x", '"../x" cannot be the name of a new data set: begin with a letter, and use only letters, digits, _ and -, at most 100'),
        ("a b;rm", '"a b;rm" cannot be the name'),
        ("", '"" cannot be the name'),
        ("1e3", '"1e3" cannot be the name'),
        ("portraits", '"portraits" cannot be the name of a new data set: params.yaml has one of this name'),
        ("datasets", '"datasets" cannot be the name of a new data set: it is a setting of params.yaml'),
        ("null", '"null" cannot be the name of a new data set: YAML reads it as another value'),
        ("x" * 101, "digits, _ and -, at most 100"),
    ],
)
def test_names_that_would_break_something_are_refused(project, cells, capsys, name, message):
    assert message in refused(capsys, name, "--table", cells, "--target", "dose")


@pytest.mark.parametrize(
    "content, arguments, message",
    [
        ("a,b\n1,2\n", [], "name the target with --target; the columns are a, b"),
        ("a,b\n1,2\n", ["--target", "c"], "mine/t.csv has no column c"),
        ("a,b\n1,2\n", ["--target", "b"], "mine/t.csv has 1 row with a target: 20 are the fewest"),
        ("a,b\n" + "1,x\n" * 30, ["--target", "b"], "row 1 below the header, and 29 more: b = 'x' is not a number"),
        ("a,b\n" + "1,2\n" * 30, ["--target", "b"], "b is 2 in every row: there is nothing to learn"),
        ("a,y,split\n" + "1,2,train\n2,3,tset\n" * 30, [], "split = 'tset': write train, val or test"),
        ("a,y\n" + "1,2\n2,3\n" * 30, ["--group", "who"], "has no column who; there are a, y"),
        ("", ["--target", "b"], "cannot be read as CSV"),
    ],
)
def test_mistakes_in_a_table_are_one_line(project, tmp_path, capsys, content, arguments, message):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/t.csv").write_text(content)
    assert message in refused(capsys, "cells", "--table", tmp_path / "mine/t.csv", *arguments)


@pytest.mark.parametrize(
    "old, new, message",
    [
        ("file;", "price;", "has several columns price"),
        ("photos/2.png;", "../2.png;", "line 4: ../2.png is not a relative path in"),
        ("photos/", "pictures/", "there is no pictures.tar, pictures.zip or folder pictures in"),
        (".png", ".gone", "has no column of paths to images"),
    ],
)
def test_mistakes_in_a_list_of_images_are_one_line(project, photos, capsys, old, new, message):
    photos.write_text(photos.read_text().replace(old, new))
    assert message in refused(capsys, "houses", "--images", photos, "--target", "price")


def test_what_is_no_file_or_would_be_mixed_with_other_files_is_refused(project, photos, capsys):
    assert "nowhere.csv does not exist" in refused(capsys, "houses", "--images", "nowhere.csv")
    assert "is not a file" in refused(capsys, "houses", "--images", photos.parent)
    assert "photos.csv is not a table" not in refused(capsys, "houses", "--table", photos)
    assert "0.png is not a table: write the name of a file that ends in .csv" in refused(
        capsys, "houses", "--table", photos.parent / "photos/0.png"
    )
    (project / "data/houses/raw").mkdir(parents=True)
    (project / "data/houses/raw/old.jpg").touch()
    assert "has files already, such as old.jpg" in refused(capsys, "houses", "--images", photos)


@pytest.mark.parametrize(
    "before, after",
    [
        ("datasets: [a]  # why\n", "datasets: [a, new]  # why\n"),
        ("datasets: [\n  a,\n  b,  # last\n]\n", "datasets: [\n  a,\n  b, new,  # last\n]\n"),
        ("datasets:\n  - a\n  - b  # last\nx: 1\n", "datasets:\n  - a\n  - b  # last\n  - new\nx: 1\n"),
        ("datasets:\r\n- a\r\nx: 1\r\n", "datasets:\r\n- a\r\n- new\r\nx: 1\r\n"),
        ("x: 1\ndatasets:\n- a", "x: 1\ndatasets:\n- a\n- new"),
    ],
)
def test_every_way_to_write_the_list_of_data_sets_is_extended(before, after):
    end = "\r\n" if "\r" in before else "\n"
    text = extended(before, "new", "new:\n  like: a\n")
    assert text == (after if after.endswith("\n") else after + end) + f"{end}new:{end}  like: a{end}"


@pytest.mark.parametrize("text", ["", "x: 1\n", "datasets: all\n", "- a\n"])
def test_a_file_without_a_list_of_data_sets_cannot_be_extended(text):
    with pytest.raises(ValueError, match="`datasets` is not a list"):
        extended(text, "new", "new:\n")


def test_params_yaml_that_would_become_invalid_is_not_touched(project, cells, capsys):
    (project / "params.yaml").write_text(SHIPPED + "...\n")  # the end of the YAML document
    assert "cannot be extended as it is written: add cells to `datasets`, and this section" in refused(
        capsys, "cells", "--table", cells, "--target", "dose"
    )


def shrink(root, old, new):
    file = root / "params.yaml"
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


@pytest.mark.slow
def test_images_go_from_the_command_to_a_report(project, photos, capsys):
    assert main(["new", "houses", "--images", str(photos), "--unit", "$"]) == 0
    shrink(project, "epochs: 30\n    milestones: [20, 25]", "epochs: 2\n    milestones: [1]")
    shrink(
        project,
        "table3: {methods: [reg, reg+cls, reg+cls-bal], classes: [10], lambdas: searched, seeds: 3}",
        "table3: {methods: [reg, reg+cls], classes: [10], lambdas: [1.0], seeds: 1}",
    )
    shrink(project, "lambdas: [0.1, 1.0, 10.0], seeds: 1}", "lambdas: [1.0], seeds: 0}")
    for command in (["prepare", "houses"], ["train", "houses"], ["compare"]):
        assert main(command) == 0
    assert "Price of houses" in (project / "reports/index.html").read_text() and (project / "reports/houses").is_dir()


@pytest.mark.slow
def test_a_table_goes_from_the_command_to_a_report(project, cells):
    assert main(["new", "cells", "--table", str(cells), "--target", "dose", "--group", "patient"]) == 0
    grid = "{methods: [reg, reg+cls], classes: [10], lambdas: [1.0], seeds: 1}"
    with (project / "params.yaml").open("a") as file:
        file.write(f"  training: {{epochs: 2, milestones: [1]}}\n  grids: {{main: {grid}}}\n")
    for command in (["prepare", "cells"], ["train", "cells"], ["compare"]):
        assert main(command) == 0
    assert "Dose of cells" in (project / "reports/index.html").read_text() and (project / "reports/cells").is_dir()


@pytest.mark.slow
@pytest.mark.parametrize("kind, crop, scale", [("lidar", (48, 128), 0.001), ("npy", (56, 56), 0.001)])
def test_depth_maps_get_a_section_from_which_they_are_prepared(project, tmp_path, capsys, kind, crop, scale):
    write_pairs(tmp_path / "mine", kind)
    assert main(["new", "roads", "--depth", str(tmp_path / "mine/own.csv"), "--unit", "m"]) == 0
    data = section_of(project, "roads").data
    assert (data.layout, data.crop, data.depth_scale, data.columns, data.deepest) == ("csv", crop, scale, {"group": "scene"}, "data")
    assert "24 pairs (12 train, 4 val, 8 test)" in capsys.readouterr().out
    assert main(["prepare", "roads"]) == 0


def test_depth_maps_with_the_value_65535_are_pointed_out(project, tmp_path, capsys):
    write_pairs(tmp_path / "mine", "png")
    for file in sorted((tmp_path / "mine/depth").iterdir()):
        depth = np.array(Image.open(file))
        depth[-12:] = 65535
        Image.fromarray(depth).save(file)
    assert main(["new", "roads", "--depth", str(tmp_path / "mine/own.csv"), "--dry-run"]) == 0
    assert "some pixels have the value 65535, which often means not measured: if so, set data.invalid" in capsys.readouterr().out


def test_depth_maps_that_are_missing_or_damaged_are_refused(project, tmp_path, capsys):
    write_pairs(tmp_path / "mine", "png")
    (tmp_path / "mine/depth/000.png").write_bytes(b"")
    (tmp_path / "mine/images/007.png").unlink()
    assert "own.csv, line 9: images/007.png does not exist" in refused(capsys, "roads", "--depth", tmp_path / "mine/own.csv")
    shutil.copy(tmp_path / "mine/images/006.png", tmp_path / "mine/images/007.png")
    assert "own.csv, line 2: depth/000.png: empty file" in refused(capsys, "roads", "--depth", tmp_path / "mine/own.csv")
