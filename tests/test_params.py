"""params.yaml as it ships, and how one section is like another. What is wrong with a file: test_bad_input.py."""

from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from conftest import ROOT
from regcls.cli import main
from regcls.params import Params, load_params, parse_options
from regcls.runs import grids
from regcls.tasks.depth.runs import make_spec as depth_spec
from regcls.tasks.functions.runs import all_specs, expand
from regcls.tasks.images.params import Images
from regcls.tasks.images.runs import make_spec as image_spec
from regcls.tasks.sequences import runs as sequence_runs

# A new data set, as a user writes it: prices of houses from their photos.
HOUSES = {
    "like": "imdb_wiki",
    "title": "Prices of houses",
    "published": None,
    "data": {"source": "raw", "layout": "csv", "target": "price", "unit": "$", "archives": [], "size": 64},
    "training": {"class_range": [0.0, 1e6], "lambda": {50: 0.5}, "epochs": 3},
    "grids": {"table3": {"classes": [50]}, "table4": None},
}


@pytest.fixture(scope="module")
def shipped() -> Params:
    return load_params(ROOT / "params.yaml")


# As it ships


def test_the_1d_study_is_the_published_protocol(shipped):
    functions = shipped.datasets["functions"]
    assert (functions.data.samples, functions.data.repetitions, len(functions.data.functions)) == (60000, 5, 10)
    assert functions.training.lam["noisy"] == 1000
    assert functions.training.learning_rate["ood"] == 1e-4
    networks = {name: len(expand(functions, "functions", grid)) * 10 for name, grid in functions.grids.items()}
    assert networks["figure3"] == 600 + 3000 + 3000
    assert networks["figure4"] == 19440
    figure3, figure5 = (set(expand(functions, "functions", functions.grids[name])) for name in ("figure3", "figure5"))
    assert len(figure5 - figure3) * 10 == 4400


def test_age_from_faces_is_the_published_protocol(shipped):
    faces = shipped.datasets["imdb_wiki"]
    assert (faces.data.size, faces.data.expected_images, faces.training.model, faces.training.width) == (224, 213553, "resnet50", 64)
    assert (faces.training.epochs, faces.training.milestones, faces.training.batch_size) == (90, (60, 80), 128)
    assert [faces.training.lam_for(classes) for classes in (2, 10, 100)] == [1.0, 1.0, 0.1]
    assert (faces.shots.many_above, faces.shots.few_below) == (100, 20)
    assert len(grids.all_specs(image_spec, faces, "imdb_wiki", {})) == 3 * (1 + 3 + 3) + 3 * 2


def test_depth_and_videos_are_the_published_protocols(shipped):
    depth, videos = shipped.datasets["nyud2"], shipped.datasets["breakfast"]
    assert (depth.data.expected_train, depth.data.expected_test, depth.data.crop) == (50688, 654, (228, 304))
    assert len(grids.all_specs(depth_spec, depth, "nyud2", {})) == 3 * (1 + 3 + 3) + 3 * 2
    assert {depth.training.lam_for(classes) for classes in (2, 10)} == {0.1} and depth.training.lam_for(100) == 1.0
    assert len(sequence_runs.all_specs(videos, "breakfast", {})) * 10 == 5 * 4 * 10 * 3 * 2


def test_the_buckets_of_depth_are_those_of_the_benchmark(shipped):
    shots = shipped.datasets["nyud2"].shots
    many, medium = shots.buckets("many"), shots.buckets("medium")
    assert many == {*range(9, 46), 47, 49} and medium == {7, 8, 46, 48, *range(50, 57), 58, 60, 61, 63}


def test_what_a_clone_makes_needs_no_download_and_there_is_a_data_set_of_each_task(shipped):
    assert {shipped.task(name) for name in shipped.chosen} == {"functions", "images", "depth", "sequences"}
    assert {getattr(shipped.datasets[name].data, "source", "stand-in") for name in shipped.chosen} == {"stand-in"}
    assert shipped.default_dataset in shipped.chosen


