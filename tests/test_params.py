"""The shipped params.yaml, and inheritance between sections. For invalid files, see test_bad_input.py."""

from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from conftest import ROOT, SHIPPED, SHIPPED_CHOICE
from regcls.cli import main
from regcls.params import load_params, parse_options
from regcls.runs import grids
from regcls.tasks import TASKS
from regcls.tasks.depth.runs import make_spec as depth_spec
from regcls.tasks.functions.runs import all_specs, expand
from regcls.tasks.images.params import Images
from regcls.tasks.images.runs import make_spec as image_spec
from regcls.tasks.sequences import runs as sequence_runs

# A new data set of a user: prices of houses from their photos.
HOUSES = {
    "like": "imdb_wiki",
    "title": "Prices of houses",
    "published": None,
    "data": {"source": "raw", "layout": "csv", "target": "price", "unit": "$", "archives": [], "size": 64},
    "training": {"class_range": [0.0, 1e6], "lambda": {50: 0.5}, "epochs": 3},
    "grids": {"table3": {"classes": [50]}, "table4": None},
}


# The shipped file


def test_the_1d_study_follows_the_published_protocol(shipped):
    functions = shipped.datasets["functions"]
    assert (functions.data.samples, functions.data.repetitions, len(functions.data.functions)) == (60000, 5, 10)
    assert functions.training.lam["noisy"] == 1000
    assert functions.training.learning_rate["ood"] == 1e-4
    networks = {name: len(expand(functions, "functions", grid)) * 10 for name, grid in functions.grids.items()}
    assert networks["figure3"] == 600 + 3000 + 3000
    assert networks["figure4"] == 19440
    figure3, figure5 = (set(expand(functions, "functions", functions.grids[name])) for name in ("figure3", "figure5"))
    assert len(figure5 - figure3) * 10 == 4400


PAPERS = {"random", "kukleva", "reg", "reg+cls", "reg+cls-bal"}  # methods of the paper


def test_age_from_faces_follows_the_published_protocol(shipped):
    faces = shipped.datasets["imdb_wiki"]
    assert (faces.data.size, faces.data.expected_images, faces.training.model, faces.training.width) == (224, 213553, "resnet50", 64)
    assert (faces.training.epochs, faces.training.milestones, faces.training.batch_size) == (90, (60, 80), 128)
    assert [faces.training.lam_for(classes) for classes in (2, 10, 100)] == [1.0, 1.0, 0.1]
    assert (faces.shots.many_above, faces.shots.few_below) == (100, 20)
    specs = grids.all_specs(image_spec, faces, "imdb_wiki", {})
    assert len([spec for spec in specs if spec.method in PAPERS]) == 3 * (1 + 3 + 3) + 3 * 2
    assert {spec.method for spec in specs} - PAPERS == {"focal-r", "lds+fds(least=0.1,most=10)", "bmse-gai(sigma=10)"}  # as released


def test_depth_and_videos_follow_the_published_protocols(shipped):
    depth, videos = shipped.datasets["nyud2"], shipped.datasets["breakfast"]
    assert (depth.data.expected_train, depth.data.expected_test, depth.data.crop) == (50688, 654, (228, 304))
    specs = grids.all_specs(depth_spec, depth, "nyud2", {})
    assert len([spec for spec in specs if spec.method in PAPERS]) == 3 * (1 + 3 + 3) + 3 * 2
    assert {spec.method for spec in specs} - PAPERS == {"lds+fds", "bmse-gai(rate=0,components=16)"}
    assert {depth.training.lam_for(classes) for classes in (2, 10)} == {0.1} and depth.training.lam_for(100) == 1.0
    assert len(sequence_runs.all_specs(videos, "breakfast", {})) * 10 == 5 * 4 * 10 * 3 * 2


def test_depth_buckets_follow_the_benchmark(shipped):
    shots = shipped.datasets["nyud2"].shots
    many, medium = shots.buckets("many"), shots.buckets("medium")
    assert many == {*range(9, 46), 47, 49} and medium == {7, 8, 46, 48, *range(50, 57), 58, 60, 61, 63}


