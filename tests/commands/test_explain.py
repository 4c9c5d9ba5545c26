from pathlib import Path

import pytest
from PIL import Image

from plugins.partitions.pyramid import Pyramid
from registry import AttentionSite, HeadGroup, load_plugins
from stylenat import receptive_field
from stylenat.commands.run import main
from stylenat.commands.tables import print_listing


def dots(picture: str) -> int:
    return sum(bin(ord(character) - 0x2800).count("1") for character in picture if "\u2800" <= character <= "\u28ff")


def test_a_query_sees_kernel_squared_tokens_of_its_own_residue_class():
    for query in receptive_field.queries(32):
        tokens = receptive_field.seen(HeadGroup(1, 5, 3), 32, query)
        assert len(tokens) == 25 and query in tokens
        assert {((row - query[0]) % 3, (column - query[1]) % 3) for row, column in tokens} == {(0, 0)}


def test_the_terminal_picture_has_a_dot_for_every_token_seen():
    site = AttentionSite(32, 2, 64)
    picture = receptive_field.terminal_picture(lambda site: [HeadGroup(2, 3, 2)], [site])
    assert "32x32, 2 heads" in picture and "3x3, dilation 2" in picture
    assert dots(picture) == 2 * 9


def test_blocks_that_differ_are_drawn_apart_and_alike_ones_once():
    sites = receptive_field.published_sites(16)
    alike = receptive_field.groups_by_site(Pyramid(), sites)
    assert [title for title, _, _ in alike] == ["8x8, 16 heads", "16x16, 16 heads"]
    apart = receptive_field.groups_by_site(lambda s: [HeadGroup(s.num_heads, 3 + 2 * s.block)], sites)
    assert [title.rpartition(", ")[2] for title, _, _ in apart] == ["block 0", "block 1"] * 2


def test_a_site_that_a_partition_cannot_take_shows_the_reason():
    sites = receptive_field.published_sites(16)
    picture = receptive_field.terminal_picture(lambda site: [HeadGroup(site.num_heads, 9)], sites)
    assert "does not fit: kernel_size x dilation exceeds 8" in picture and "9x9, dilation 1" in picture


def test_explain_prints_docstring_parameters_and_picture(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    bind = ["--bind", "partition.pyramid.kernel_size = 3"]
    assert main(["--explain", "partition.pyramid", "--picture", "pyramid.png", *bind]) == 0
    out = capsys.readouterr().out
    assert "The paper's" in out and "partition.pyramid.kernel_size" in out and "3x3, dilation 2" in out
    with Image.open("pyramid.png") as picture:
        colours = picture.convert("RGB").getcolors(2**24) or []
    for wanted in ((87, 181, 232), (230, 158, 0), (0, 158, 115)):  # the keys of either query, and of both
        near = [n for n, c in colours if max(abs(a - b) for a, b in zip(c, wanted, strict=True)) <= 2]
        assert sum(near) > 1000


def test_explain_takes_an_experiments_parameters(capsys):
    assert main(["--explain", "partition.split", "--gin", "church256.gin", "--bind", "split.kernel_size = 5"]) == 0
    assert "5x5, dilation 32" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--explain", "partition.pyramyd"], "did you mean 'partition.pyramid'"),
        (["--explain", "partition.table", "--picture", "x.png"], "needs 'dilations': add --bind"),
        (["--explain", "loss.hinge", "--picture", "x.png"], "--picture draws partitions"),
        (["--explain", "partition.split", "--picture", "nowhere/x.png"], "cannot write the picture"),
        (["--explain", "partition.split", "--bind", "split.kernel_size = 'x'"], "takes int"),
    ],
)
def test_bad_requests_get_one_line_and_leave_nothing(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    error = capsys.readouterr().err.strip()
    assert message in error and "\n" not in error
    assert not list(Path().iterdir())


def test_what_must_be_bound_is_explained_without_a_picture(capsys):
    assert main(["--explain", "partition.table"]) == 0
    out = capsys.readouterr().out
    assert "must be bound" in out and "no picture: partition.table needs 'dilations'" in out


def test_the_listing_has_types_defaults_and_the_plugins_that_did_not_load(capsys):
    from registry import Origin, Suspect
    from stylenat.commands._listing import listing

    registry = load_plugins()
    registry.suspects.append(Suspect("bad", Origin("bad", "0.3"), "RuntimeError: [no] way", ""))
    print_listing(listing(registry, "partition"), registry.suspects)
    out = capsys.readouterr().out
    assert "splits the heads of a layer" in out and "bound as @partition.NAME(); Protocol stylenat.interfaces:P" in out
    assert "kernel_size: int (at least 1) = 7" in out and "stylenat 0.1.0" in out
    assert "did not load: bad (bad 0.3): RuntimeError: [no] way" in out
