"""Images of the letters A to J: rendered from fonts, or the notMNIST pickle.

`load_glyphs` renders them from the fonts that matplotlib ships; `read_notmnist`
reads the file that the Udacity assignment writes, even if it is not trusted.
Both return a dict of float32 images in [-0.5, 0.5] and their labels 0 to 9.

>>> data = load_glyphs(per_font=10)
>>> data["x_train"].shape, data["y_train"].shape
((120, 28, 28), (120,))

The splits do not share fonts, nor font families: DejaVu is for training, STIX
for validation, and Computer Modern for test. So a network that memorizes fonts
instead of learning letters has a low validation accuracy.
"""

import contextlib
import functools
import hashlib
import mmap
import os
import pickle
import tempfile
import zipfile
import zlib
from pathlib import Path
from typing import ClassVar

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

LETTERS = "ABCDEFGHIJ"
SIDE = 28
SPLITS = ("train", "valid", "test")
ARRAYS = [f"{part}_{split}" for split in SPLITS for part in "xy"]

# By name, since other fonts of matplotlib have symbols in place of letters (cmex10,
# cmsy10, STIXSiz*, STIXNonUni*), only a few letters (DejaVu*Display) or
# placeholders (LastResort).
TRAIN_FONTS = (
    *("DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique"),
    *("DejaVuSans-BoldOblique", "DejaVuSansMono", "DejaVuSansMono-Bold"),
    *("DejaVuSansMono-Oblique", "DejaVuSansMono-BoldOblique", "DejaVuSerif"),
    *("DejaVuSerif-Bold", "DejaVuSerif-Italic", "DejaVuSerif-BoldItalic"),
)
VALID_FONTS = (
    *("STIXGeneral", "STIXGeneralBol", "STIXGeneralItalic", "STIXGeneralBolIta"),
)
TEST_FONTS = ("cmr10", "cmb10", "cmti10", "cmmi10", "cmss10", "cmtt10")


def load_glyphs(
    train_fonts=TRAIN_FONTS,
    valid_fonts=VALID_FONTS,
    test_fonts=TEST_FONTS,
    per_font=500,
    noise=0.4,
    seed=0,
    cache=True,
    letters=LETTERS,
):
    """Render letters with random size, position, angle and noise.

    Args:
        train_fonts: Names of fonts that matplotlib ships, or paths of font files.
        valid_fonts: The same for validation; no font may be in two splits.
        test_fonts: The same for test.
        per_font: Images of each font, balanced over the letters. Default 500.
        noise: Standard deviation of the noise on each pixel. Default 0.4.
        seed: Integer, determines the images. Default 0.
        cache: True caches the images in the user's cache directory, a path in that
            directory; False renders them again. Default True.
        letters: Capital letters; their labels are 0, 1, ... Default "ABCDEFGHIJ".

    Returns:
        A dict of x_train, y_train, x_valid, y_valid, x_test and y_test: float32
        images of shape `(n, 28, 28)` in [-0.5, 0.5] and int64 labels.
    """
    fonts = [tuple(map(str, f)) for f in (train_fonts, valid_fonts, test_fonts)]
    check_split(fonts)

    def render():
        arrays = []
        for number, names in enumerate(fonts):
            arrays += render_fonts(names, per_font, noise, (seed, number), letters)
        return dict(zip(ARRAYS, arrays, strict=True))

    if cache is False:
        arrays = render()
    else:
        folder = default_cache() if cache is True else Path(cache)
        key = cache_key(fonts, per_font, noise, seed, letters)
        arrays = cached(folder / f"glyphs-{key}.npz", render)
    return {name: scaled(a) if name[0] == "x" else a for name, a in arrays.items()}


def scaled(pixels):
    """Bytes 0 to 255 as float32 in [-0.5, 0.5], scaled as in the assignment."""
    return (pixels.astype("float32") - 127.5) / 255


