"""Persistent pickles are read as data: nothing that they name is imported or called, whatever they hold."""

import io
import pickle
import pickletools
import struct
import sys
from pathlib import Path

import pytest
import torch
from persistent_pickles import EasyDict, network, pickled, small

from registry import UserError
from stylenat import weights
from stylenat.persistent_pickle import Module, Refused, is_plain_pickle, read
from stylenat.pickle_calls import LEGACY_MAGIC
from stylenat.pickle_data import OPCODES, Machine


@pytest.fixture
def written(tmp_path):
    def write(data, name="x.pkl"):
        (tmp_path / name).write_bytes(data)
        return tmp_path / name

    return write


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_tensors_and_plain_arguments_are_read_by_path_and_nothing_is_imported(written, protocol):
    modules = set(sys.modules)
    contents = read(written(small(protocol)))
    assert not {name for name in set(sys.modules) - modules if name.startswith(("torch_utils", "dnnlib", "net"))}
    assert sorted(contents.networks) == ["D", "G_ema"]
    assert sorted(contents.others) == ["cur_nimg", "training_set_kwargs"]
    g, d = contents.networks["G_ema"], contents.networks["D"]
    assert sorted(g.tensors) == ["a.filter", "a.weight"]  # As state_dict: no temporary buffer.
    assert torch.equal(g.tensors["a.weight"], torch.arange(6.0).reshape(2, 3).t())
    assert d.tensors["b"].dtype == torch.float16
    assert g.modules == {"": Module("Generator", {"z_dim": 3, "layers": [1, 2]}), "a": Module("net.layers.Plain", {})}


def test_a_checkpoint_of_pickled_networks_is_read_as_any_other(written):
    stored = weights.read(written(small()))
    assert sorted(stored.states) == ["discriminator", "ema"]
    assert sorted(stored.skipped) == ["cur_nimg", "training_set_kwargs"]
    assert stored.modules["ema"][""].class_name == "Generator"
    alone = weights.read(written(pickled(network({"w": torch.ones(2)}))))
    assert list(alone.states) == [""] and torch.equal(alone.states[""]["w"], torch.ones(2))


def test_what_torch_save_wrote_is_not_taken_for_one(written):
    for zipped in (True, False):
        buffer = io.BytesIO()
        torch.save({"a": torch.ones(1)}, buffer, _use_new_zipfile_serialization=zipped)
        assert not is_plain_pickle(written(buffer.getvalue()))
    assert is_plain_pickle(written(small()))


class Calls:
    """An object whose pickle calls a function."""

    def __init__(self, function, *arguments):
        self.made_of = function, arguments

    def __reduce__(self):
        return self.made_of


@pytest.mark.parametrize("function, arguments", [
    (Path.touch, (Path("executed"),)), (exec, ("open('executed', 'w')",)), (getattr, (Path, "touch")),
    (torch.load, ("other.pt",)), (__import__, ("os",)),
])  # fmt: skip
@pytest.mark.parametrize("protocol", [2, 4])
def test_calls_are_refused_in_one_line_and_never_made(written, monkeypatch, tmp_path, function, arguments, protocol):
    monkeypatch.chdir(tmp_path)
    path = written(pickled({"G": network({"w": torch.ones(1)}), "x": Calls(function, *arguments)}, protocol))
    with pytest.raises(UserError, match="which could run code") as raised:
        weights.read(path)
    assert len(str(raised.value).splitlines()) == 1 and not Path("executed").exists()


