"""``tools/serve.py`` without a browser: what the page shows, and what the command refuses."""

import socket
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from weights_folders import weights_folder

import stylenat
from registry import UserError
from stylenat.classes import Classes
from stylenat.commands import serve
from stylenat.commands._viewer import Choice, Viewer
from stylenat.commands.attention_maps import of_sample
from stylenat.trained import opened

CLASSES = Classes((3, 5), ("<b>cats</b>", "dogs"))


@pytest.fixture(scope="module")
def styled(tmp_path_factory):
    return weights_folder(tmp_path_factory.mktemp("style") / "model")


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """Without attention that shows its maps, without classes."""
    return weights_folder(tmp_path_factory.mktemp("r3gan") / "model", "r3gan_quickstart.gin")


def conditional(folder: Path) -> Path:
    return weights_folder(folder, "stylegan2_quickstart.gin", "generator.stylegan2.num_classes = 2", classes=CLASSES)


def test_an_image_is_the_sample_of_that_seed_psi_and_class(styled, tmp_path):
    viewer, model = Viewer(opened(styled)), stylenat.load(styled)
    assert torch.equal(viewer.image(Choice(seed=5)), model.sample(5)[0])
    assert torch.equal(viewer.image(Choice(seed=5, psi=0.5)), model.sample(5, psi=0.5)[0])
    labelled = conditional(tmp_path / "model")
    viewer, model = Viewer(opened(labelled)), stylenat.load(labelled)
    for number in (None, 0, 1):
        drawn = viewer.image(Choice(seed=2, psi=0.7, number=number))
        assert torch.equal(drawn, model.sample(2, psi=0.7, classes=number)[0])
    with pytest.raises(UserError, match="no class 2"):
        viewer.image(Choice(number=2))


def test_mixing_moves_the_chosen_styles_to_the_second_seeds(styled):
    viewer, model = Viewer(opened(styled)), stylenat.load(styled)
    styles = model.mapping(model.latents([3, 8]))[:, None].repeat(1, model.num_styles, 1)
    expected = styles[0].clone()
    expected[1:3] = 0.25 * styles[0, 1:3] + 0.75 * styles[1, 1:3]
    drawn = viewer.image(Choice(seed=3, other=8, amount=0.75, first=1, last=2)).float()
    pixels = model.synthesis(expected[None])[0].detach()
    assert (drawn - pixels.clamp(0, 255)).abs().max() <= 0.51
    assert not torch.equal(drawn, model.sample(3)[0].float())
    with pytest.raises(UserError, match="first mixed style is 2, and the last 1"):
        viewer.image(Choice(amount=1, first=2, last=1))


def test_attention_is_of_the_shown_image(styled):
    found = opened(styled)
    viewer = Viewer(found)
    image, groups = viewer.attention(Choice(seed=4), (3, 9))
    expected, same = of_sample(found.sampler(1.0, 1), 4, (3, 9))
    assert torch.equal(image, expected)
    assert all(torch.equal(a.maps, b.maps) and a.query == b.query for a, b in zip(groups, same, strict=True))
    assert list(viewer.layers.values()) == sorted(viewer.layers.values()) and viewer.layers
    mixture = Choice(seed=4, amount=1, last=5)
    image, moved = viewer.attention(mixture, (3, 9))
    assert torch.equal(image, viewer.image(mixture))
    assert any(not torch.equal(a.maps, b.maps) for a, b in zip(groups, moved, strict=True))


def test_a_walk_goes_to_the_second_seed_and_back(styled, plain):
    for folder in (styled, plain):
        viewer, model = Viewer(opened(folder)), stylenat.load(folder)
        frames = list(viewer.walk(Choice(seed=2, other=6), 3))
        assert len(frames) == 6
        ends = model.sample([2, 6]).int()
        for drawn, end in ((frames[0], ends[0]), (frames[3], ends[1])):
            assert (drawn.int() - end).abs().max() <= 1


def test_the_page_has_the_controls_that_the_generator_has_a_use_for(styled, plain, tmp_path):
    pytest.importorskip("gradio", reason="Gradio is not installed")
    from stylenat.commands._page import page

    def labels(folder: Path) -> set[str]:
        config = page(Viewer(opened(folder)), "title").get_config_file()
        assert config["analytics_enabled"] is False
        return {part["props"].get("label") for part in config["components"]} - {None}

    always, with_styles = {"Seed", "Second seed"}, {"Truncation psi", "Style mixing, share", "from style"}
    assert always | with_styles <= labels(styled) and "Class" not in labels(styled)
    assert any(label.startswith("Attention") for label in labels(styled))
    assert always | with_styles | {"Class"} <= labels(conditional(tmp_path / "model"))
    assert not any(label.startswith("Attention") for label in labels(plain))
    assert "Class" not in labels(plain)


def test_a_mistake_on_the_page_is_its_line(styled):
    gradio = pytest.importorskip("gradio", reason="Gradio is not installed")
    from stylenat.commands._page import page

    handlers = {function.name: function.fn for function in page(Viewer(opened(styled)), "title").fns.values()}
    for controls, message in [
        ((None, 1.0, 1, 0, 0, 2), "Seed takes a number from 0"),
        ((0, 1.0, None, 0, 0, 2), "Second seed takes a number"),
        ((0, 1.0, 1, 0.5, 3, 2), "the first mixed style is 3, and the last 2"),
    ]:
        with pytest.raises(gradio.Error, match=message) as error:
            handlers["draw"](None, 0, *controls)
        assert not error.value.print_exception
        if message.startswith("Se"):
            with pytest.raises(gradio.Error, match=message):
                handlers["walk"](15, *controls)


def test_bad_input_is_one_line(styled, capsys, monkeypatch):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        cases = [
            ([str(styled), "--port", port], f"port {port} is in use; choose another --port"),
            ([str(styled), "--port", "65536"], "--port must be 0 to 65535"),
            ([str(styled), "--port", "web"], "argument --port: invalid int value"),
            (["nothing", "--port", "0"], "nothing"),
        ]
        with monkeypatch.context() as with_gradio:
            with_gradio.setattr(serve, "find_spec", lambda name: object())
            for argv, message in cases:
                assert serve.main(argv) == 2
                error = capsys.readouterr().err
                assert message in error and error.count("\n") == 1
    monkeypatch.setattr(serve, "find_spec", lambda name: None if name == "gradio" else find_spec(name))
    assert serve.main([str(styled)]) == 2
    assert "pip install 'stylenat[serve]'" in capsys.readouterr().err
