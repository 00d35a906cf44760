"""The data of examples/notmnist.py: its fonts, its cache, its guarded unpickler."""

import io
import os
import pickle
import string
import struct
import sys
import tracemalloc
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

# The examples are scripts, not a package: Python finds them by their directory.
# At the end: examples/distributed.py is not the package `distributed`.
sys.path.append(str(Path(__file__).parents[2] / "examples"))

import glyphs

FONTS = glyphs.TRAIN_FONTS + glyphs.VALID_FONTS + glyphs.TEST_FONTS


def small(**kwargs):
    """A few letters of one font per split, not cached."""
    arguments = {
        "train_fonts": ["DejaVuSans"],
        "valid_fonts": ["STIXGeneral"],
        "test_fonts": ["cmr10"],
        "per_font": 20,
        "cache": False,
    }
    return glyphs.load_glyphs(**{**arguments, **kwargs})


def same(one, other):
    """Whether two dicts hold the same arrays."""
    return one.keys() == other.keys() and all(
        np.array_equal(one[key], other[key]) for key in one
    )


# ---------------------------------------------------------------------- letters


def test_letters_look_as_the_assignments():
    data = small()
    assert set(data) == {f"{part}_{s}" for part in "xy" for s in glyphs.SPLITS}
    for split in glyphs.SPLITS:
        x, y = data[f"x_{split}"], data[f"y_{split}"]
        assert x.shape == (20, 28, 28) and x.dtype == "float32"
        assert x.min() >= -0.5 and x.max() <= 0.5
        assert y.dtype == "int64" and np.bincount(y).tolist() == [2] * 10


def test_other_letters_are_labelled_in_their_order():
    data = small(letters="XYZ", per_font=30, noise=0)
    assert np.bincount(data["y_train"]).tolist() == [10, 10, 10]
    # The only one of the three that is empty on the left and on the right of its foot.
    foot = data["x_train"][:, 18:23] > 0
    widths = [foot[data["y_train"] == label].sum(axis=2).mean() for label in range(3)]
    assert np.argmin(widths) == 1


@pytest.mark.parametrize("font", FONTS)
def test_every_font_has_all_capital_letters(font):
    path = glyphs.font_path(font)
    images = [
        glyphs.render_letter(path, letter, np.random.default_rng(0))
        for letter in string.ascii_uppercase
    ]
    # A missing glyph is blank, or the same box for every letter.
    assert all((image > 128).sum() > 15 for image in images)
    assert len({image.tobytes() for image in images}) == 26


def test_letters_vary_in_size_place_and_angle():
    path, rng = glyphs.font_path("DejaVuSans"), np.random.default_rng(0)
    images = [glyphs.render_letter(path, "I", rng) > 64 for _ in range(50)]
    heights = [np.ptp(np.nonzero(image.any(axis=1))) for image in images]
    places = [np.nonzero(image)[1].mean() for image in images]
    assert max(heights) - min(heights) >= 5
    assert max(places) - min(places) >= 3


def test_noise_is_what_was_asked_for():
    assert np.all(small(noise=0)["x_train"][:, 0, 0] == -0.5)
    # Of noise around black, the half above is seen and the half below is clipped.
    corner = small(noise=0.1, per_font=2000)["x_train"][:, :2, 0] + 0.5
    assert np.sqrt(2 * np.mean(corner**2)) == pytest.approx(0.1, rel=0.1)


def test_splits_share_no_font_and_no_family():
    splits = glyphs.TRAIN_FONTS, glyphs.VALID_FONTS, glyphs.TEST_FONTS
    families = [{font[:2] for font in split} for split in splits]
    assert families == [{"De"}, {"ST"}, {"cm"}]
    assert len(set(FONTS)) == len(FONTS)


@pytest.mark.parametrize("shared", ["valid_fonts", "test_fonts"])
def test_a_font_in_two_splits_is_refused(shared):
    with pytest.raises(ValueError, match=r"repeated: .*DejaVuSans"):
        small(**{shared: ["DejaVuSans"]})


def test_unknown_and_missing_fonts_are_refused():
    with pytest.raises(ValueError, match="Received: 'Comic'"):
        small(train_fonts=["Comic"])
    with pytest.raises(ValueError, match="at least one"):
        small(test_fonts=[])


def test_a_path_is_a_font_too():
    path = glyphs.font_path("cmr10")
    assert same(small(test_fonts=[path]), small(test_fonts=["cmr10"]))


