"""Decoding: the same pixels whichever decoder is installed, and no file that does harm."""

import io
import pickle
import struct
import threading
import warnings

import numpy as np
import pytest
from PIL import Image, ImageOps
from references import load_tensorflow

from vit_jax.data.examples import UnreadableExample
from vit_jax.data.images import decode, jpeg, orientation, turbojpeg
from vit_jax.data.images.decode import Box, Encoded, cut
from vit_jax.errors import InputError

# Each decodes what it can, and the ones after it the rest.
DECODERS = ("part", "whole", "pillow")
SUBSAMPLINGS = (0, 1, 2)  # Pillow's numbers of 4:4:4, 4:2:2, 4:2:0


def use(monkeypatch, decoder):
    """Leaves only `decoder` and what comes after it; skips where `decoder` is not installed."""
    if decoder == "part" and not turbojpeg.is_available():
        pytest.skip("needs libjpeg-turbo 3, for example by: pip install turbojpeg")
    if decoder == "whole" and jpeg._simplejpeg() is None:
        pytest.skip("needs simplejpeg")
    if decoder != "part":
        monkeypatch.setattr(turbojpeg, "is_available", lambda: False)
    if decoder == "pillow":
        monkeypatch.setattr(jpeg, "_simplejpeg", lambda: None)


def picture(rng, height, width, channels=3):
    """Smooth colours with some noise, so that every coefficient of a block occurs."""
    rows, columns = np.mgrid[:height, :width][..., None]
    phases = rng.uniform(0, 6, channels)
    waves = 100 * np.sin(rows / 7 + phases) * np.cos(columns / 5 - phases)
    return np.uint8(np.clip(128 + waves + rng.normal(0, 20, waves.shape), 0, 255))


def save(pixels, form="JPEG", mode=None, **settings):
    image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    file = io.BytesIO()
    (image if mode is None else image.convert(mode)).save(file, form, **settings)
    return file.getvalue()


def exif(value, order="<", kind=3, number=1, entries=1):
    """The tags of a camera: one other, then the orientation `entries` times."""
    start = b"II*\0" if order == "<" else b"MM\0*"
    tags = [struct.pack(order + "HHIH", 0x0128, 3, 1, 2) + b"\0\0"]
    tags += entries * [struct.pack(order + "HHIH", 0x0112, kind, number, value) + b"\0\0"]
    table = struct.pack(order + "IH", 8, len(tags)) + b"".join(tags) + b"\0\0\0\0"
    return b"Exif\0\0" + start + table


def by_pillow(data):
    """The definition: as Pillow alone decodes and turns it."""
    with Image.open(io.BytesIO(data)) as image:
        turned = ImageOps.exif_transpose(image)
        pixels = np.asarray(turned if turned.mode == "L" else turned.convert("RGB"))
    return pixels[..., None] if pixels.ndim == 2 else pixels