def test_every_data_set_that_is_printed_in_the_paper_has_its_own_values_beside_it(shipped):
    published = {name: section.published for name, section in shipped.datasets.items() if section.published}
    assert published == {"functions": "functions", "functions_small": "functions"} | {
        name: name for name in ("imdb_wiki", "nyud2", "breakfast")
    }


def test_agedb_is_imdb_wiki_but_for_its_data(shipped):
    agedb, imdb_wiki = shipped.datasets["agedb"], shipped.datasets["imdb_wiki"]
    assert (agedb.data.layout, agedb.data.archives, agedb.data.expected_images) == ("csv", (), 16488)
    data = replace(agedb.data, layout=imdb_wiki.data.layout, archives=imdb_wiki.data.archives, expected_images=213553)
    assert replace(agedb, title=imdb_wiki.title, published=imdb_wiki.published, data=data) == imdb_wiki


def test_the_small_study_is_a_part_of_the_whole_one_and_trains_as_it_does(shipped):
    small, whole = shipped.datasets["functions_small"], shipped.datasets["functions"]
    assert small.training == whole.training and small.data == replace(whole.data, repetitions=2)
    shown = {(spec.setting, spec.sampling) for spec in all_specs(small, "same")}
    assert shown == {(setting, sampling) for setting in ("clean", "noisy") for sampling in ("uniform", "moderate", "severe")}
    assert set(all_specs(small, "same")) < set(all_specs(whole, "same"))


@pytest.mark.parametrize("small, whole", [("portraits", "imdb_wiki"), ("rooms", "nyud2"), ("walks", "breakfast")])
def test_a_generated_data_set_has_the_shots_and_losses_of_the_published_one_and_as_many_grids(shipped, small, whole):
    made, real = shipped.datasets[small], shipped.datasets[whole]
    assert (made.data.source, real.data.source, made.published) == ("stand-in", "raw", None)
    assert made.run == real.run and made.grids.keys() == real.grids.keys()
    assert (made.training.lam, made.training.rounding) == (real.training.lam, real.training.rounding)
    assert getattr(made, "shots", None) == getattr(real, "shots", None)
    assert {name: grid.methods for name, grid in made.grids.items()} == {name: grid.methods for name, grid in real.grids.items()}


def test_generated_images_are_learned_by_small_networks_in_a_few_epochs(shipped):
    portraits, rooms = shipped.datasets["portraits"].training, shipped.datasets["rooms"].training
    assert {(training.model, training.width) for training in (portraits, rooms)} == {("resnet18", 8)}
    assert (portraits.epochs, rooms.epochs, rooms.weights) == (7, 4, "random")


# Sections that are like others


@pytest.fixture
def sections(make_project):
    """Changes to params.yaml -> the sections of its data sets."""
    return lambda changes: load_params(make_project(changes) / "params.yaml").datasets


def test_a_section_has_every_value_of_the_one_that_it_is_like_but_for_its_own(sections):
    read = sections({"houses": {"like": "imdb_wiki", "title": "Houses"}})
    assert read["houses"] == replace(read["imdb_wiki"], title="Houses")


def test_values_lie_over_those_under_the_same_key_however_deep(sections):
    read = sections({"houses": {"like": "imdb_wiki", "data": {"stand_in": {"seed": 7}}, "training": {"lambda": {10: 0.5}}}})
    houses, imdb_wiki = read["houses"], read["imdb_wiki"]
    assert houses.data == replace(imdb_wiki.data, stand_in=replace(imdb_wiki.data.stand_in, seed=7))
    assert houses.training == replace(imdb_wiki.training, lam={2: 1.0, 10: 0.5, 100: 0.1})


def test_a_list_is_replaced_as_a_whole(sections):
    read = sections({"houses": {"like": "imdb_wiki", "training": {"seeds": [5]}}})
    assert read["houses"].training.seeds == (5,)