def test_the_seed_decides():
    assert same(small(seed=3), small(seed=3))
    assert not same(small(seed=3), small(seed=4))


def test_one_split_does_not_depend_on_another():
    other = small(train_fonts=["DejaVuSerif", "DejaVuSansMono"])
    assert np.array_equal(small()["x_test"], other["x_test"])


# ------------------------------------------------------------------------ cache


def test_cache_is_read_back(tmp_path, monkeypatch):
    first = small(cache=tmp_path)
    monkeypatch.setattr(glyphs, "render_fonts", None)
    assert same(first, small(cache=tmp_path))
    assert same(first, small(cache=str(tmp_path)))


def test_cache_is_the_users(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    small(cache=True)
    assert len(list(tmp_path.glob("keras_l2reg/glyphs-*.npz"))) == 1


@pytest.mark.parametrize(
    "change",
    [{"seed": 1}, {"noise": 0.1}, {"per_font": 10}, {"test_fonts": ["cmb10"]}],
    ids=lambda change: next(iter(change)),
)
def test_cache_tells_arguments_apart(tmp_path, change):
    small(cache=tmp_path)
    assert same(small(cache=tmp_path, **change), small(**change))
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("damage", ["empty", "cut", "flipped", "text", "other"])
def test_a_corrupt_cache_is_rendered_anew(tmp_path, damage):
    first = small(cache=tmp_path)
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    other = io.BytesIO()
    np.savez(other, something=np.zeros(3))
    middle = len(whole) // 2
    path.write_bytes(
        {
            "empty": b"",
            "cut": whole[:middle],
            "flipped": whole[:middle] + b"\xff\x00\xff" + whole[middle + 3 :],
            "text": b"not an archive",
            "other": other.getvalue(),
        }[damage]
    )
    assert same(first, small(cache=tmp_path))
    assert path.read_bytes() == whole
    assert list(tmp_path.iterdir()) == [path]


def test_a_directory_that_cannot_be_written_costs_nothing(tmp_path):
    (tmp_path / "file").touch()
    assert same(small(), small(cache=tmp_path / "file"))


def test_a_failed_write_leaves_nothing_behind(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    assert same(small(), small(cache=tmp_path))
    assert list(tmp_path.iterdir()) == []


# -------------------------------------------------------------- notMNIST.pickle


def notmnist():
    """A small file's content, as the assignment's notebook makes it."""
    rng = np.random.default_rng(0)
    content = {}
    for split, count in (("train", 7), ("valid", 3), ("test", 4)):
        images = rng.uniform(-0.5, 0.5, (count, 28, 28)).astype("float32")
        content[f"{split}_dataset"] = images
        content[f"{split}_labels"] = rng.integers(0, 10, count).astype("int32")
    return content


def read(tmp_path, pickled):
    """What `read_notmnist` makes of these bytes."""
    path = tmp_path / "notMNIST.pickle"
    path.write_bytes(pickled)
    return glyphs.read_notmnist(path)


def check(data):
    """`data` is `notmnist()`, as the examples want it."""
    for split in glyphs.SPLITS:
        x, y = data[f"x_{split}"], data[f"y_{split}"]
        assert x.dtype == "float32" and y.dtype == "int64"
        np.testing.assert_array_equal(x, notmnist()[f"{split}_dataset"])
        np.testing.assert_array_equal(y, notmnist()[f"{split}_labels"])


class Python2Pickler(pickle._Pickler):
    """Writes text and bytes alike as Python 2 wrote its `str`."""

    def save_str(self, value):
        raw = value.encode("latin1") if isinstance(value, str) else value
        self.write(pickle.BINSTRING + struct.pack("<i", len(raw)) + raw)
        self.memoize(value)

    dispatch: ClassVar = {**pickle._Pickler.dispatch, str: save_str, bytes: save_str}


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_reads_every_protocol(tmp_path, protocol):
    check(read(tmp_path, pickle.dumps(notmnist(), protocol)))


def test_reads_python_2_and_old_numpy(tmp_path):
    file = io.BytesIO()
    Python2Pickler(file, 2).dump(notmnist())
    check(read(tmp_path, file.getvalue().replace(b"numpy._core", b"numpy.core")))


def test_reads_other_layouts(tmp_path):
    content = notmnist()
    content["train_dataset"] = np.asfortranarray(content["train_dataset"])
    content["test_dataset"] = content["test_dataset"].astype(">f4")
    content["note"], content["mean"] = "more than is needed", np.zeros((28, 28))
    check(read(tmp_path, pickle.dumps(content)))


class Call:
    """Pickles as a call of `function`, with a state for what it returns."""

    def __init__(self, function, *args, state=None):
        self.reduced = (function, args) if state is None else (function, args, state)

    def __reduce__(self):
        return self.reduced


def crafted_array(dtype, state):
    """An array whose pickled dtype claims `state`, over bytes of the file's choice."""
    kind = Call(np.dtype, dtype, False, True, state=state)
    start = np.zeros(0).__reduce__()[0]
    bytes_of_array = (1, (4,), kind, False, b"\x41" * 32)
    return Call(start, np.ndarray, (0,), b"b", state=bytes_of_array)


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
@pytest.mark.parametrize("protocol", [0, 2, 5])
@pytest.mark.parametrize(
    "attack",
    [
        lambda marker: Call(os.system, f"touch {marker}"),
        lambda marker: Call(exec, f"open({str(marker)!r}, 'w')"),
        lambda marker: Call(io.open, str(marker), "w"),
        lambda marker: Call(Path.touch, Path(marker)),
        lambda marker: Call(np.savetxt, str(marker), [1]),
        lambda marker: Call(np.memmap, str(marker), "uint8", "w+", 0, 1),
    ],
    ids=["os.system", "exec", "open", "touch", "savetxt", "memmap"],
)
def test_a_malicious_pickle_is_refused(tmp_path, attack, protocol):
    marker = tmp_path / "marker"
    content = {**notmnist(), "train_dataset": attack(marker)}
    with pytest.raises(pickle.UnpicklingError, match="Refused"):
        read(tmp_path, pickle.dumps(content, protocol))
    assert not marker.exists()
    pickle.loads(pickle.dumps(content, protocol))
    assert marker.exists()  # it would have worked


def test_numbers_that_would_be_pointers_are_refused(tmp_path):
    # numpy itself reads this one, and crashes when the numbers are looked at.
    fields = {"a": (np.dtype("O"), 0)}
    array = crafted_array("V8", (3, "|", None, ("a",), fields, 8, 1, 0))
    with pytest.raises(pickle.UnpicklingError, match="Refused"):
        read(tmp_path, pickle.dumps({**notmnist(), "train_dataset": array}, 2))


def asks_for(name):
    """The opcodes that put what stands in for `name` on the unpickler's stack."""
    module, _, name = name.rpartition(".")
    return f"c{module}\n{name}\n".encode()


def size(number, bytes_of_it=8):
    return number.to_bytes(bytes_of_it, "little")


ENCODE = asks_for("_codecs.encode")
LONG_TEXT = b"X" + size(1 << 20, 4) + b"a" * (1 << 20)
GREEDY = {
    "memory": b"\x80\x02Nr\xff\xff\xff\x07.",
    "memory as text": b"Np134217727\n.",
    "bytes": b"\x80\x04\x8e" + size(1 << 30) + b".",
    "bytearray": b"\x80\x05\x96" + size(1 << 30) + b".",
    "text": b"\x80\x04\x8d" + size(1 << 30) + b".",
    "frame": b"\x80\x04\x95" + size(1 << 30) + b".",
    "integer": b"\x80\x02\x8b" + size(1 << 30, 4) + b".",
    "sets": b"\x80\x04" + b"\x8f" * 400_000 + b".",
    "lists": b"\x80\x02" + b"]" * 1_000_000 + b".",
    "marks": b"\x80\x02" + b"(" * 1_000_000 + b".",
    # A megabyte, asked for as bytes three hundred times.
    "copies": b"\x80\x02"
    + (LONG_TEXT + b"q\x01X\x06\0\0\0latin1q\x020" + ENCODE + b"q\x000")
    + b"("
    + b"h\x00h\x01h\x02\x86R" * 300
    + b"l.",
    "fields": b"\x80\x02"
    + asks_for("numpy.dtype")
    + (b"X" + size(300_000, 4) + b"f4," * 100_000 + b"\x85R."),
}


@pytest.mark.parametrize("pickled", GREEDY.values(), ids=GREEDY)
def test_a_file_gets_little_more_memory_than_it_has(tmp_path, pickled):
    tracemalloc.start()
    try:
        with pytest.raises((pickle.UnpicklingError, ValueError)):
            read(tmp_path, pickled)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 5e6 + 8 * len(pickled)


STATES = {
    "dict": b"}X\x07\0\0\0__doc__K\x01s",
    "slots": b"N}X\x07\0\0\0__doc__K\x01s\x86",
}


@pytest.mark.parametrize("state", STATES.values(), ids=STATES)
@pytest.mark.parametrize("name", glyphs.ArrayUnpickler.known)
def test_what_stands_in_takes_no_attributes(tmp_path, name, state):
    stand_in = glyphs.ArrayUnpickler.known[name]
    before = stand_in.__doc__
    with pytest.raises(pickle.UnpicklingError, match="Refused: a state for"):
        read(tmp_path, b"\x80\x02" + asks_for(name) + state + b"b.")
    assert stand_in.__doc__ is before


@pytest.mark.parametrize("opcodes", [b")\x81", b")}\x92"], ids=["NEWOBJ", "NEWOBJ_EX"])
def test_what_was_not_made_as_an_array_is_refused(tmp_path, opcodes):
    array = asks_for("numpy.ndarray") + opcodes
    pickled = b"\x80\x04}X\x0d\0\0\0train_dataset" + array + b"s."
    with pytest.raises(pickle.UnpicklingError, match="Refused"):
        read(tmp_path, pickled)


def test_an_array_that_was_told_nothing_is_refused(tmp_path):
    array = asks_for("numpy.ndarray") + b")R"
    pickled = b"\x80\x04}X\x0d\0\0\0train_dataset" + array + b"s."
    with pytest.raises(pickle.UnpicklingError, match="Can't read"):
        read(tmp_path, pickled)


@pytest.mark.parametrize("end", [b"K\x01s.", b"K\x01d.", b"K\x01u."])
def test_a_key_that_would_take_forever_is_refused(tmp_path, end):
    """A pair of a pair of a pair ...: hashing it visits 2**60 of them."""
    start = {b"s": b"}", b"d": b"(", b"u": b"}("}[end[-2:-1]]
    pairs = b"N" + b"q\x00h\x00\x86" * 60
    with pytest.raises(pickle.UnpicklingError, match="Refused a key: tuple"):
        read(tmp_path, b"\x80\x02" + start + pairs + end)


@pytest.mark.parametrize(
    "array",
    [
        np.array([{}, []], object),
        np.zeros(3, "U4"),
        np.zeros(3, "f4,O"),
        np.zeros(2, "M8[s]"),
    ],
    ids=["object", "text", "record", "date"],
)
def test_arrays_of_other_things_are_refused(tmp_path, array):
    with pytest.raises(pickle.UnpicklingError, match="Refused"):
        read(tmp_path, pickle.dumps({**notmnist(), "train_dataset": array}))


@pytest.mark.parametrize(
    "pickled", [b"", b"text", b"\x80\x02}", pickle.dumps(notmnist())[:500]]
)
def test_a_damaged_file_is_refused(tmp_path, pickled):
    with pytest.raises(pickle.UnpicklingError, match=r"Can't read .*notMNIST\.pickle"):
        read(tmp_path, pickled)


@pytest.mark.parametrize(
    "key, value, message",
    [
        ("test_labels", None, "'test_labels'.*no array"),
        ("train_dataset", np.zeros((7, 784), "f4"), "float32 of shape .7, 784."),
        ("train_dataset", np.zeros((7, 28, 28), "u1"), "uint8 of shape"),
        ("train_dataset", np.zeros((0, 28, 28), "f4"), r"\(0, 28, 28\)"),
        ("train_dataset", np.full((7, 28, 28), 255.0), "from 255.0 to 255.0"),
        ("train_dataset", np.full((7, 28, 28), np.nan), "from nan"),
        ("train_dataset", np.float32(0), "float32 of shape"),
        ("valid_labels", np.zeros(2, int), r"\(3, 28, 28\) and \(2,\) for valid"),
        ("valid_labels", np.array([0, 1, 10]), "from 0 to 10"),
        ("valid_labels", np.array(3), r"\(3, 28, 28\) and \(\)"),
    ],
)
def test_other_content_is_refused(tmp_path, key, value, message):
    with pytest.raises(ValueError, match=message):
        read(tmp_path, pickle.dumps({**notmnist(), key: value}))


def test_a_file_that_holds_no_dict_is_refused(tmp_path):
    with pytest.raises(ValueError, match="Expected 'train_dataset'"):
        read(tmp_path, pickle.dumps(["train_dataset"]))
