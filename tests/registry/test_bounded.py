"""A mistaken or hostile text costs neither minutes nor memory: it is refused in one line."""

import pytest

from registry import UserError
from registry.gintext import CHARACTERS, DEPTH, FILES, STRINGS, read, read_text

GOOD = "train.iterations = 1\n"


def doubling(count, made="B{} = [%B{}, %B{}]"):
    return "\n".join(["B0 = 1", *(made.format(i + 1, i, i) for i in range(count))])


TEXTS = {
    "macros that double": (doubling(28), "more than 131,072 values"),
    "macros that double, in dictionaries": (doubling(28, "B{} = {{1: %B{}, 2: %B{}}}"), "more than 131,072 values"),
    "objects that double": (
        "train.things = [@s0/partition.mix()]\n"
        + "\n".join(f"s{i}/partition.mix.parts = [@s{i + 1}/mix(), @s{i + 1}/mix()]" for i in range(28)),
        "takes more than 10,000 objects to build",
    ),
    "objects in objects": (
        "train.things = [@s0/partition.mix()]\n"
        + "\n".join(f"s{i}/partition.mix.parts = [@s{i + 1}/mix()]" for i in range(200)),
        f"more than {DEPTH} objects that need each other",
    ),
    "macros in macros": (
        "\n".join(["B0 = 1", *(f"B{i + 1} = %B{i}" for i in range(500))]),
        f"more than {DEPTH} brackets and macros in each other",
    ),
    "macros in macros, the last one first": (
        "\n".join([*(f"B{i + 1} = %B{i}" for i in reversed(range(500))), "B0 = 1"]),
        f"more than {DEPTH} brackets and macros in each other",
    ),
    "brackets through macros": (
        "\n".join(["B0 = 1", *(f"B{i + 1} = {'[' * 30}%B{i}{']' * 30}" for i in range(30))]),
        f"more than {DEPTH} brackets and macros in each other",
    ),
    "scopes": (f"train.things = [@{'a/' * 10_000}partition.mix()]", f"test.gin:2: more than {DEPTH} scopes"),
    "brackets": ("train.things = " + "[" * 5000 + "]" * 5000, f"test.gin:2: more than {DEPTH} brackets in each other"),
    "brackets that do not close": ("train.things = " + "[" * 5000, f"more than {DEPTH} brackets in each other"),
    "a long list": ("train.things = [" + "0," * 10**6 + "]", f"test.gin: more than {CHARACTERS:,} characters"),
    "strings in a row": ("train.name = " + "'a' " * (STRINGS + 1), f"more than {STRINGS} strings in a row"),
    "a value that is long once spelt out": (
        f"A = '{'x' * 1000}'\ntrain.things = [{'%A,' * 500}]",
        f"test.gin: with macros spelt out, more than {CHARACTERS:,} characters",
    ),
}


@pytest.mark.parametrize("name", TEXTS)
def test_what_would_take_too_much_is_refused_with_its_file(name, mistake):
    text, expected = TEXTS[name]
    assert expected in mistake(GOOD + text)


@pytest.mark.parametrize("name", ["macros that double", "objects that double", "brackets", "a long list"])
def test_so_is_the_config_of_a_run_folder(name, workshop):
    [line] = workshop.experiment(GOOD).differences(TEXTS[name][0] + "\n" + GOOD)
    assert "more than" in line


def test_what_stays_below_the_bounds_is_read(workshop):
    experiment = workshop.experiment(
        GOOD + doubling(8) + f"\ntrain.things = [{'[' * (DEPTH - 4)}1{']' * (DEPTH - 4)}, %B8, {'0,' * 2000}]"
    )
    again = workshop.experiment(experiment.operative_text())
    assert again.hash == experiment.hash and len(again.value("train.things")) == 2002


def test_includes_that_double_are_refused(workshop):
    for i in range(25):
        workshop.write(f"i{i}.gin", f"include 'i{i + 1}.gin'\n" * 2)
    workshop.write("i25.gin", "")
    with pytest.raises(UserError, match=f"i25.gin: more than {FILES} files are included"):
        read(["i0.gin"], [], [])


def test_all_files_and_bindings_count_together(workshop):
    half = "# " + "x" * (CHARACTERS // 2) + "\n"
    workshop.write("a.gin", half)
    assert read(["a.gin"], [], []) == []
    workshop.write("b.gin", "include 'a.gin'")
    for files, bindings in ((["a.gin", "b.gin"], []), (["a.gin"], [half])):
        with pytest.raises(UserError, match="characters of gin text, with all that is included"):
            read(files, bindings, [])


SECRET = "user: hunter2-is-a-secret\n"


@pytest.mark.parametrize("name", ["secret.txt", ".env", "secret", "link.gin", "secret.gin", "number.gin", "bytes.gin"])
def test_an_include_of_a_file_that_is_not_gin_names_it_and_quotes_nothing(workshop, name):
    for file in ("secret.txt", ".env", "secret", "secret.gin"):
        workshop.write(file, SECRET)
    workshop.write("number.gin", "a.b = hunter2")
    (workshop.folder / "bytes.gin").write_bytes(b"hunter2\xff\n")
    (workshop.folder / "link.gin").symlink_to("secret.txt")
    text = f"\ninclude '{name}'"
    workshop.write("test.gin", text)
    for reading in (lambda: read(["test.gin"], [], []), lambda: read_text(text, "config.gin")):
        with pytest.raises(UserError) as caught:
            reading()
        assert name in str(caught.value) and "hunter2" not in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["a" * 300, "a" * 5000, "\\0", "\\ud800", ""])
def test_a_name_that_no_file_can_have_is_a_file_that_is_not_there(name):
    with pytest.raises(UserError, match="^test:1: there is no gin file"):
        read_text(f"include '{name}'", "test")
