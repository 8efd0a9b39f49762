"""Every file becomes what Pillow's convert("RGB") makes of it, or an error that names it."""

import io
import warnings

import cv2
import numpy as np
import pytest
from PIL import Image

from lightning_zoo.transforms import decode
from lightning_zoo.transforms.decode import DecodeError, decode_image, read_image


def photo(height=133, width=201, seed=0):
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (20, 25, 3), dtype=np.uint8)
    return Image.fromarray(cv2.resize(small, (width, height)))


def encode(image, kind, **options):
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def pillow(data):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return np.array(Image.open(io.BytesIO(data)).convert("RGB"))


def with_alpha(mode):
    image = photo().convert(mode)
    alpha = np.random.default_rng(1).integers(0, 256, (133, 201), dtype=np.uint8)
    image.putalpha(Image.fromarray(alpha))
    return image


def rotated():
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees
    return encode(photo(), "JPEG", exif=exif)


def grey16(mode="I;16"):
    values = np.random.default_rng(2).integers(0, 65536, (50, 60)).astype(np.uint16)
    values[:20] //= 256
    return Image.fromarray(values)


def rgb16():
    values = np.random.default_rng(2).integers(0, 65536, (50, 60, 3)).astype(np.uint16)
    return cv2.imencode(".png", values)[1].tobytes()


P = photo().convert("P")
FILES = {
    **{
        f"jpeg {quality} {sub}": encode(photo(), "JPEG", quality=quality, subsampling=sub)
        for quality in (20, 75, 95)
        for sub in (0, 1, 2)
    },
    "jpeg odd": encode(photo(7, 3), "JPEG"),
    "jpeg 1x1": encode(photo(1, 1), "JPEG"),
    "jpeg progressive": encode(photo(), "JPEG", progressive=True),
    "jpeg restarts": encode(photo(), "JPEG", restart_marker_blocks=3),
    "jpeg grey": encode(photo().convert("L"), "JPEG"),
    "jpeg rgb": encode(photo(), "JPEG", keep_rgb=True),
    "jpeg cmyk": encode(photo().convert("CMYK"), "JPEG"),
    "jpeg exif": rotated(),
    "jpeg comment": encode(photo(), "JPEG", comment=b"\xff\xd9 not the end \xff\x33"),
    "jpeg trailer": encode(photo(), "JPEG") + b"\xff\x33trailing bytes",
    **{f"png {mode}": encode(photo().convert(mode), "PNG") for mode in ("RGB", "L", "P", "1")},
    "png rgba": encode(with_alpha("RGBA"), "PNG"),
    "png la": encode(with_alpha("LA"), "PNG"),
    "png palette transparent": encode(P, "PNG", transparency=3),
    "png palette alphas": encode(P, "PNG", transparency=bytes(range(200))),
    "png grey transparent": encode(photo().convert("L"), "PNG", transparency=30),
    "png rgb transparent": encode(photo(), "PNG", transparency=(1, 2, 3)),
    **{
        f"png {bits} bit": encode(photo().quantize(2**bits), "PNG", bits=bits) for bits in (1, 2, 4)
    },
    "png grey 16": encode(grey16(), "PNG"),
    "png rgb 16": rgb16(),
    **{
        f"{kind} {mode}": encode(
            with_alpha("RGBA") if mode == "RGBA" else photo().convert(mode), kind
        )
        for kind in ("WEBP", "BMP", "TIFF")
        for mode in ("RGB", "RGBA", "L", "P")
    },
}


@pytest.mark.parametrize("name", FILES)
def test_bytes_are_pillows(name):
    data = FILES[name]
    ours = decode_image(data)
    assert ours.dtype == np.uint8
    assert ours.flags.c_contiguous
    assert np.array_equal(ours, pillow(data))


def test_exif_is_not_applied():
    assert decode_image(FILES["jpeg exif"]).shape == (133, 201, 3)


def test_photos_take_the_fast_path(monkeypatch):
    monkeypatch.delattr(decode, "_pillow")
    fast = [n for n in FILES if n.split()[0] in ("jpeg", "png") and "cmyk" not in n]
    fast = [n for n in fast if not n.endswith("16")]
    assert len(fast) >= 25
    for name in fast:
        decode_image(FILES[name])


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP"])
def test_truncated(kind, tmp_path):
    data = encode(photo(), kind)
    for share in (0.05, 0.3, 0.6, 0.9):
        path = tmp_path / "cut.img"
        path.write_bytes(data[: int(len(data) * share)])
        with pytest.raises(DecodeError, match=r"cut\.img") as caught:
            read_image(path)
        assert "cut.img" not in caught.value.reason


def test_truncated_by_one_byte():
    with pytest.raises(DecodeError):
        decode_image(encode(photo(), "JPEG")[:-1])


@pytest.mark.parametrize("place", [0.3, 0.5, 0.7, 0.9])
def test_a_jpeg_damaged_in_the_middle(place):
    data = bytearray(encode(photo(), "JPEG"))
    start = int(len(data) * place)
    data[start : start + 8] = b"\x12\xff\x33\x44\x99\xaa\x01\x02"
    with pytest.raises(DecodeError):  # OpenCV would fill the rest with grey
        decode_image(bytes(data))


def test_random_damage_is_pillows_answer():
    """Whatever happens to a byte: the same pixels as Pillow, or an error."""
    rng = np.random.default_rng(3)
    good = encode(photo(40, 50), "JPEG")
    refused = 0
    for _ in range(200):
        data = bytearray(good)
        for place in rng.integers(2, len(data), 3):
            data[place] = rng.integers(256)
        try:
            expected = pillow(bytes(data))
        except Exception:
            expected = None
        try:
            ours = decode_image(bytes(data))
        except DecodeError:
            refused += 1
            continue
        if expected is not None:
            assert np.array_equal(ours, expected)
    assert refused > 0


def test_other_errors(tmp_path):
    with pytest.raises(DecodeError, match="No such file"):
        read_image(tmp_path / "none.jpg")
    with pytest.raises(DecodeError, match="empty"):
        decode_image(b"")
    with pytest.raises(DecodeError, match="no image"):
        decode_image(b"hello, I am a text")
    with pytest.raises(DecodeError):
        read_image(tmp_path)


@pytest.mark.parametrize("name", ["jpeg 75 0", "png RGB", "WEBP RGB"])
def test_pixel_limit(name):
    with pytest.raises(DecodeError, match="201 x 133 pixels are more than the limit of 1000"):
        decode_image(FILES[name], max_pixels=1000)


def test_bomb():
    data = bytearray(encode(photo(8, 8), "PNG"))
    data[16:24] = (60000).to_bytes(4, "big") * 2
    with pytest.raises(DecodeError, match="60000 x 60000"):
        decode_image(bytes(data))
