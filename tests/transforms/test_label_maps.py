"""Mask files are read exactly, and what no class has is refused with the ways out."""

import numpy as np
import pytest
from PIL import Image

from lightning_zoo.errors import ZooError
from lightning_zoo.transforms.label_maps import (
    MaskFileError,
    MaskReader,
    check_values,
    read_label_map,
)

VALUES = np.array([[0, 1, 2], [3, 254, 255]], np.uint8)


def save(path, image):
    image.save(path)
    return path


def palette(values):
    image = Image.fromarray(values)
    image.putpalette([n for i in range(256) for n in (255 - i, 7, i)])
    return image


def test_indices_and_values(tmp_path):
    found = read_label_map(save(tmp_path / "palette.png", palette(VALUES)))
    assert (found.dtype, found.tolist()) == (np.uint8, VALUES.tolist())
    found = read_label_map(save(tmp_path / "grey.png", Image.fromarray(VALUES)))
    assert (found.dtype, found.tolist()) == (np.uint8, VALUES.tolist())
    wide = VALUES.astype(np.uint16) * 200
    found = read_label_map(save(tmp_path / "wide.png", Image.fromarray(wide)))
    assert found.tolist() == wide.tolist()
    few = np.array([[0, 1, 2, 3]], np.uint8)
    small = palette(few)
    small.save(tmp_path / "bits.png", bits=2)
    assert read_label_map(tmp_path / "bits.png").tolist() == few.tolist()
    two = Image.fromarray(np.array([[True, False]]))
    assert read_label_map(save(tmp_path / "two.png", two)).tolist() == [[1, 0]]


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_grey_of_few_bits_is_not_spread(tmp_path, bits):
    import struct
    import zlib

    def chunk(kind, body):
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    row = 0b00011011 if bits == 2 else (0b00001111 if bits == 4 else 0b10000000)
    width = 8 // bits
    data = b"\x89PNG\r\n\x1a\n" + chunk(
        b"IHDR", struct.pack(">IIBBBBB", width, 1, bits, 0, 0, 0, 0)
    )
    data += chunk(b"IDAT", zlib.compress(bytes([0, row]))) + chunk(b"IEND", b"")
    (tmp_path / "grey.png").write_bytes(data)
    expected = {1: [1, 0, 0, 0, 0, 0, 0, 0], 2: [0, 1, 2, 3], 4: [0, 15]}[bits]
    assert read_label_map(tmp_path / "grey.png").tolist() == [expected]


