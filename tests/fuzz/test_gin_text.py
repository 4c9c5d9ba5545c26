"""Whatever a gin file or a binding says, it loads or is answered with one line."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from registry import UserError, load_experiment, load_plugins
from stylenat.commands._command import CORE, experiments_folder

FUZZ = settings.get_profile("fuzz")
QUICKSTART = (experiments_folder() / "quickstart.gin").read_text(encoding="utf-8")
LINES = [line for line in QUICKSTART.splitlines() if line and not line.startswith("#")]
SIGNS = ["@", "%", "()", "(", ")", "[", "]", "{", "}", "=", ".", "/", ",", "\n", " ", "'", '"', "\\", "#", "é", "\0"]
VALUES = ["None", "True", "1e999", "-1", "0", "10**9", "nan", "lambda: 0", "9" * 5000, "(" * 300, "[" * 300 + "]" * 300]
WORDS = ["include", "import os", "gin.REQUIRED", "%gin.REQUIRED", "@train", "train", "train.seed", "@generator.style",
         "@block.hydra()", "scope/", "a.b.c.d = 1", "%SIDE", "SIDE = %SIDE", "@gin.singleton()"]  # fmt: skip
TOKENS = SIGNS + VALUES + WORDS


@st.composite
def edited(draw):
    """The quickstart's text with a few places replaced."""
    text = QUICKSTART
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(text)))
        length = draw(st.sampled_from([0, 1, 2, 5, 40]))
        text = text[:start] + draw(st.sampled_from(TOKENS) | st.text(max_size=8)) + text[start + length :]
    return text


@st.composite
def lines(draw):
    """Lines of the quickstart with other values."""
    value = st.sampled_from(TOKENS) | st.text(max_size=12) | st.integers().map(str) | st.floats().map(repr)
    chosen = draw(st.lists(st.sampled_from(LINES), max_size=4))
    return QUICKSTART + "\n".join(f"{line.partition('=')[0]}= {draw(value)}" for line in chosen)


def load(registry, tmp_path, text, bindings=()):
    (tmp_path / "fuzz.gin").write_text(text, encoding="utf-8", errors="surrogateescape")
    try:
        experiment = load_experiment(registry, [tmp_path / "fuzz.gin"], bindings, search_path=[experiments_folder()])
    except UserError as error:
        assert len(str(error).splitlines()) == 1, str(error)
        return None
    return experiment


@pytest.fixture(scope="module")
def registry():
    return load_plugins([], core=CORE)


@given(text=edited() | lines() | st.text(max_size=200))
@settings(FUZZ)
def test_gin_text_loads_or_is_refused_in_one_line(registry, tmp_path, text):
    experiment = load(registry, tmp_path, text)
    if experiment is not None and experiment.name:
        assert not experiment.differences(experiment.operative_text())


@given(binding=st.sampled_from(LINES).flatmap(lambda line: st.text(max_size=20).map(lambda t: line + t)) | st.text())
@settings(FUZZ)
def test_a_binding_loads_or_is_refused_in_one_line(registry, tmp_path, binding):
    load(registry, tmp_path, QUICKSTART, [binding])


@given(text=edited() | st.text(max_size=200))
@settings(FUZZ)
def test_a_run_folders_config_is_compared_whatever_it_says(registry, tmp_path, text):
    experiment = load(registry, tmp_path, QUICKSTART)
    assert all(isinstance(line, str) for line in experiment.differences(text))