def test_the_chosen_data_sets_cover_every_task_without_downloads(shipped):
    file = yaml.safe_load((ROOT / "params.yaml").read_text())
    if any(file[key] != value for key, value in SHIPPED_CHOICE.items()):
        pytest.skip("params.yaml chooses other data sets than the shipped file")
    assert {shipped.task(name) for name in shipped.chosen} == set(TASKS)
    assert "raw" not in {getattr(shipped.datasets[name].data, "source", "drawn") for name in shipped.chosen}
    assert shipped.default_dataset in shipped.chosen


def test_data_sets_of_the_paper_show_their_own_published_values(shipped):
    published = {name: section.published for name, section in shipped.datasets.items() if section.published}
    assert published == dict.fromkeys(("functions", "functions_small", "functions_decay"), "functions") | {
        name: name for name in ("imdb_wiki", "nyud2", "breakfast")
    }


def test_agedb_equals_imdb_wiki_except_for_its_data(shipped):
    agedb, imdb_wiki = shipped.datasets["agedb"], shipped.datasets["imdb_wiki"]
    assert (agedb.data.layout, agedb.data.archives, agedb.data.expected_images, agedb.data.duplicates) == ("csv", (), 16488, "allow")
    data = replace(agedb.data, layout=imdb_wiki.data.layout, archives=imdb_wiki.data.archives, expected_images=213553, duplicates="refuse")
    assert replace(agedb, title=imdb_wiki.title, published=imdb_wiki.published, data=data) == imdb_wiki


def test_the_small_study_is_a_subset_of_the_full_one(shipped):
    small, whole = shipped.datasets["functions_small"], shipped.datasets["functions"]
    assert small.training == whole.training and small.data == replace(whole.data, repetitions=3)
    shown = {(spec.setting, spec.sampling) for spec in all_specs(small, "same")}
    assert shown == {(setting, sampling) for setting in ("clean", "noisy") for sampling in ("uniform", "severe")}
    assert set(all_specs(small, "same")) < set(all_specs(whole, "same"))


@pytest.mark.parametrize("small, whole", [("portraits", "imdb_wiki"), ("rooms", "nyud2"), ("walks", "breakfast")])
def test_generated_data_sets_share_shots_losses_and_grids_with_published_ones(shipped, small, whole):
    generated, real = shipped.datasets[small], shipped.datasets[whole]
    assert (generated.data.source, real.data.source, generated.published) == ("stand-in", "raw", None)
    assert generated.run == real.run and generated.grids.keys() == real.grids.keys()
    assert (generated.training.lam, generated.training.rounding) == (real.training.lam, real.training.rounding)
    assert getattr(generated, "shots", None) == getattr(real, "shots", None)
    papers = {name: tuple(method for method in grid.methods if method in PAPERS) for name, grid in real.grids.items()}
    assert {name: grid.methods for name, grid in generated.grids.items()} == papers


def test_generated_images_use_small_networks_and_few_epochs(shipped):
    portraits, rooms = shipped.datasets["portraits"].training, shipped.datasets["rooms"].training
    assert {(training.model, training.width) for training in (portraits, rooms)} == {("resnet18", 8)}
    assert (portraits.epochs, rooms.epochs, rooms.weights) == (7, 4, "random")


# Inheritance


@pytest.fixture
def sections(make_project):
    """Load the data sets of params.yaml with changes."""
    return lambda changes: load_params(make_project(changes) / "params.yaml").datasets


def test_a_section_inherits_all_values_that_it_does_not_set(sections):
    read = sections({"houses": {"like": "imdb_wiki", "title": "Houses"}})
    assert read["houses"] == replace(read["imdb_wiki"], title="Houses")


def test_nested_values_override_inherited_ones_key_by_key(sections):
    read = sections({"houses": {"like": "imdb_wiki", "data": {"stand_in": {"seed": 7}}, "training": {"lambda": {10: 0.5}}}})
    houses, imdb_wiki = read["houses"], read["imdb_wiki"]
    assert houses.data == replace(imdb_wiki.data, stand_in=replace(imdb_wiki.data.stand_in, seed=7))
    assert houses.training == replace(imdb_wiki.training, lam={2: 1.0, 10: 0.5, 100: 0.1})