def test_colours_are_read(tmp_path):
    colours = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    rgb = save(tmp_path / "rgb.png", Image.fromarray(colours))
    assert read_label_map(rgb).tolist() == colours.tolist()
    rgba = np.dstack([colours, np.full((2, 2), 9, np.uint8)])
    assert read_label_map(save(tmp_path / "a.png", Image.fromarray(rgba))).shape == (2, 2, 3)
    indexed = save(tmp_path / "p.png", palette(VALUES))
    assert read_label_map(indexed, colours=True)[0, 1].tolist() == [254, 7, 1]


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(MaskFileError, match=r"cannot read the mask '.*none.png': No such file"):
        read_label_map(tmp_path / "none.png")
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(MaskFileError, match="no image of a known kind"):
        read_label_map(tmp_path / "text.png")
    Image.fromarray(VALUES).save(tmp_path / "lossy.jpg")
    with pytest.raises(MaskFileError, match="JPEG changes values"):
        read_label_map(tmp_path / "lossy.jpg")
    big = np.random.default_rng(0).integers(0, 9, (200, 200)).astype(np.uint8)
    data = save(tmp_path / "big.png", Image.fromarray(big)).read_bytes()
    (tmp_path / "half.png").write_bytes(data[: len(data) // 2])
    with pytest.raises(MaskFileError, match="truncated"):
        read_label_map(tmp_path / "half.png")
    Image.fromarray(np.zeros((2, 2), np.float32)).save(tmp_path / "float.tif")
    with pytest.raises(MaskFileError, match="of Pillow's mode F; expected"):
        read_label_map(tmp_path / "float.tif")


def test_labels(tmp_path):
    file = str(save(tmp_path / "m.png", Image.fromarray(VALUES)))
    names = ["a", "b", "c", "d"]
    with pytest.raises(
        MaskFileError,
        match=r"m.png': it holds the value 254 at 1 of 6 pixels, and the 4 classes have the values "
        r"0, 1, 2 ... 255; try 254$",
    ):
        MaskReader(names, ignore_index=255, way_out="try VALUE")(file, (2, 3))
    values = {"a": 0, "b": [1, 2], "d": 3, "c": 254, "void": 255}
    found = MaskReader(names, values=values)(file, (2, 3))
    assert (found.dtype, found.tolist()) == (np.uint8, [[0, 1, 1], [3, 2, 255]])
    with pytest.raises(MaskFileError, match=r"it has 2 x 3 pixels .* its image has 3 x 2"):
        MaskReader(names, values=values)(file, (3, 2))


def test_sixteen_bits(tmp_path):
    wide = np.array([[0, 1], [2, 1]], np.uint16)
    file = str(save(tmp_path / "wide.png", Image.fromarray(wide)))
    assert MaskReader(["a", "b", "c"])(file, (2, 2)).tolist() == wide.tolist()
    file = str(save(tmp_path / "wider.png", Image.fromarray(wide * 500)))
    with pytest.raises(MaskFileError, match="holds the value 500 at 2 of 4 pixels"):
        MaskReader(["a", "b", "c"])(file, (2, 2))


def test_labels_from_colours(tmp_path):
    pixels = np.array([[[0, 0, 0], [255, 0, 0]], [[9, 9, 9], [0, 0, 255]]], np.uint8)
    file = str(save(tmp_path / "rgb.png", Image.fromarray(pixels)))
    colors = {"sky": [0, 0, 255], "ground": [0, 0, 0], "void": [9, 9, 9], "tree": [255, 0, 0]}
    reader = MaskReader(["sky", "ground", "tree"], colors=colors)
    assert reader(file, (2, 2)).tolist() == [[1, 2], [255, 0]]
    with pytest.raises(MaskFileError, match=r"1 of 4 pixels have a colour .* such as \[9, 9, 9\]"):
        MaskReader(
            ["sky", "ground"],
            colors={name: colors[name] for name in ("sky", "ground")} | {"void": [255, 0, 0]},
        )(file, (2, 2))
    with pytest.raises(MaskFileError, match=r"it is in colour, such as \[0, 0, 0\].*data.colors"):
        MaskReader(["sky"])(file, (2, 2))


def test_arguments():
    assert check_values(None, None, None, None) is None
    assert check_values(["a", "b"], None, None, 255) == ["a", "b"]
    assert check_values(None, {"a": 0, "void": 255, "b": [7, 9]}, None, None) == ["a", "b"]
    assert check_values(None, None, {"x": [0, 0, 0], "y": [1, 1, 1]}, None) == ["x", "y"]
    assert check_values(["y", "x"], None, {"x": [0, 0, 0]}, None) == ["y", "x"]
    for args, text in (
        ((None, {"a": 0}, {"a": [0, 0, 0]}, None), "set one of the two to null"),
        ((None, {"a": 300}, None, None), "label_values has 300 for 'a'; expected values from 0"),
        ((None, {"a": 0, "b": [1, 0]}, None, None), "label_values has 0 for 'b'; .* each once"),
        ((None, {"a": "0"}, None, None), "label_values has '0' for 'a'"),
        ((None, None, {"a": [0, 0]}, None), r"colors has \[0, 0\] for 'a'; expected \[r, g, b\]"),
        ((None, None, {"a": [1, 2, 3], "b": [1, 2, 3]}, None), "one colour for two names"),
        ((["a"], None, None, 256), "ignore_index is 256"),
        ((["a"], {"b": 0}, None, None), "label_values names 'b', which is not among the classes a"),
        ((["a", "a"], None, None, None), "2 classes, 1 of them different"),
        (([str(i) for i in range(256)], None, None, None), "256 classes"),
        (([], None, None, None), "0 classes"),
    ):
        with pytest.raises(ZooError, match=text):
            check_values(*args)