def boxes(rng, size, n):
    """The whole, one pixel in each corner, a row, a column, and n drawn."""
    h, w = size
    corners = [Box(top, left, 1, 1) for top in (0, h - 1) for left in (0, w - 1)]
    yield from (Box(0, 0, h, w), *corners, Box(h // 2, 0, 1, w), Box(0, w // 2, h, 1))
    for _ in range(n):
        height, width = rng.integers(1, h + 1), rng.integers(1, w + 1)
        top, left = rng.integers(h - height + 1), rng.integers(w - width + 1)
        yield Box(*map(int, (top, left, height, width)))


def assert_decodes_as_pillow(data, rng, n=4):
    expected = by_pillow(data)
    image = Encoded(data, "x")
    assert image.size == expected.shape[:2]
    whole = image.decode()
    assert whole.dtype == np.uint8 and np.array_equal(whole, expected)
    for box in boxes(rng, image.size, n):
        part = image.decode(box)
        assert part.shape[:2] == (box.height, box.width)
        assert np.array_equal(part, cut(expected, box)), box


# the decoders


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("subsampling", SUBSAMPLINGS)
def test_every_decoder_gives_the_pixels_of_pillow(monkeypatch, decoder, progressive, subsampling):
    use(monkeypatch, decoder)
    rng = np.random.default_rng(0)
    for height in range(1, 71):
        pixels = picture(rng, height, int(rng.integers(1, 71)))
        settings = dict(subsampling=subsampling, progressive=progressive)
        data = save(pixels, quality=int(rng.integers(60, 100)), **settings)
        assert_decodes_as_pillow(data, rng)


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize(
    "settings",
    [
        dict(restart_marker_blocks=1),
        dict(restart_marker_rows=1, progressive=True),
        dict(optimize=True, icc_profile=bytes(70_000), comment=b"two segments of a profile"),
        dict(keep_rgb=True),
        dict(qtables=[[1] * 64, [255] * 64]),
    ],
    ids=lambda settings: "+".join(settings),
)
def test_kinds_of_jpeg(monkeypatch, decoder, settings):
    use(monkeypatch, decoder)
    rng = np.random.default_rng(1)
    for height, width in ((64, 48), (33, 71), (200, 150)):
        assert_decodes_as_pillow(save(picture(rng, height, width), **settings), rng)
        grey = picture(rng, height, width, 1)
        plain = {k: v for k, v in settings.items() if k not in ("keep_rgb", "qtables")}
        assert_decodes_as_pillow(save(grey, **plain), rng)


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("value", [*range(10), 255])
def test_orientations(monkeypatch, decoder, order, value):
    use(monkeypatch, decoder)
    rng = np.random.default_rng(2)
    for channels in (1, 3):
        pixels = picture(rng, 37, 50, channels)
        assert_decodes_as_pillow(save(pixels, exif=exif(value, order)), rng, n=20)
    assert_decodes_as_pillow(save(pixels, "WEBP", exif=exif(value, order), lossless=True), rng)
    assert_decodes_as_pillow(save(pixels, "PNG", exif=exif(value, order)), rng)


XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><d tiff:Orientation="6"/></x:xmpmeta>'


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize(
    "settings",
    [
        dict(xmp=XMP),
        dict(xmp=XMP, exif=exif(3)),
        dict(exif=exif(6, kind=4)),  # 32 bits instead of 16
        dict(exif=exif(6, number=2)),
        dict(exif=exif(8, entries=2)),
        dict(exif=exif(6)[:-9]),  # the table is cut off
        dict(exif=b"Exif\0\0"),
        dict(exif=b"Exif\0\0II*\0\xff\xff\xff\xff"),
        dict(exif=b"Exif\0\0nothing of the kind"),
    ],
    ids=lambda settings: "+".join(settings),
)
@pytest.mark.filterwarnings("ignore:Corrupt EXIF", "ignore:Metadata Warning")
def test_unusual_and_damaged_tags(monkeypatch, decoder, settings):
    """Where Pillow makes nothing of the tags, the image is taken as stored."""
    use(monkeypatch, decoder)
    pixels = picture(np.random.default_rng(3), 20, 30)
    data = save(pixels, **settings)
    try:
        expected = by_pillow(data)
    except Exception:
        expected = by_pillow(save(pixels))
    image = Encoded(data, "x")
    assert image.size == expected.shape[:2] and np.array_equal(image.decode(), expected)


def test_tags_in_two_segments():
    """Pillow joins them: the first may be the beginning of a table that the second ends."""
    pixels = picture(np.random.default_rng(3), 20, 30)
    tags = exif(6)
    once, whole = save(pixels, exif=tags), save(pixels, exif=tags[:30])
    at = whole.index(b"Exif") + 30
    rest = b"Exif\0\0" + tags[30:]
    split = whole[:at] + b"\xff\xe1" + struct.pack(">H", len(rest) + 2) + rest + whole[at:]
    twice = once[:2] + b"\xff\xe1" + struct.pack(">H", len(tags) + 2) + exif(3) + once[2:]
    for data in (split, twice):
        assert_decodes_as_pillow(data, np.random.default_rng(3))


def test_threads_do_not_disturb_each_other():
    rng = np.random.default_rng(4)
    files = [save(picture(rng, 90, 120)) for _ in range(8)]
    box, wrong = Box(20, 30, 40, 50), []

    def work(data):
        expected = cut(by_pillow(data), box)
        for _ in range(50):
            if not np.array_equal(Encoded(data, "x").decode(box), expected):
                wrong.append(data)

    threads = [threading.Thread(target=work, args=[data]) for data in files]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


# the fast DCT


def fast(data):
    return Encoded(data, "x").with_fast_dct()


@pytest.mark.parametrize("subsampling", SUBSAMPLINGS)
def test_the_fast_dct_is_another_but_near_and_does_not_depend_on_the_decoder(
    monkeypatch, subsampling
):
    rng = np.random.default_rng(6)
    data = save(picture(rng, 90, 70), quality=95, subsampling=subsampling, exif=exif(6))
    with monkeypatch.context() as only:
        use(only, "whole")
        expected = fast(data).decode()
    difference = np.abs(expected.astype(int) - Encoded(data, "x").decode())
    assert 0 < difference.mean() < 2
    use(monkeypatch, "part")
    for box in boxes(rng, expected.shape[:2], 20):
        assert np.array_equal(fast(data).decode(box), cut(expected, box))
    assert np.array_equal(pickle.loads(pickle.dumps(fast(data))).decode(), expected)


def test_what_only_pillow_reads_stays_accurate_and_png_is_png():
    rng = np.random.default_rng(7)
    cmyk = save(picture(rng, 40, 30), mode="CMYK")
    for data in (cmyk, save(picture(rng, 40, 30), "PNG")):
        assert np.array_equal(fast(data).decode(), Encoded(data, "x").decode())


def test_damaged_files_in_the_fast_dct_do_not_depend_on_the_decoder(monkeypatch):
    use(monkeypatch, "part")
    rng = np.random.default_rng(8)
    whole = save(picture(rng, 60, 80), quality=90)
    readable = 0
    for _ in range(300):
        data = bytearray(whole)
        for at in rng.integers(len(data) // 2, len(data) - 2, int(rng.integers(1, 4))):
            data[at] = rng.integers(256)
        box = Box(0, 5, int(rng.integers(1, 60)), 40)
        found = []
        for decoder in ("part", "whole"):
            with monkeypatch.context() as only:
                use(only, decoder)
                try:
                    found.append(fast(bytes(data)).decode(box))
                except UnreadableExample:
                    found.append(None)
        assert (found[0] is None) == (found[1] is None)
        if found[0] is not None:
            readable += 1
            assert np.array_equal(*found)
    assert readable > 30


def test_without_simplejpeg_the_fast_dct_is_refused_rather_than_replaced(monkeypatch):
    use(monkeypatch, "pillow")
    data = save(picture(np.random.default_rng(9), 20, 20))
    with pytest.raises(InputError, match="need simplejpeg") as caught:
        fast(data).decode()
    assert not isinstance(caught.value, UnreadableExample)  # which could be skipped


@pytest.mark.reference
def test_the_fast_dct_is_tensorflows():
    tensorflow = load_tensorflow()
    rng = np.random.default_rng(10)
    for subsampling in SUBSAMPLINGS:
        data = save(picture(rng, 120, 90), quality=92, subsampling=subsampling)
        expected = tensorflow.image.decode_jpeg(data, channels=3).numpy()
        assert np.array_equal(fast(data).decode(), expected)
        exact = tensorflow.image.decode_jpeg(data, channels=3, dct_method="INTEGER_ACCURATE")
        assert np.array_equal(Encoded(data, "x").decode(), exact.numpy())


# smaller scales


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("subsampling", SUBSAMPLINGS)
def test_scaled_decodes_do_not_depend_on_the_decoder(
    monkeypatch, decoder, progressive, subsampling
):
    use(monkeypatch, decoder)
    rng = np.random.default_rng(5)
    for value in (1, 6, 7):
        size = rng.integers(40, 150, 2)
        settings = dict(subsampling=subsampling, progressive=progressive)
        data = save(picture(rng, *size), exif=exif(value), **settings)
        image = Encoded(data, "x")
        for box in boxes(rng, image.size, 12):
            for at_least in ((1, 1), (5, 3), (20, 20), (200, 1)):
                found = image.decode_scaled(box, at_least)
                with monkeypatch.context() as only:
                    use(only, "pillow")
                    expected = Encoded(data, "x").decode_scaled(box, at_least)
                assert np.array_equal(found.image, expected.image)
                assert found.box == expected.box


@pytest.mark.parametrize("value", range(1, 9))
def test_scaled_decodes_are_large_enough_and_lie_where_they_say(value):
    """On an image whose colours are its coordinates, a mean of pixels is their centre."""
    rows, columns = np.mgrid[:240, :320] / 2
    ramp = np.stack([columns, rows, 128 + 0 * rows], axis=-1).astype(np.uint8)
    data = save(ramp, quality=100, subsampling=0, exif=exif(value))
    image, rng = Encoded(data, "x"), np.random.default_rng(6)
    for box in boxes(rng, image.size, 60):
        height, width = max(box.height // 3, 1), max(box.width // 5, 1)
        found, (left, top, right, bottom) = image.decode_scaled(box, (height, width))
        assert right - left >= width and bottom - top >= height
        assert 0 <= left < 1 and 0 <= top < 1
        assert found.shape[1] - 1 < right <= found.shape[1]
        assert found.shape[0] - 1 < bottom <= found.shape[0]
        full = image.decode(box)
        step = (box.height / (bottom - top), box.width / (right - left))
        if found.shape[0] > 2 and found.shape[1] > 2:
            y, x = found.shape[0] // 2, found.shape[1] // 2
            row, column = (y + 0.5 - top) * step[0], (x + 0.5 - left) * step[1]
            expected = full[int(row), int(column)].astype(int)
            # One level is two pixels, and rounding in the file and here cost one each.
            assert np.abs(found[y, x] - expected).max() <= 2
    assert image.decode_scaled(None, image.size).image.shape[:2] == image.size


def test_a_scaled_decode_takes_the_smallest_scale():
    image = Encoded(save(picture(np.random.default_rng(7), 160, 240)), "x")
    for asked, shape in (((20, 30), (20, 30)), ((21, 30), (40, 60)), ((80, 60), (80, 120))):
        assert image.decode_scaled(None, asked).image.shape[:2] == shape
    assert image.decode_scaled(None, (81, 1)).image.shape[:2] == (160, 240)


def test_what_cannot_be_scaled_comes_whole():
    pixels = picture(np.random.default_rng(8), 64, 64)
    for image in (
        pixels,
        Encoded(save(pixels, "PNG"), "x"),
        Encoded(save(pixels, mode="CMYK"), "x"),
    ):
        found = decode.scaled(image, Box(8, 16, 24, 32), (3, 4))
        assert found.image.shape == (24, 32, 3) and found.box == (0, 0, 32, 24)
        assert np.array_equal(found.image, decode.pixels(image, Box(8, 16, 24, 32)))


# other files


@pytest.mark.parametrize(
    "form, mode, channels",
    [
        ("JPEG", "CMYK", 3),
        ("JPEG", "YCbCr", 3),
        ("JPEG", "L", 1),
        ("PNG", "P", 3),
        ("PNG", "L", 1),
        ("PNG", "LA", 1),
        ("PNG", "1", 1),
        ("BMP", "RGB", 3),
    ],
)
def test_colour_spaces(form, mode, channels):
    rng = np.random.default_rng(9)
    data = save(picture(rng, 40, 30), form, mode=mode)
    if mode not in ("1", "LA"):  # read as grey, where Pillow's own are kept
        assert_decodes_as_pillow(data, rng)
    image = Encoded(data, "x")
    assert image.decode().shape == (40, 30, channels) and image.size == (40, 30)


def test_sixteen_bits_and_alpha():
    wide = np.arange(0, 65536, 16, dtype=np.uint16).reshape(64, 64)
    file = io.BytesIO()
    Image.fromarray(wide).save(file, "PNG")
    assert np.array_equal(Encoded(file.getvalue(), "x").decode()[..., 0], wide >> 8)
    rgba = picture(np.random.default_rng(10), 20, 20, 4)
    assert np.array_equal(Encoded(save(rgba, "PNG"), "x").decode(), rgba[..., :3])


@pytest.mark.parametrize("form", ["WEBP", "GIF", "PNG"])
def test_of_an_animation_the_first_frame(form):
    frames = [Image.new("RGB", (12, 8), colour) for colour in ("red", "green", "blue")]
    file = io.BytesIO()
    lossless = dict(lossless=True) if form == "WEBP" else {}
    frames[0].save(file, form, save_all=True, append_images=frames[1:], **lossless)
    image = Encoded(file.getvalue(), "x")
    assert image.size == (8, 12) and np.all(image.decode() == (255, 0, 0))


# broken files


def readable(data, box):
    """The box's pixels, or None where the file is unreadable; anything else is an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of tags that it makes nothing of
        try:
            return Encoded(data, "broken.jpg").decode(box)
        except UnreadableExample as error:
            assert error.place == "broken.jpg" and error.reason
            return None


def mutations(rng, data):
    """Truncations, flipped bits and bytes, cuts, and runs of other content."""
    yield from (data[:end] for end in range(0, len(data), max(len(data) // 40, 1)))
    yield from (data[:-1], data[:-2], data + b"\0" * 9, data + data, b"\0" + data)
    for _ in range(150):
        changed, at = bytearray(data), int(rng.integers(len(data)))
        kind = rng.integers(5)
        if kind == 0:
            changed[at] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            changed[at : at + 2] = bytes((0xFF, int(rng.integers(256))))  # a false marker
        elif kind == 2:
            del changed[at : at + int(rng.integers(1, 50))]
        elif kind == 3:
            changed[at : at + 8] = rng.bytes(8)
        else:  # in the header, where most bytes mean something
            changed[int(rng.integers(min(len(data), 700)))] = int(rng.integers(256))
        yield bytes(changed)


BASES = {
    "4:2:0": dict(subsampling=2),
    "progressive": dict(subsampling=2, progressive=True),
    "restarts": dict(restart_marker_blocks=3),
    "tags": dict(subsampling=1, exif=exif(6), xmp=b"<x/>"),
    "grey": dict(mode="L"),
    "CMYK": dict(mode="CMYK"),
}


@pytest.mark.parametrize("base", BASES)
def test_decoders_agree_on_damaged_jpegs(monkeypatch, base):
    """Which are readable, and on every pixel of them."""
    rng = np.random.default_rng(list(BASES).index(base))
    data = save(picture(rng, 61, 83), **BASES[base])
    box, counts = Box(9, 20, 23, 31), [0, 0]
    installed = [("part", turbojpeg.is_available()), ("whole", jpeg._simplejpeg() is not None)]
    for changed in mutations(rng, data):
        for wanted in (None, box):
            with monkeypatch.context() as only:
                use(only, "pillow")
                expected = readable_within(changed, wanted)
            counts[expected is not None] += 1
            for decoder in (name for name, found in installed if found):
                with monkeypatch.context() as only:
                    use(only, decoder)
                    found = readable_within(changed, wanted)
                assert (found is None) == (expected is None), decoder
                assert found is None or np.array_equal(found, expected), decoder
    assert min(counts) > 40  # both outcomes were met


def readable_within(data, box):
    """`readable`, with a box moved into an image whose size was damaged."""
    try:
        h, w = Encoded(data, "broken.jpg").size
    except UnreadableExample:
        return readable(data, None)
    if box is not None:
        box = Box(0, 0, min(box.height, h), min(box.width, w)) if h < 40 or w < 60 else box
    found = readable(data, box)
    assert found is None or found.shape[:2] == ((h, w) if box is None else box[2:])
    return found


@pytest.mark.parametrize("form", ["PNG", "WEBP", "BMP", "GIF"])
def test_other_damaged_files_are_read_or_refused(form):
    rng = np.random.default_rng(11)
    data = save(picture(rng, 31, 43), form)
    for changed in mutations(rng, data):
        found = readable(changed, None)
        assert found is None or found.ndim == 3


@pytest.mark.parametrize(
    "data",
    [b"", b"\xff", b"\xff\xd8\xff", b"\xff\xd8\xff\xe0\0\0", b"\x89PNG\r\n\x1a\n", bytes(1000)],
)
def test_what_is_no_image(data):
    image = Encoded(data, "empty.jpg")
    for attempt in (image.decode, lambda: image.size, lambda: image.decode_scaled(None, (1, 1))):
        with pytest.raises(UnreadableExample, match="empty.jpg"):
            attempt()


def test_the_extension_tells_nothing(tmp_path):
    pixels = picture(np.random.default_rng(12), 10, 11)
    (tmp_path / "a.jpg").write_bytes(save(pixels, "PNG"))
    assert np.array_equal(decode.read_image(tmp_path / "a.jpg"), pixels)


@pytest.mark.parametrize("decoder", DECODERS)
def test_huge_sizes_are_refused_from_the_header(monkeypatch, decoder):
    use(monkeypatch, decoder)
    data = bytearray(save(picture(np.random.default_rng(13), 16, 16)))
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = struct.pack(">HH", 65500, 65500)  # 12.9 GB of pixels
    image = Encoded(bytes(data), "bomb.jpg")
    for attempt in (image.decode, lambda: image.decode(Box(0, 0, 1, 1)), lambda: image.size):
        with pytest.raises(UnreadableExample, match="bomb.jpg: Decompression"):
            attempt()
    ihdr = struct.pack(">II", 65500, 65500)
    png = bytearray(save(np.zeros((4, 4, 3), np.uint8), "PNG"))
    png[16:24] = ihdr
    with pytest.raises(UnreadableExample):
        Encoded(bytes(png), "bomb.png").decode()


def test_encoded_images_travel_between_processes():
    data = save(picture(np.random.default_rng(14), 20, 30), exif=exif(6))
    image = Encoded(data, "x")
    assert image.size == (30, 20)
    copy = pickle.loads(pickle.dumps(image))
    assert copy.size == (30, 20) and np.array_equal(copy.decode(), image.decode())


# orientation


@pytest.mark.parametrize("value", range(1, 9))
def test_edges_move_with_the_pixels(value):
    stored = np.arange(5 * 7).reshape(5, 7, 1)
    turned = orientation.shown(stored, value)
    assert orientation.shown_size((5, 7), value) == turned.shape[:2]
    for top, left, height, width in boxes(np.random.default_rng(value), (5, 7), 10):
        edges = (left, top, left + width, top + height)
        moved = orientation.shown_edges(edges, (5, 7), value)
        assert orientation.stored_edges(moved, turned.shape[:2], value) == edges
        x0, y0, x1, y1 = moved
        part = orientation.shown(stored[top : top + height, left : left + width], value)
        assert np.array_equal(turned[y0:y1, x0:x1], part)


@pytest.mark.parametrize("data", [b"", b"junk", bytes(1000)])
def test_the_reason_is_the_same_each_time(data):
    """Prepared manifests hold it, and a second preparation must give the same bytes."""
    with pytest.raises(UnreadableExample) as caught:
        Encoded(data, "here").decode()
    assert caught.value.reason == "no image format that is known"