def test_lists_are_replaced_as_a_whole(sections):
    read = sections({"houses": {"like": "imdb_wiki", "training": {"seeds": [5]}}})
    assert read["houses"].training.seeds == (5,)


def test_inheritance_works_over_several_levels(sections):
    read = sections(
        {
            "villas": {"like": "houses", "training": {"epochs": 5}},
            "houses": {"like": "imdb_wiki", "title": "Houses", "training": {"width": 3, "epochs": 4}},
        }
    )
    expected = replace(read["imdb_wiki"].training, width=3, epochs=5, milestones=(1,))
    assert read["villas"] == replace(read["houses"], training=expected)


def test_a_null_grid_is_left_out(sections):
    read = sections({"houses": {"like": "imdb_wiki", "grids": {"table4": None}}, "villas": {"like": "houses"}})
    assert list(read["imdb_wiki"].grids) == ["table3", "table4", "lambda_search"]
    assert list(read["houses"].grids) == list(read["villas"].grids) == ["table3", "lambda_search"]


def test_a_change_reaches_inheriting_sections(sections):
    read = sections({"imdb_wiki": {"training": {"accumulate": 5}}})
    assert {name for name, section in read.items() if getattr(section.training, "accumulate", 0) == 5} == {
        "imdb_wiki",
        "agedb",
        "portraits",
    }


def test_data_sets_are_in_the_order_of_the_file(make_project):
    file = make_project({"houses": HOUSES}) / "params.yaml"
    names = [name for name, section in yaml.safe_load(file.read_text()).items() if {"task", "like"} & set(section)]
    assert list(load_params(file).datasets) == names == [*SHIPPED, "houses"]


# A new data set


def test_a_new_data_set_needs_a_section_but_no_code(make_project):
    params = load_params(make_project({"datasets": ["houses"], "default_dataset": "houses", "houses": HOUSES}) / "params.yaml")
    houses = params.datasets["houses"]
    assert isinstance(houses, Images) and params.task("houses") == "images" and params.chosen == ("houses",)
    assert (houses.data.layout, houses.data.target, houses.data.unit) == ("csv", "price", "$")
    assert [spec.dataset for spec in grids.all_specs(image_spec, houses, "houses", {})] == ["houses"] * 2


@pytest.fixture
def printed(make_project, monkeypatch, capsys, signals):
    """The output of `regcls params houses`: key -> (value, section)."""
    monkeypatch.chdir(make_project({"houses": HOUSES}))
    assert main(["params", "houses"]) == 0
    lines = [line.partition("  # ") for line in capsys.readouterr().out.splitlines()]
    return {value.partition(": ")[0]: (value.partition(": ")[2].rstrip(), source) for value, _, source in lines}


def test_each_value_is_printed_with_the_section_that_sets_it(printed):
    assert printed["task"] == ("images", "imdb_wiki")
    assert printed["title"] == ("Prices of houses", "houses")
    assert printed["published"] == ("null", "houses")
    assert printed["data.unit"] == ("$", "houses")
    assert printed["data.split_seed"] == ("666", "imdb_wiki")
    assert printed["training.class_range"] == ("[0.0, 1000000.0]", "houses")
    assert printed["training.lambda.50"] == ("0.5", "houses") and printed["training.lambda.100"] == ("0.1", "imdb_wiki")
    assert printed["grids.table3.classes"] == ("[50]", "houses") and printed["grids.table3.seeds"] == ("1", "imdb_wiki")


def test_the_printed_section_is_the_one_in_use(printed):
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


# Command line options


def test_options_are_parsed_from_text():
    options = parse_options("functions", {"classes": "100", "lambda": "1e2", "hidden": "6x15", "method": "reg+cls-bal"})
    assert (options.classes, options.lam, options.hidden, options.method, options.seed) == (100, 100.0, (6, 15), "reg+cls-bal", None)