def check_split(fonts):
    """Raise ValueError unless every split has fonts and no font is in two."""
    names = [name for split in fonts for name in set(split)]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice or not all(fonts):
        raise ValueError(
            "Invalid fonts. Expected at least one for each of train, validation and "
            f"test, and none in two of them. Received: {fonts}, repeated: {twice}"
        )


def font_path(name):
    """The path of the font `name`: a file, or a font that matplotlib ships."""
    shipped = Path(matplotlib.get_data_path(), "fonts", "ttf", f"{name}.ttf")
    for path in (Path(name), shipped):
        if path.is_file():
            return path
    raise ValueError(
        "Invalid font. Expected the path of a font file, or a name such as "
        f"'DejaVuSans' from {shipped.parent}. Received: {name!r}"
    )


def render_fonts(fonts, per_font, noise, seed, letters):
    """Shuffled uint8 images `(n, 28, 28)` of all fonts, and their labels."""
    rng = np.random.default_rng(seed)
    labels = np.tile(np.arange(per_font) % len(letters), len(fonts))
    paths = [font_path(name) for name in fonts]
    clean = np.stack(
        [
            render_letter(path, letters[label], rng)
            for path, row in zip(paths, np.split(labels, len(fonts)), strict=True)
            for label in row
        ]
    )
    noisy = clean + 255 * noise * rng.standard_normal(clean.shape, "float32")
    order = rng.permutation(len(labels))
    return noisy.round().clip(0, 255).astype("uint8")[order], labels[order]


def render_letter(path, letter, rng):
    """One letter, white on black, with random size, angle and position."""
    # Drawn at twice the size and halved, which keeps thin strokes smooth.
    side = 2 * SIDE
    font = open_font(path, int(rng.integers(36, 61)))
    left, top, right, bottom = font.getbbox(letter)
    image = Image.new("L", (side, side))
    corner = ((side - left - right) / 2, (side - top - bottom) / 2)
    ImageDraw.Draw(image).text(corner, letter, fill=255, font=font)
    angle, *shift = rng.uniform([-15, -6, -6], [15, 6, 6])
    image = image.rotate(angle, Image.Resampling.BICUBIC, translate=tuple(shift))
    return np.asarray(image.reduce(2), "float32")


@functools.lru_cache(maxsize=32)  # the sizes of one font, each an open file
def open_font(path, size):
    """The font at `path` in `size` pixels."""
    return ImageFont.truetype(path, size)


def default_cache():
    """The directory for cached images, such as `~/.cache/keras_l2reg`."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home, "keras_l2reg")


def cache_key(fonts, *others):
    """A hash of everything the images depend on: arguments, fonts and this file."""
    key = hashlib.sha256(repr((fonts, others)).encode())
    # The text of this file, so that no version number has to be maintained.
    for path in (Path(__file__), *(font_path(f) for split in fonts for f in split)):
        key.update(path.read_bytes())
    return key.hexdigest()[:16]


def cached(path, make):
    """The arrays stored at `path`; created and stored if missing or corrupt."""
    try:
        with (
            open(path, "rb") as file,  # left open by numpy if it is corrupt
            np.load(file, allow_pickle=False) as stored,
        ):
            return {name: stored[name] for name in ARRAYS}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
        arrays = make()
    # Without a writable cache directory, the images are rendered each time.
    with contextlib.suppress(OSError):
        save_atomically(path, arrays)
    return arrays


def save_atomically(path, arrays):
    """Write `arrays` so that other processes never see a partial file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, scratch = tempfile.mkstemp(dir=path.parent, suffix=".part")
    try:
        with open(handle, "wb") as file:
            np.savez(file, **arrays)
        os.replace(scratch, path)
    except BaseException:
        os.unlink(scratch)
        raise