def test_a_class_that_is_named_is_data(written, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = b"\x80\x02}X\x01\x00\x00\x00Gcposix\nsystem\n)\x81X\x05\x00\x00\x00touchbs."
    with pytest.raises(UserError, match="it has G"):
        weights.read(written(data))


OTHER_OPCODES = {
    "INST": b"os\nsystem\n", "OBJ": b"", "EXT1": b"\x01", "EXT2": b"\x01\x00", "EXT4": b"\x01\x00\x00\x00",
    "PERSID": b"a\n", "NEXT_BUFFER": b"", "READONLY_BUFFER": b"", "DUP": b"", "GET": b"0\n", "PUT": b"0\n",
    "STRING": b"'a'\n", "UNICODE": b"a\n", "BINSTRING": b"\x01\x00\x00\x00a",
}  # fmt: skip


@pytest.mark.parametrize("opcode", OTHER_OPCODES)
def test_other_opcodes_are_refused(written, opcode):
    (code,) = (op.code.encode("latin1") for op in pickletools.opcodes if op.name == opcode)
    data = b"\x80\x02](" + code + OTHER_OPCODES[opcode] + b"."
    with pytest.raises(Refused, match="which is not accepted"):
        read(written(data))


def storage(count=3, declared=None, key="0", kind="FloatStorage", length=12):
    """What PyTorch writes of a storage in a pickle, with sizes that need not agree."""
    parts = [pickle.dumps(x, 2) for x in (LEGACY_MAGIC, 1001, {"little_endian": True})]
    text = lambda s: b"X" + struct.pack("<I", len(s)) + s.encode()  # noqa: E731
    identity = b"(" + text("storage") + b"ctorch\n" + kind.encode() + b"\n" + text("0") + text("cpu")
    parts += [b"\x80\x02" + identity + b"J" + struct.pack("<i", count) + b"NtQ."]
    parts += [pickle.dumps([key], 2), struct.pack("<q", count if declared is None else declared), bytes(length)]
    return b"".join(parts)


def tensor_pickle(data, offset=0, shape=(3,), stride=(1,), times=1):
    """A network whose one parameter is the tensor."""
    loaded = b"ctorch.storage\n_load_from_bytes\n" + b"B" + struct.pack("<I", len(data)) + data + b"\x85R"
    numbers = b"".join(pickle.dumps(x, 2)[2:-1] for x in (offset, tuple(shape), tuple(stride)))
    tensor = b"ctorch._utils\n_rebuild_tensor_v2\n(" + loaded + numbers + b"\x89}tR"
    state = b"}(X\x08\x00\x00\x00_modules}X\x0b\x00\x00\x00_parameters}X\x01\x00\x00\x00w" + tensor + b"su"
    return b"\x80\x03}X\x01\x00\x00\x00Gcnet\nNet\n)\x81" + state + b"bs."


def test_a_storage_is_read_if_its_sizes_agree(written):
    contents = read(written(tensor_pickle(storage())))
    assert torch.equal(contents.networks["G"].tensors["w"], torch.zeros(3))


@pytest.mark.parametrize("data, message", [
    (tensor_pickle(storage(count=2**30)), "another size"),
    (tensor_pickle(storage(declared=4)), "another size"),
    (tensor_pickle(storage(key="1")), "another size"),
    (tensor_pickle(storage(length=8)), "another size"),
    (tensor_pickle(storage(kind="QInt8Storage")), "unknown kind"),
    (tensor_pickle(b"PK\x03\x04"), "did not write"),
    (tensor_pickle(storage(), shape=(4,)), "more than its storage holds"),
    (tensor_pickle(storage(), offset=1), "more than its storage holds"),
    (tensor_pickle(storage(), shape=(2**20, 2**20), stride=(0, 0)), "more than the file holds"),
    (tensor_pickle(storage(), shape=(2**30, 2**30), stride=(0, 0)), "declares a tensor of shape"),
    (tensor_pickle(storage(), shape=(-1,)), "without a storage or a shape"),
    (tensor_pickle(storage(), shape=(1, 1)), "declares a tensor of shape"),
])  # fmt: skip
def test_a_tensor_that_declares_more_than_there_is_is_refused(written, data, message):
    with pytest.raises(Refused, match=message):
        read(written(data))


def test_code_within_a_storage_is_refused(written, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    parts = [pickle.dumps(x, 2) for x in (LEGACY_MAGIC, 1001, {})]
    data = b"".join(parts) + b"\x80\x02cposix\nsystem\nX\x0e\x00\x00\x00touch executed\x85R."
    with pytest.raises(Refused, match="posix.system, which could run code"):
        read(written(tensor_pickle(data)))
    assert not Path("executed").exists()


def nested(depth):
    module = network({"w": torch.ones(1)})
    for _ in range(depth):
        outer = network({})
        outer.add_module("m", module)
        module = outer
    return module


def test_depth_and_number_of_modules_are_bounded(written):
    assert len(read(written(pickled({"G": nested(60)}))).networks["G"].modules) == 61
    with pytest.raises(Refused, match="nested deeper"):
        read(written(pickled({"G": nested(70)})))
    module = network({})
    for _ in range(30):  # Each contains the one before twice: 2 ** 30 modules in a small file.
        outer = network({})
        outer.add_module("a", module)
        outer.add_module("b", module)
        module = outer
    with pytest.raises(Refused, match="more than 100000 modules"):
        read(written(pickled({"G": module})))


def test_arguments_that_contain_each_other_many_times_are_bounded(written):
    argument = [1]
    for _ in range(7):
        argument = [argument] * 10
    with pytest.raises(Refused, match="too many"):
        read(written(pickled({"G": network({}, options=argument)})))
    long = read(written(pickled({"G": network({}, text="a" * 10_000)})))
    assert len(long.networks["G"].modules[""].arguments["text"]) == 1000


def test_a_storage_cannot_be_read_many_times(written):
    data = storage(count=300, length=1200)
    again = b"\x80\x03](" + b"B" + struct.pack("<I", len(data)) + data + b"q\x000"
    again += b"ctorch.storage\n_load_from_bytes\nh\x00\x85R" * 3 + b"e."
    with pytest.raises(Refused, match="many times"):
        read(written(again))


def test_the_number_of_opcodes_and_of_waiting_values_is_bounded():
    with pytest.raises(Refused, match="opcodes"):
        Machine({}).read(io.BytesIO(b"\x80\x02" + b"N0" * OPCODES))
    with pytest.raises(Refused, match="waiting"):
        Machine({}).read(io.BytesIO(b"\x80\x02" + b"N" * 200_000))


DAMAGED = [
    b"\x80\x04", b"\x80\x02.", b"\x80\x02h\x07.", b"\x80\x02)R.", b"\x80\x02}(]Nu.", b"\x80\x02N.",
    b"\x80\x04\x8d" + b"\xff" * 8, pickled({"x": 1}), pickled([1]),
]  # fmt: skip


@pytest.mark.parametrize("data", DAMAGED)
def test_damaged_pickles_and_those_without_networks_are_one_line(written, data):
    with pytest.raises(UserError) as raised:
        weights.read(written(data))
    assert len(str(raised.value).splitlines()) == 1


def test_dictionaries_of_the_pickles_own_classes_are_dictionaries(written):
    contents = read(written(pickled(EasyDict(G=network({"w": torch.ones(1)})))))
    assert list(contents.networks) == ["G"]
