"""Whatever a pickle holds, it is read or refused in one line, and nothing in it runs."""

import pickletools
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from persistent_pickles import small

from registry import UserError
from stylenat import weights

FUZZ = settings.get_profile("fuzz")
GOOD = {protocol: small(protocol) for protocol in (2, 4)}
PIECES = [
    b"(", b")", b"]", b"}", b"N", b"t", b"\x85", b"\x86", b"\x87", b"R", b"\x81", b"b", b"u", b"s", b"e", b"a",
    b"h\x00", b"q\x00", b"\x94", b"K\x03", b"J\xff\xff\xff\x7f", b"X\x01\x00\x00\x00G", b"X\x08\x00\x00\x00_modules",
    b"X\x0b\x00\x00\x00_parameters", b"cposix\nsystem\n", b"ctorch._utils\n_rebuild_tensor_v2\n",
    b"ctorch.storage\n_load_from_bytes\n", b"ccollections\nOrderedDict\n", b"0", b"1", b"C\x02ab", b"Q",
    b"ctorch_utils.persistence\n_reconstruct_persistent_obj\n",
]  # fmt: skip


@pytest.fixture(autouse=True)
def no_imports():
    """Nothing that pickles name is imported."""
    before = {"torch_utils", "dnnlib", "net"} & set(sys.modules)
    yield
    assert {"torch_utils", "dnnlib", "net"} & set(sys.modules) == before == set()


def read_or_refused(path, data):
    path.write_bytes(data)
    try:
        weights.read(path)
    except UserError as error:
        assert len(str(error).splitlines()) == 1, str(error)


@given(
    protocol=st.sampled_from([2, 4]),
    edits=st.lists(
        st.tuples(st.integers(0, 2**20), st.binary(max_size=3), st.integers(0, 4)), min_size=1, max_size=6
    ),
)  # fmt: skip
@settings(FUZZ)
def test_damaged_bytes_are_read_or_refused(tmp_path, protocol, edits):
    data = bytearray(GOOD[protocol])
    for place, new, dropped in edits:
        at = place % len(data)
        data[at : at + dropped] = new
    read_or_refused(tmp_path / "x.pkl", bytes(data))


@given(pieces=st.lists(st.sampled_from(PIECES), max_size=40))
@settings(FUZZ)
def test_any_sequence_of_opcodes_is_read_or_refused(tmp_path, pieces):
    read_or_refused(tmp_path / "x.pkl", b"\x80\x04" + b"".join(pieces) + b".")


@given(cut=st.lists(st.integers(0, 10_000), max_size=5), protocol=st.sampled_from([2, 4]))
@settings(FUZZ)
def test_opcodes_that_are_left_out_are_read_or_refused(tmp_path, cut, protocol):
    good = GOOD[protocol]
    starts = [position for _, _, position in pickletools.genops(good)] + [len(good)]
    left_out = {number % (len(starts) - 2) + 1 for number in cut}
    kept = [good[a:b] for i, (a, b) in enumerate(zip(starts, starts[1:], strict=False)) if i not in left_out]
    read_or_refused(tmp_path / "x.pkl", b"".join(kept))