def read_notmnist(path):
    """Read the arrays of the assignment's `notMNIST.pickle`; safe for any file.

    Args:
        path: The file, written by Python 2 or 3: a pickled dict of train_dataset,
            train_labels, valid_dataset, valid_labels, test_dataset, test_labels.

    Returns:
        A dict as of `load_glyphs`.

    Raises:
        pickle.UnpicklingError: The file is damaged, or contains more than arrays;
            none of its code was run.
        ValueError: The arrays are not those of the assignment.
    """
    names = [f"{split}_{part}" for split in SPLITS for part in ("dataset", "labels")]
    with open(path, "rb") as file:
        try:
            # If asked for more bytes than there are, a memory map returns those that
            # exist, while a file first allocates memory for all of them.
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                loaded = ArrayUnpickler(content, encoding="latin1").load()
            arrays = arrays_in(loaded, names)
        except Exception as error:  # a damaged pickle can raise any
            raise pickle.UnpicklingError(f"Can't read {path}: {error}") from error
    data = {}
    for split in SPLITS:
        images = take(arrays, f"{split}_dataset", "f", (SIDE, SIDE), -0.5, 0.5)
        labels = take(arrays, f"{split}_labels", "iu", (), 0, len(LETTERS) - 1)
        if images.shape[:1] != labels.shape:
            raise ValueError(
                "Invalid notMNIST file. Expected a label for each image. Received: "
                f"{images.shape} and {labels.shape} for {split}"
            )
        data[f"x_{split}"] = images.astype("float32", copy=False)
        data[f"y_{split}"] = labels.astype("int64", copy=False)
    return data


def arrays_in(content, names):
    """The arrays under these names, if any."""
    values = {} if not isinstance(content, dict) else {n: content.get(n) for n in names}
    return {n: v.to_numpy() for n, v in values.items() if isinstance(v, PickledArray)}


def take(arrays, key, kinds, shape, low, high):
    """The array under `key`; a ValueError if it is not as expected."""
    array = arrays.get(key)
    if array is None:
        received = "no array of that name"
    elif array.dtype.kind not in kinds or not array.size or array.shape[1:] != shape:
        received = f"{array.dtype} of shape {array.shape}"
    elif not (low <= array.min() and array.max() <= high):
        received = f"numbers from {array.min()} to {array.max()}"
    else:
        return array
    raise ValueError(
        f"Invalid notMNIST file. Expected {key!r} to be an array of numbers from {low} "
        f"to {high}, its shape {('n', *shape)}. Received: {received}"
    )


class PickledDtype:
    """Stands in for `numpy.dtype` in a pickle: plain numbers only."""

    def __init__(self, name, *_):
        # Short, since numpy makes a dtype with many fields from a long name.
        is_name = isinstance(name, str) and len(name) < 10
        self.dtype = np.dtype(name if is_name else object)
        if self.dtype.kind not in "biuf":
            raise pickle.UnpicklingError(
                f"Refused an array of {name if is_name else 'objects'}: not numbers"
            )

    def __setstate__(self, state):
        self.dtype = self.dtype.newbyteorder(state[1])


class PickledBytes:
    """Stands in for bytes, which protocol 2 of Python 3 encodes as a call."""

    def __init__(self, text, *_):
        self.text = text


class PickledArray:
    """Stands in for `numpy.ndarray` in a pickle."""

    # The `__setstate__` methods of numpy trust the state: a file of numpy arrays alone
    # can make them follow an arbitrary pointer.

    def __init__(self, *_):
        self.state = None

    def __setstate__(self, state):
        # Not converted yet: a file could set the state of an array thousands of times.
        self.state = state

    @classmethod
    def from_buffer(cls, data, kind, shape=(), order="C"):
        """An array in the encoding of protocol 5; a number has no shape."""
        array = cls()
        array.state = 1, shape, kind, order == "F", data
        return array

    def to_numpy(self):
        """The array, without copying the bytes in the pickle if possible."""
        _, shape, kind, fortran, data = self.state
        data = data.text if isinstance(data, PickledBytes) else data
        # A str is what Python 2 wrote as bytes.
        data = data.encode("latin1") if isinstance(data, str) else data
        order = "F" if fortran else "C"
        return np.frombuffer(data, kind.dtype).reshape(shape, order=order)


