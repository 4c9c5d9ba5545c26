"""Limits of the shell are named before something fails by them."""

import resource

import pytest

from stylenat.commands import _limits
from stylenat.commands._limits import name_low_limits


@pytest.mark.parametrize(("option", "kibibytes"), [("-v", 2**20), ("-d", 2**20), ("-s", 64)])
def test_a_low_limit_is_named_with_what_raises_it(option, kibibytes, monkeypatch, capsys):
    (low,) = [limit for name, limit, _ in _limits.LIMITS if name == option]
    infinity = resource.RLIM_INFINITY
    monkeypatch.setattr(
        resource, "getrlimit", lambda limit: (kibibytes * 1024, infinity) if limit == low else (infinity, infinity)
    )
    name_low_limits()
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"note: `ulimit {option}` allows this process {kibibytes} KiB")
    assert f"raise the limit (`ulimit {option} " in line


def test_usual_limits_are_not_named(monkeypatch, capsys):
    usual = {resource.RLIMIT_STACK: 8 * 2**20}
    monkeypatch.setattr(resource, "getrlimit", lambda limit: (usual.get(limit, resource.RLIM_INFINITY),) * 2)
    name_low_limits()
    assert capsys.readouterr().err == ""
