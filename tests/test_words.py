import pytest

from regcls.words import counted, printable


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


@pytest.mark.parametrize("text", ["reg+cls 10 λ0.1 s0 · faces", "é 漢 – 1 × 2", "C:\\new"])
def test_printable_text_stays(text):
    assert printable(text) == text


@pytest.mark.parametrize(
    "text, expected",
    [
        ("\x1b[31mred\x07", r"\x1b[31mred\x07"),
        ("a\r\nb\t", r"a\r\nb\t"),
        ("\x9b2J\x00\x7f", r"\x9b2J\x00\x7f"),
        ("\u202egnp.exe", r"\u202egnp.exe"),  # written from right to left
        ("\udcff", r"\udcff"),  # of a file name that is not UTF-8
        ("\U000e0041", r"\U000e0041"),
    ],
)
def test_other_characters_are_escaped(text, expected):
    assert printable(text) == expected and printable(expected) == expected


def test_characters_to_keep_stay():
    assert printable("a\nb\x1b", keep="\n") == "a\nb\\x1b"