class Names(dict):
    """A dict in a pickle. Only strings as keys: others may take forever to hash."""

    def __setitem__(self, name, value):
        if not isinstance(name, str):
            raise pickle.UnpicklingError(f"Refused a key: {type(name).__name__}")
        super().__setitem__(name, value)


# The opcodes in a pickle of a dict of arrays, by Python 2 or 3.
OPCODES = (
    "PROTO FRAME MARK STOP POP NONE NEWTRUE NEWFALSE INT BININT BININT1 BININT2 "
    "LONG LONG1 FLOAT BINFLOAT STRING BINSTRING SHORT_BINSTRING BINBYTES "
    "SHORT_BINBYTES BINBYTES8 UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8 "
    "TUPLE EMPTY_TUPLE TUPLE1 TUPLE2 TUPLE3 LIST EMPTY_LIST APPEND APPENDS SETITEM "
    "SETITEMS PUT BINPUT LONG_BINPUT MEMOIZE GET BINGET LONG_BINGET GLOBAL "
    "STACK_GLOBAL REDUCE"
)


class Instructions(dict):
    """The function for each opcode, for a limited number of opcodes in a pickle."""

    # Each opcode may allocate some hundred bytes; the file of the assignment has some
    # 300 opcodes.
    limit = 10_000

    def __getitem__(self, opcode):
        self.limit -= 1
        if self.limit < 0 or opcode not in self:
            raise pickle.UnpicklingError(
                "Refused: too many objects, or objects that are not arrays of numbers"
            )
        return super().__getitem__(opcode)


# The unpickler in Python, not in C: the latter allocates as many memo entries as the
# file says, up to gigabytes, and can't be prevented from setting attributes.
class ArrayUnpickler(pickle._Unpickler):
    """An unpickler for numpy arrays of numbers only."""

    known: ClassVar = {
        "numpy.dtype": PickledDtype,
        "numpy.ndarray": PickledArray,
        "numpy.core.multiarray._reconstruct": PickledArray,
        "numpy.core.numeric._frombuffer": PickledArray.from_buffer,
        "numpy.core.multiarray.scalar": lambda kind, data: PickledArray.from_buffer(
            data, kind
        ),
        "_codecs.encode": PickledBytes,
    }

    def __init__(self, file, **options):
        super().__init__(file, **options)
        codes = [getattr(pickle, name)[0] for name in OPCODES.split()]
        self.dispatch = Instructions({code: self.dispatch[code] for code in codes})
        self.dispatch[pickle.EMPTY_DICT[0]] = ArrayUnpickler.load_empty_dict
        self.dispatch[pickle.DICT[0]] = ArrayUnpickler.load_dict
        self.dispatch[pickle.BYTEARRAY8[0]] = ArrayUnpickler.load_bytearray8
        self.dispatch[pickle.BUILD[0]] = ArrayUnpickler.load_build

    def find_class(self, module, name):
        """The stand-in for a class or function that the pickle refers to."""
        asked = f"{module}.{name}".replace("numpy._core.", "numpy.core.", 1)
        if asked not in self.known:
            raise pickle.UnpicklingError(
                f"Refused: the file asks for {asked[:80]}, not for a numpy array"
            )
        return self.known[asked]

    def load_empty_dict(self):
        self.append(Names())

    def load_dict(self):
        items, names = self.pop_mark(), Names()
        for name, value in zip(items[::2], items[1::2], strict=True):
            names[name] = value
        self.append(names)

    def load_bytearray8(self):
        # The original method allocates as many bytes as the file says.
        self.append(self.read(int.from_bytes(self.read(8), "little")))

    def load_build(self):
        state, built = self.stack.pop(), self.stack[-1]
        # The original method sets attributes on any object.
        if not isinstance(built, (PickledArray, PickledDtype)):
            raise pickle.UnpicklingError(f"Refused: a state for {type(built).__name__}")
        built.__setstate__(state)
