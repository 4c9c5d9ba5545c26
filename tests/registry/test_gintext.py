import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry import UserError
from registry.gintext import Macro, Reference, plain, read, read_text, render

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary()
    | st.builds(Reference, st.sampled_from(["", "a", "a/b"]), st.just("partition.split"), st.booleans())
    | st.builds(Macro, st.sampled_from(["width", "a/width"]))
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.integers() | st.text(), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(VALUES)
def test_gin_reads_back_what_render_writes(value):
    assert plain(value)
    [statement] = read_text(f"x.y = {render(value)}", "text")
    assert statement.value == value and type(statement.value) is type(value)


def test_gin_has_no_word_for_nan_or_objects():
    assert not plain(math.nan) and not plain([object()]) and not plain({1: {2}})


@given(st.text(alphabet="ab.=@%/()[]{}:,'\"\n #5-$\\", max_size=30))
def test_any_text_is_read_or_refused_with_its_place(text):
    try:
        read_text(text, "any")
    except UserError as error:
        assert str(error).startswith("any:") or "there is no gin file" in str(error)


@pytest.mark.parametrize(
    ("text", "line", "culprit"),
    [
        ("a.b = 1\na.b =", 2, "a.b ="),
        ("a.b = 1\n\nnonsense here", 3, "nonsense here"),
        ("a.b = 5 6", 1, "a.b = 5 6"),
        ("a.b = 1\na.b = [1, 2", 1, "not closed"),
        ("a.b = @foo(3)", 1, "a.b = @foo(3)"),
        ("a.b = {[1]: 2}", 1, "unhashable"),
        ("a.b = foo", 1, "quote strings ('foo')"),
        ("a.b = partition.split()", 1, "prefix references with @"),
        ("a.b = true", 1, "true is written True"),
        ("a..b = 1", 1, "a..b = 1"),
        ("block.hydra:\nx = 1", 2, "Expected indentation"),
    ],
)
def test_a_syntax_error_names_the_full_path_line_and_text(workshop, text, line, culprit):
    path = workshop.write("deep/down/bad.gin", text)
    with pytest.raises(UserError) as caught:
        read([path], [], [])
    assert str(caught.value).startswith(f"{path}:{line}: ") and culprit in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_syntax_error_in_a_binding_shows_the_binding():
    with pytest.raises(UserError, match=r"^--bind 'train.name = foo': .*quote strings \('foo'\)"):
        read([], ["train.name = foo"], [])


@pytest.mark.parametrize(
    ("line", "advice"),
    [
        ("import toy_plugin", r"delete the line.* --plugin toy_plugin$"),
        ("from toy_plugin import Split", r"delete the line.* --plugin toy_plugin$"),
        ("import numpy.linalg as la", r"every installed plugin is found; delete the line.* --plugin numpy.linalg$"),
        ("from __gin__ import dynamic_registration", "every registered name can be used .* delete the line$"),
    ],
)
def test_import_statements_are_refused_with_what_to_do_instead(workshop, line, advice):
    workshop.write("a.gin", f"# first\n{line}")
    with pytest.raises(UserError, match=f"^a.gin:2: `{line}`: .*{advice}"):
        read(["a.gin"], [], [])


def values(statements):
    return [statement.value for statement in statements]


def test_includes_are_searched_in_the_current_folder_then_beside_the_file_then_in_the_search_path(workshop):
    shipped = workshop.folder / "shipped"
    workshop.write("shipped/parts/base.gin", "a.b = 'shipped'")
    workshop.write("mine/test.gin", "include 'parts/base.gin'")
    assert values(read(["mine/test.gin"], [], [shipped])) == ["shipped"]
    workshop.write("mine/parts/base.gin", "a.b = 'beside'")
    assert values(read(["mine/test.gin"], [], [shipped])) == ["beside"]
    workshop.write("parts/base.gin", "a.b = 'current'")
    assert values(read(["mine/test.gin"], [], [shipped])) == ["current"]


def test_a_file_is_found_in_the_search_path_by_its_name(workshop):
    path = workshop.write("shipped/quick.gin", "a.b = 1")
    [statement] = read(["quick.gin"], [], [workshop.folder / "shipped"])
    assert statement.where == f"{path}:1"


def test_a_missing_file_names_the_folders_and_the_closest(workshop):
    workshop.write("shipped/base/quick.gin", "")
    with pytest.raises(UserError) as caught:
        read(["base/quik.gin"], [], [workshop.folder / "shipped"])
    assert "'base/quik.gin'" in str(caught.value) and str(workshop.folder / "shipped") in str(caught.value)
    assert "did you mean 'base/quick.gin'?" in str(caught.value)


def test_a_missing_include_names_file_and_line(workshop):
    workshop.write("base.gin", "")
    workshop.write("test.gin", "a.b = 1\ninclude 'bse.gin'")
    with pytest.raises(UserError, match="^test.gin:2: there is no gin file 'bse.gin'.*did you mean 'base.gin'?"):
        read(["test.gin"], [], [])


def test_an_include_that_never_ends_names_the_cycle(workshop):
    workshop.write("a.gin", "include 'b.gin'")
    workshop.write("b.gin", "x.y = 1\ninclude 'a.gin'")
    with pytest.raises(UserError, match="^b.gin:2: this include never ends: a.gin -> b.gin -> a.gin"):
        read(["a.gin"], [], [])


def test_a_fragment_may_be_included_twice(workshop):
    workshop.write("base.gin", "x.y = 1")
    workshop.write("a.gin", "include 'base.gin'\ninclude 'base.gin'")
    assert values(read(["a.gin"], [], [])) == [1, 1]


def test_a_file_that_is_no_text_is_refused(workshop):
    (workshop.folder / "image.gin").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="^image.gin: cannot be read as a gin file"):
        read(["image.gin"], [], [])