def test_a_section_may_be_like_one_that_is_like_another(sections):
    read = sections(
        {
            "villas": {"like": "houses", "training": {"epochs": 5}},
            "houses": {"like": "imdb_wiki", "title": "Houses", "training": {"width": 3, "epochs": 4}},
        }
    )
    expected = replace(read["imdb_wiki"].training, width=3, epochs=5, milestones=(1,))
    assert read["villas"] == replace(read["houses"], training=expected)


def test_a_grid_that_is_null_is_left_out(sections):
    read = sections({"houses": {"like": "imdb_wiki", "grids": {"table4": None}}, "villas": {"like": "houses"}})
    assert list(read["imdb_wiki"].grids) == ["table3", "table4", "lambda_search"]
    assert list(read["houses"].grids) == list(read["villas"].grids) == ["table3", "lambda_search"]


def test_a_change_reaches_the_sections_that_are_like_the_changed_one(sections):
    read = sections({"imdb_wiki": {"training": {"accumulate": 5}}})
    assert {name for name, section in read.items() if getattr(section.training, "accumulate", 0) == 5} == {
        "imdb_wiki",
        "agedb",
        "portraits",
    }


def test_data_sets_stand_in_the_order_of_the_file(shipped):
    names = [name for name, section in yaml.safe_load((ROOT / "params.yaml").read_text()).items() if {"task", "like"} & set(section)]
    assert list(shipped.datasets) == names


# A new data set


def test_a_new_data_set_is_a_section_and_no_code(make_project):
    params = load_params(make_project({"datasets": ["houses"], "default_dataset": "houses", "houses": HOUSES}) / "params.yaml")
    houses = params.datasets["houses"]
    assert isinstance(houses, Images) and params.task("houses") == "images" and params.chosen == ("houses",)
    assert (houses.data.layout, houses.data.target, houses.data.unit) == ("csv", "price", "$")
    assert [spec.dataset for spec in grids.all_specs(image_spec, houses, "houses", {})] == ["houses"] * 2


@pytest.fixture
def printed(make_project, monkeypatch, capsys, signals):
    """What `regcls params houses` prints: key -> (value, section)."""
    monkeypatch.chdir(make_project({"houses": HOUSES}))
    assert main(["params", "houses"]) == 0
    lines = [line.partition("  # ") for line in capsys.readouterr().out.splitlines()]
    return {value.partition(": ")[0]: (value.partition(": ")[2].rstrip(), source) for value, _, source in lines}


def test_each_value_is_printed_with_the_section_that_it_stands_in(printed):
    assert printed["task"] == ("images", "imdb_wiki")
    assert printed["title"] == ("Prices of houses", "houses")
    assert printed["published"] == ("null", "houses")
    assert printed["data.unit"] == ("$", "houses")
    assert printed["data.split_seed"] == ("666", "imdb_wiki")
    assert printed["training.class_range"] == ("[0.0, 1000000.0]", "houses")
    assert printed["training.lambda.50"] == ("0.5", "houses") and printed["training.lambda.100"] == ("0.1", "imdb_wiki")
    assert printed["grids.table3.classes"] == ("[50]", "houses") and printed["grids.table3.seeds"] == ("1", "imdb_wiki")


def test_what_is_printed_is_the_section_that_is_used(printed):
    tree = {}
    for key, (value, _) in printed.items():
        *above, last = key.split(".")
        here = tree
        for part in above:
            here = here.setdefault(part, {})
        here[yaml.safe_load(last)] = yaml.safe_load(value)
    file = Path("params.yaml")
    before, whole = load_params(file).datasets["houses"], yaml.safe_load(file.read_text())
    file.write_text(yaml.safe_dump(whole | {"houses": tree}, sort_keys=False))
    assert load_params(file).datasets["houses"] == before


# The command line's options


def test_options_come_as_text():
    options = parse_options("functions", {"classes": "100", "lambda": "1e2", "hidden": "6x15", "method": "reg+cls-bal"})
    assert (options.classes, options.lam, options.hidden, options.method, options.seed) == (100, 100.0, (6, 15), "reg+cls-bal", None)
