import pytest

from regcls.words import counted


@pytest.mark.parametrize(
    "number, thing, things, expected",
    [
        (1, "seed", "", "1 seed"),
        (0, "seed", "", "0 seeds"),
        (2, "seed", "", "2 seeds"),
        (12345, "run", "", "12,345 runs"),
        (1, "activity", "activities", "1 activity"),
        (10, "activity", "activities", "10 activities"),
    ],
)
def test_a_number_of_things_agrees_with_its_noun(number, thing, things, expected):
    assert counted(number, thing, things) == expected
