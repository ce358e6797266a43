"""Files of a table in every format, and what is wrong with them in words."""

import gzip
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from regcls.errors import UserError
from regcls.tasks.table.params import TableData
from regcls.tasks.table.reading import read_table

DATA = TableData(
    source="raw", archives=(), file="houses.csv", target="price", unit="$", nominal=(), ignore=(), split=None, group=None, folds="auto", repeats=1, split_seed=0
)  # fmt: skip
FRAME = pd.DataFrame({"area": [50.5, 70.25, 91.0], "town": ["Ulm", "Bad Ems", "Köln; West"], "price": [1.5, 2.0, 3.25]})


def written(folder, text, name="houses.csv", encoding="utf-8"):
    (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode(encoding))
    return read_table(folder, replace(DATA, file=name))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize(("separator", "decimal"), [(",", "."), (";", "."), (";", ","), ("\t", "."), ("\t", ","), ("|", ".")])
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_csv_files_of_any_separator_decimal_mark_encoding_and_line_end(tmp_path, separator, decimal, encoding, line_end):
    text = FRAME.to_csv(index=False, sep=separator, decimal=decimal, lineterminator=line_end)
    pd.testing.assert_frame_equal(written(tmp_path, text, encoding=encoding), FRAME)


@pytest.mark.parametrize("name", ["t.csv.gz", "t.tsv", "t.txt", "t.parquet", "t.feather"])
def test_other_formats(tmp_path, name):
    file = tmp_path / name
    match name.rpartition(".")[2]:
        case "parquet":
            FRAME.to_parquet(file)
        case "feather":
            FRAME.to_feather(file)
        case "gz":
            file.write_bytes(gzip.compress(FRAME.to_csv(index=False).encode()))
        case _:
            FRAME.to_csv(file, index=False, sep="\t")
    pd.testing.assert_frame_equal(read_table(tmp_path, replace(DATA, file=name)), FRAME)


def test_arrays_of_numpy(tmp_path):
    features, price, town = np.arange(6, dtype=np.float32).reshape(3, 2), np.array([1.0, 2.0, 3.0]), np.array(["a", "b", "a"])
    np.savez(tmp_path / "t.npz", embedding=features, price=price, town=town)
    np.save(tmp_path / "embedding.npy", features)
    np.save(tmp_path / "price.npy", price)
    expected = pd.DataFrame({"embedding_0": features[:, 0], "embedding_1": features[:, 1], "price": price})
    pd.testing.assert_frame_equal(read_table(tmp_path, replace(DATA, file="embedding.npy")), expected)
    pd.testing.assert_frame_equal(read_table(tmp_path, replace(DATA, file="t.npz")), expected.assign(town=town), check_dtype=False)


def test_names_lose_blanks_and_numbers_of_quoted_cells_are_numbers(tmp_path):
    table = written(tmp_path, '" Area " , price\n"1.5",2\n"2.5",3\n')
    assert list(table) == ["Area", "price"] and table["Area"].tolist() == [1.5, 2.5]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("area;price\n", "houses.csv has no rows"),
        ("", "cannot be read as CSV: No columns"),
        ("area,price\n1,2\n1,2,3,4\n", "cannot be read as CSV: .*line 3"),
        ("area,price,area\n1,2,3\n", None),  # pandas renames the second one
        (b"area,price\n\xff\xfe\xfa,2\n", "houses.csv is not in UTF-8 or UTF-16: save it as UTF-8"),
    ],
)
def test_what_is_wrong_with_a_csv_file(tmp_path, text, message):
    if message is None:
        assert list(written(tmp_path, text)) == ["area", "price", "area.1"]
        return
    with pytest.raises(UserError, match=message):
        written(tmp_path, text)


def test_missing_and_broken_files(tmp_path):
    (tmp_path / "other.csv").write_text("x")
    with pytest.raises(UserError, match=r"houses.csv does not exist; there are other.csv. Put the table there, or name it in `data.file`"):
        read_table(tmp_path, DATA)
    for name in ("t.parquet", "t.feather", "t.npz", "t.npy"):
        (tmp_path / name).write_bytes(b"no table")
        with pytest.raises(UserError, match=f"{name} cannot be read as {name[2:].upper()}"):
            read_table(tmp_path, replace(DATA, file=name))
    np.savez(tmp_path / "t.npz", x=np.zeros((3, 2)), price=np.zeros(4))
    with pytest.raises(UserError, match=r"a row for each sample: x \(3, 2\), price \(4,\)"):
        read_table(tmp_path, replace(DATA, file="t.npz"))
    np.save(tmp_path / "t.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(UserError, match="t.npy cannot be read as NPY"):
        read_table(tmp_path, replace(DATA, file="t.npy"))
