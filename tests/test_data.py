"""`regcls data`: fetching archives and writing stand-ins, with the commands of a user."""

import json
import tarfile

import pytest

from regcls.cli import main
from regcls.tasks.images.params import StandIn
from regcls.tasks.images.stand_in import write_archives

pytestmark = pytest.mark.usefixtures("signals")


@pytest.fixture
def project(make_project, monkeypatch):
    """A project that prepares data/imdb_wiki/raw and has no URLs for AgeDB, as the working folder."""
    root = make_project({"imdb_wiki": {"data": {"source": "raw"}}})
    monkeypatch.chdir(root)
    return root


@pytest.fixture(scope="module")
def archives(tmp_path_factory):
    """imdb_crop.tar and wiki_crop.tar with 300 portraits, stored outside the project."""
    folder = tmp_path_factory.mktemp("elsewhere")
    write_archives(folder, StandIn(images=300, seed=0), size=32, processes=1)
    return sorted(folder.glob("*.tar"))


def test_archives_are_fetched_from_paths_recorded_and_prepared(project, archives, capsys):
    assert main(["data", "fetch", "imdb_wiki", *map(str, archives)]) == 0
    assert "Next: regcls prepare imdb_wiki" in capsys.readouterr().err
    records = json.loads((project / "data/imdb_wiki/checksums.json").read_text())
    assert {name: record["bytes"] for name, record in records.items()} == {archive.name: archive.stat().st_size for archive in archives}
    assert main(["prepare", "imdb_wiki"]) == 0
    out, err = capsys.readouterr()
    assert "train" in out and "is not read" not in err
    assert (project / "data/imdb_wiki/prepared/images.npy").exists()


def test_a_different_archive_under_a_recorded_name_is_refused(project, archives, tmp_path, capsys):
    assert main(["data", "fetch", "imdb_wiki", str(archives[0])]) == 0
    (project / "data/imdb_wiki/raw" / archives[0].name).unlink()
    other = tmp_path / archives[0].name
    other.write_bytes(archives[0].read_bytes()[:-1] + b"\1")
    assert main(["data", "fetch", "imdb_wiki", str(other)]) == 2
    assert "checksums.json" in capsys.readouterr().err
    assert not (project / "data/imdb_wiki/raw" / archives[0].name).exists()


def test_archives_are_unpacked_where_prepare_finds_them(project, archives):
    assert main(["data", "fetch", "imdb_wiki", *map(str, archives), "--extract"]) == 0
    with tarfile.open(archives[0]) as tar:
        assert all((project / "data/imdb_wiki/raw" / name).exists() for name in tar.getnames())


def test_the_error_for_a_data_set_without_urls_says_what_to_do(project, capsys):
    assert main(["data", "fetch", "agedb"]) == 2
    output = capsys.readouterr().err
    assert "agedb has no public URL" in output and "docs/own-data.md says what belongs there" in output


def test_without_archives_prepare_names_the_command_to_fetch_them(project, capsys):
    assert main(["prepare", "imdb_wiki"]) == 2
    assert "regcls data fetch imdb_wiki" in capsys.readouterr().err


def test_stand_in_archives_can_be_written_for_inspection(project, tmp_path):
    assert main(["data", "samples", "imdb_wiki", str(tmp_path / "portraits")]) == 0
    assert sorted(file.name for file in (tmp_path / "portraits").iterdir()) == ["imdb_crop.tar", "wiki_crop.tar"]


def test_stand_ins_never_replace_an_archive(project, archives, tmp_path, capsys):
    (tmp_path / "imdb_crop.tar").write_bytes(b"real")
    assert main(["data", "samples", "imdb_wiki", str(tmp_path)]) == 2
    assert "is there already" in capsys.readouterr().err
    assert (tmp_path / "imdb_crop.tar").read_bytes() == b"real"


def test_unused_raw_files_next_to_stand_ins_are_reported(project, capsys):
    raw = project / "data/breakfast/raw"
    raw.mkdir(parents=True)
    (raw / ".gitkeep").touch()
    assert main(["prepare", "breakfast"]) == 0
    assert "is not read" not in capsys.readouterr().err
    (raw / "mine.zip").touch()
    assert main(["prepare", "breakfast"]) == 0
    assert f"{raw} is not read: breakfast.data.source in params.yaml is stand-in" in capsys.readouterr().err


def test_a_data_set_without_raw_files_has_no_stand_in(project, tmp_path, capsys):
    assert main(["data", "samples", "functions", str(tmp_path / "looked-at")]) == 2
    assert "there are no raw files" in capsys.readouterr().err


def test_stand_ins_need_a_folder_name(project, capsys):
    with pytest.raises(SystemExit) as end:
        main(["data", "samples", "nyud2", ""])
    assert end.value.code == 2 and "the folder's name is empty" in capsys.readouterr().err
    assert not list(project.glob("*.zip"))
