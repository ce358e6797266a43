"""Csv files as spreadsheets and scripts write them are read alike; what cannot be meant is refused, with its line."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from conftest import ROOT
from regcls.errors import UserError
from regcls.params import load_params
from regcls.tasks.images.csv_file import read_csv

ROWS = [("00/a.jpg", 31.5, "train"), ("00/b, c.jpg", 1e-3, "val"), ("ü.jpg", 40.0, "test")]


def written(folder, content, encoding="utf-8"):
    (folder / "agedb.csv").write_bytes(content.encode(encoding))
    return folder / "agedb.csv"


def read(file, refuse=True, **changes):
    data = load_params(ROOT / "params.yaml").datasets["agedb"].data
    return read_csv(file, replace(data, duplicates="refuse" if refuse else "allow", **changes))


def listed(file):
    return list(read(file)[["path", "target", "split"]].itertuples(index=False, name=None))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("separator, mark", [(",", "."), (";", "."), (";", ","), ("\t", "."), ("\t", ",")])
def test_every_kind_of_csv_file_gives_the_same_rows(tmp_path, encoding, end, separator, mark):
    for header, quoted in product((["path", "split", "age", "n,ote"], [" Path", "SPLIT ", "Age", ""]), (False, True)):
        texts = [[path, split, str(age).replace(".", mark), "x;y"] for path, age, split in ROWS]
        lines = [separator.join(f'"{text}"' if quoted or separator in text else text for text in row) for row in [header, *texts]]
        file = written(tmp_path, end.join(["", *lines, "", separator * 3, ""]), encoding)
        expected = [(path, np.float32(age), split) for path, age, split in ROWS]
        assert listed(file) == expected
        assert read(file)["target"].dtype == np.float32 and read(file)["line"].tolist() == [3, 4, 5]


@pytest.mark.parametrize(
    "split, names",
    [
        ("train", ("train", "Training", " TRAIN ")),
        ("val", ("val", "valid", "Validation", "dev")),
        ("test", ("test", "Testing")),
    ],
)
def test_splits_have_several_names(tmp_path, split, names):
    file = written(tmp_path, "path,split,age\n" + "".join(f"{place}.jpg,{name},1\n" for place, name in enumerate(names)))
    assert set(read(file)["split"]) == {split}


def test_a_column_of_exactly_the_name_counts_before_others(tmp_path):
    assert listed(written(tmp_path, "path,split,AGE,age\na.jpg,train,1,2\n")) == [("a.jpg", 2.0, "train")]


@pytest.mark.parametrize(
    "content, message",
    [
        ("", r"agedb\.csv has no column age, path; it needs age, path in its first line, separated by commas, semicolons, tabs"),
        ("age|path|split\n", r"has no column age, path;"),
        ("age;path\n1;a.jpg\n", r"has no column split, and 1 group cannot be split in three: add more, or write the splits"),
        ("age,path,group\n1,a.jpg,x\n1,b.jpg,\n", r"line 3: there is no group"),
        ("age,path,split,group\n1,a.jpg,val,x\n1,b.jpg,test,x\n", r"lines 2 and 3: group x is in val and in test: a network would be"),
        ("Age,AGE,path,split\n", r"has several columns age: rename all but one"),
        ("age,path,split\n1,a.jpg,train\n\nold,b.jpg,val\n", r"agedb\.csv, line 4: age = 'old' is not a number"),
        ("age,path,split\nnan,a.jpg,train\n", r"line 2: age = 'nan' is not a number"),
        ('age,path,split\n"1,5",a.jpg,train\n', r"line 2: age = '1,5' is not a number"),
        ("age;path;split\n1.234,5;a.jpg;train\n", r"line 2: age = '1\.234,5' is not a number"),
        ("age;path;split\n1,5;a.jpg;train\n1.5;b.jpg;train\n", r"lines 2 and 3: age has a comma in one and a point in the other"),
        ("path,split,age\na.jpg,train,1,5\n", r"line 2: it has 4 values for 3 columns: put a value that contains ',' in quotes"),
        ("age,path,split\n1,a.jpg,trian\n", r"line 2: split = 'trian': write train, val or test"),
        ("age,path,split\n1,a.jpg\n", r"line 2: split = ''"),
        ("age,path,split\n1,,train\n", r"line 2: there is no path"),
        ("age,path,split\n1, ,train\n", r"line 2: there is no path"),
        ("age,path,split\n1,é.jpg,train\n", r"is not a CSV file in UTF-8 or UTF-16"),
        ("age,path,split\n1,a.jpg,train\n-1e39,b.jpg,train\n", r"line 3: age = '-1e39' is too large for networks"),
        ("age,path,split\n1,/photos/a.jpg,train\n", r"line 2: /photos/a\.jpg is not a relative path in .*: move or copy the files there"),
        ("age,path,split\n1,b/../../a.jpg,train\n", r"line 2: \.\./a\.jpg is not a relative path in .*: move or copy the files there"),
    ],
)  # fmt: skip
def test_the_error_for_an_invalid_csv_names_the_line(tmp_path, content, message):
    with pytest.raises(UserError, match=message):
        read(written(tmp_path, content, "latin-1"))


@pytest.mark.parametrize("text", ["photos/a b.jpg", " photos/a b.jpg ", "photos\\a b.jpg", "./photos//a b.jpg", '"photos\\a b.jpg "'])
def test_paths_are_tidied(tmp_path, text):
    assert listed(written(tmp_path, f"age,path,split\n1,{text},train\n")) == [("photos/a b.jpg", 1.0, "train")]


@pytest.mark.parametrize("name", ["a\\b.jpg", "a.jpg ", "a\\b.jpg "])
def test_a_file_of_just_that_name_is_taken(tmp_path, name):
    (tmp_path / name).touch()
    assert listed(written(tmp_path, f"age,path,split\n1,{name},train\n")) == [(name, 1.0, "train")]


@pytest.mark.parametrize("offset, step", [(2e7, 1), (-2e7, 1), (1.7e9, 100), (0, 1e-47)])
def test_targets_that_float32_cannot_tell_apart_are_refused(tmp_path, offset, step):
    rows = [f"{offset + place * step!r},{place}.jpg,train\n" for place in range(40)]
    with pytest.raises(UserError, match=r"agedb\.csv, lines \d+ and \d+: age = \S+ and \S+ are equal in float32, .*: subtract a constant"):
        read(written(tmp_path, "age,path,split\n" + "".join(rows)))


@pytest.mark.parametrize("draw", ["random", "standard_normal", "standard_cauchy"])
def test_random_targets_with_all_their_digits_are_accepted(tmp_path, draw):
    targets = getattr(np.random.default_rng(0), draw)(20_000).tolist()
    table = read(written(tmp_path, "age,path,split\n" + "".join(f"{value!r},{place}.jpg,train\n" for place, value in enumerate(targets))))
    assert np.array_equal(table["target"], np.float32(targets))


@pytest.mark.parametrize("again", ["1,a.jpg", "1, ./a.jpg", "1,b/../a.jpg "])
def test_an_image_in_two_splits_is_refused_or_else_reported(tmp_path, capsys, again):
    file = written(tmp_path, f"age,path,split\n1,a.jpg,train\n2,b.jpg,train\n{again},test\n")
    with pytest.raises(UserError, match=r"agedb\.csv, lines 2 and 4: a\.jpg is in train and in test"):
        read(file)
    assert len(read(file, refuse=False)) == 3
    assert "1 image is in more than one split" in capsys.readouterr().err


def test_an_image_with_two_targets_is_refused_but_a_repeated_line_is_not(tmp_path, capsys):
    content = "age,path,split\n1,a.jpg,train\n2,b.jpg,train\n1.0,a.jpg,train\n"
    assert len(read(written(tmp_path, content))) == 3
    assert "1 image is listed more than once, and counted as often" in capsys.readouterr().err
    with pytest.raises(UserError, match=r"agedb\.csv, lines 3 and 5: b\.jpg has two targets, 2 and 3: remove one of the lines"):
        read(written(tmp_path, content + "3,b.jpg,train\n"))


def test_without_splits_they_are_drawn_from_the_seed_and_by_groups(tmp_path):
    rows = [(f"{place}.jpg", f"house {place // 3}") for place in range(60)]
    file = written(tmp_path, "path,age,house\n" + "".join(f"{path},1,{house}\n" for path, house in rows))
    table = read(file, columns={"group": "house"}).assign(house=[house for _, house in rows])
    assert table["split"].value_counts().to_dict() == {"train": 36, "val": 12, "test": 12}
    assert (table.groupby("house")["split"].nunique() == 1).all()
    assert table["split"].tolist() == read(file, columns={"group": "house"})["split"].tolist()
    assert table["split"].tolist() != read(file, columns={"group": "house"}, split_seed=1)["split"].tolist()


def test_columns_may_have_other_names(tmp_path):
    file = written(tmp_path, "file,fold,part,age\na.jpg,1,train,1\nb.jpg,2,val,2\nc.jpg,3,test,3\n")
    assert read(file, columns={"path": "File", "split": "part"})["split"].tolist() == ["train", "val", "test"]
    assert sorted(read(file, columns={"path": "file", "split": None})["split"]) == ["test", "train", "val"]  # drawn
    with pytest.raises(UserError, match=r"agedb\.csv has no column path, house; it needs age, path, house in its first line"):
        read(file, columns={"group": "house"})
