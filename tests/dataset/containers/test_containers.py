"""A picture written with other pixels keeps all else that its file holds, and cannot be told from an untouched one."""

import io
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image, PngImagePlugin
from scipy.stats import rankdata
from sklearn.datasets import load_sample_images

from wmplug.dataset.containers import directories, gif, jpeg, png, webp
from wmplug.dataset.records import Changes
from wmplug.dataset.sources import open_source
from wmplug.dataset.sources.pictures import read_picture, write_like
from wmplug.errors import InputError

MIRROR = Image.Transpose.FLIP_LEFT_RIGHT


def encode(picture, kind, **options):
    file = io.BytesIO()
    picture.save(file, format=kind, **options)
    return file.getvalue()


PHOTO = Image.fromarray(load_sample_images().images[0][150:240, 200:320])
GREY = PHOTO.convert("L")
CLEAR = PHOTO.convert("RGBA")
CLEAR.putalpha(GREY)
FEW = PHOTO.quantize(60)
NOTES = PngImagePlugin.PngInfo()
NOTES.add_text("Software", "editor")
NOTES.add_itxt("XML:com.adobe.xmp", "<x/>")


def exif(**tags):
    made = Image.Exif()
    made[270], made[305] = "about", "camera"
    for tag, value in tags.items():
        made[int(tag[1:])] = value
    return made


LOSSLESS = {
    "PNG": encode(PHOTO, "PNG"),
    "PNG with notes": encode(PHOTO, "PNG", pnginfo=NOTES, icc_profile=b"profile", dpi=(72, 72), exif=exif()),
    "PNG of one level": encode(PHOTO, "PNG", compress_level=1),
    "PNG of grey": encode(GREY, "PNG", optimize=True),
    "PNG of grey with alpha": encode(CLEAR.convert("LA"), "PNG"),
    "PNG with alpha": encode(CLEAR, "PNG"),
    "PNG of two colours": encode(PHOTO.convert("1"), "PNG"),
    "PNG of a palette": encode(FEW, "PNG"),
    "PNG of a clear colour in a palette": encode(FEW, "PNG", transparency=3),
    "PNG of alpha in a palette": encode(FEW, "PNG", transparency=bytes(range(60))),
    "PNG of 4 bits": encode(PHOTO.quantize(12), "PNG", bits=4),
    "PNG of 2 bits": encode(PHOTO.quantize(4), "PNG", bits=2),
    "PNG of a clear colour": encode(PHOTO, "PNG", transparency=PHOTO.getpixel((3, 3))),
    "PNG of a clear grey": encode(GREY, "PNG", transparency=GREY.getpixel((3, 3))),
    "GIF": encode(FEW, "GIF", comment=b"about"),
    "GIF of a clear colour": encode(FEW, "GIF", transparency=3, interlace=0),
    "WebP": encode(PHOTO, "WEBP", lossless=True, exif=exif()),
    "BMP": encode(PHOTO, "BMP"),
    "BMP of grey": encode(GREY, "BMP"),
    "BMP of a palette": encode(FEW, "BMP"),
    "BMP of two colours": encode(PHOTO.convert("1"), "BMP"),
    "PPM": b"P6 # about\n120 90\n# more\n255\n" + PHOTO.tobytes(),
    "PGM": encode(GREY, "PPM"),
    **{
        f"TIFF {kind}": encode(PHOTO, "TIFF", compression=kind, description="about", tiffinfo={278: 16, 274: turn})
        for kind, turn in (("raw", 1), ("tiff_lzw", 1), ("tiff_adobe_deflate", 6), ("packbits", 3))
    },
    "TIFF of a palette": encode(FEW, "TIFF", compression="tiff_lzw", software="editor"),
    "TIFF of differences": encode(PHOTO, "TIFF", compression="tiff_lzw", tiffinfo={317: 2, 278: 32}),
}
LOSSY = {
    "JPEG": encode(PHOTO, "JPEG"),
    "JPEG of grey": encode(GREY, "JPEG", quality=40, subsampling=2),
    "JPEG with notes": encode(PHOTO, "JPEG", xmp=b"<x/>", comment=b"about", icc_profile=b"p" * 70_000, dpi=(72, 72)),
    "JPEG with EXIF": encode(PHOTO, "JPEG", exif=exif(), subsampling=0, quality=95),
    "JPEG with best codes": encode(PHOTO, "JPEG", optimize=True),
    "progressive JPEG": encode(PHOTO, "JPEG", progressive=True, subsampling=1),
    "JPEG with restarts": encode(PHOTO, "JPEG", restart_marker_blocks=4),
    "turned JPEG": encode(PHOTO, "JPEG", exif=exif(_274=6)),
    "WebP of quality 30": encode(PHOTO, "WEBP", quality=30),
    "WebP with alpha": encode(CLEAR, "WEBP", quality=60, xmp=b"<x/>"),
}


def parts(data):
    """What a file holds beside its pixels, in its order."""
    if data[:4] == b"\x89PNG":
        return [(kind, content) for kind, content in png.chunks(data) if kind != b"IDAT"]
    if data[:2] == b"\xff\xd8":
        found, tail = jpeg.segments(data)
        codes = jpeg._TABLES
        return [*((one.marker, b"" if one.marker == codes else one.content) for one in found), tail]
    if data[:4] == b"RIFF":
        return [(kind, b"" if kind in (b"VP8 ", b"VP8L", b"ALPH") else content) for kind, content in webp.chunks(data)]
    if data[:3] == b"GIF":
        place = gif.frame(data)
        return [data[: place.start], data[place.end :]]
    if data[:2] in (b"II", b"MM"):
        where = (273, 279)
        return [
            [(one.tag, one.kind, one.count, directories_value(data, one)) for one in entries if one.tag not in where]
            for _, entries, _ in directories.directories(data)
        ]
    if data[:2] == b"BM":
        return data[: struct.unpack_from("<I", data, 10)[0]]
    return data[: -90 * 120 * {b"P5": 1, b"P6": 3}[data[:2]]]


def directories_value(data, one):
    return data[one.at : one.at + directories._SIZES[one.kind] * one.count]


@pytest.mark.parametrize("name", [*LOSSLESS, *LOSSY])
def test_other_pixels_leave_all_else_as_it_was(name):
    data = (LOSSLESS | LOSSY)[name]
    before = read_picture(data, name)
    assert write_like(data, before, name) == data
    new = before.transpose(MIRROR)
    written = write_like(data, new, name)
    after = read_picture(written, name)
    assert (after.mode, after.size) == (before.mode, before.size)
    away = np.abs(np.asarray(after, float) - np.asarray(new, float)).mean()
    assert away == 0 if name in LOSSLESS else away < 12  # as much as the quality takes
    assert parts(written) == parts(data)
    assert abs(len(written) - len(data)) < 0.03 * len(data) + 40


SETTINGS = [
    *(("PNG", "RGB", {"compress_level": level}) for level in (0, 1, 2, 3, 4, 5, 6, 9)),
    ("PNG", "RGB", {"optimize": True}),
    ("PNG", "1", {}),
    ("PNG", "P", {"bits": 4}),
    ("PNG", "P", {}),
    ("GIF", "P", {"interlace": 0}),
    *(("WEBP", "RGB", {"quality": quality}) for quality in (30, 80, 95)),
    ("WEBP", "RGB", {"lossless": True}),
    *(("JPEG", "RGB", {"quality": quality}) for quality in (20, 75, 95)),
    ("JPEG", "RGB", {"optimize": True}),
    ("JPEG", "L", {"progressive": True}),
    *(("TIFF", "RGB", {"compression": kind}) for kind in ("tiff_lzw", "tiff_adobe_deflate", "packbits")),
]


@pytest.mark.parametrize(("kind", "mode", "options"), SETTINGS)
def test_the_encoder_of_the_file_would_have_written_the_same_of_these_pixels(kind, mode, options):
    photos = [PHOTO, Image.fromarray(load_sample_images().images[1][100:190, 200:330])]
    for photo in photos:
        picture = photo.quantize(16) if mode == "P" else photo.convert(mode)
        data = encode(picture, kind, **options)
        with Image.open(io.BytesIO(data)) as stored:
            mirrored = stored.transpose(MIRROR)
        written = write_like(data, read_picture(data, "it").transpose(MIRROR), "it")
        assert written == encode(mirrored, kind, **options)


def test_a_longer_stream_is_cut_where_its_encoder_cuts():
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (180, 190, 3), np.uint8))
    data, due = (encode(one, "PNG", compress_level=1) for one in (Image.new("RGB", noise.size), noise))
    assert [sum(kind == b"IDAT" for kind, _ in png.chunks(one)) for one in (data, due)] == [1, 2]
    assert write_like(data, noise, "it") == due


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP"])
@pytest.mark.parametrize("turn", range(1, 9))
def test_a_picture_is_read_as_it_is_shown_and_stored_as_it_was(kind, turn):
    options = {"tiffinfo": {274: turn}} if kind == "TIFF" else {"exif": exif(_274=turn)}
    if kind == "WEBP":
        options["lossless"] = True
    data = encode(PHOTO, kind, **options)
    shown = read_picture(data, "it")
    assert shown.size == ((90, 120) if turn > 4 else (120, 90))
    marked = shown.copy()
    marked.paste("red", (0, 0, 40, 40))  # in the corner as shown
    written = read_picture(write_like(data, marked, "it"), "it")
    assert np.abs(np.asarray(written, float) - np.asarray(marked, float)).mean() < 4


def _interlaced(picture):
    """A PNG in seven passes, which Pillow reads and does not write."""
    header = png.Header(*picture.size, 8, 2, 0, 0, 1)
    raw = png._lines(png._samples(picture, header), header, None)
    made = [(b"IHDR", struct.pack(">IIBBBBB", *header)), (b"IDAT", zlib.compress(raw, 9)), (b"IEND", b"")]
    return png.SIGNATURE + b"".join(png._chunk(*one) for one in made)


def test_an_interlaced_png_stays_interlaced():
    data = _interlaced(PHOTO)
    assert read_picture(data, "it").tobytes() == PHOTO.tobytes()
    written = write_like(data, PHOTO.transpose(MIRROR), "it")
    assert read_picture(written, "it").tobytes() == PHOTO.transpose(MIRROR).tobytes()
    assert parts(written) == parts(data)


def test_a_clear_colour_stays_clear_and_nothing_else_becomes_clear():
    spots = PHOTO.copy()
    spots.paste((9, 9, 9), (0, 0, 20, 20))
    data = encode(spots, "PNG", transparency=(9, 9, 9))
    shown = np.asarray(read_picture(data, "it"))
    assert (shown[:20, :20, 3] == 0).all()
    new = shown.copy()
    new[:20, :20], new[50:60, 50:60] = shown[20:40, 20:40], [9, 9, 9, 255]
    written = np.asarray(read_picture(write_like(data, Image.fromarray(new), "it"), "it"))
    assert (written[..., 3] == 255).all()
    assert np.abs(written.astype(int) - new).max() <= 1


def _with_thumbnail(picture, of=PHOTO):
    small = encode(of.resize((40, 30), Image.Resampling.BOX), "JPEG", quality=70)
    entries = struct.pack("<HHHII", 1, 270, 2, 4, int.from_bytes(b"cam\0", "little")) + struct.pack("<I", 26)
    second = struct.pack("<HHHIIHHII", 2, 513, 4, 1, 56, 514, 4, 1, len(small)) + bytes(4)
    block = b"II*\0\x08\0\0\0" + entries + second
    return encode(picture, "JPEG", exif=b"Exif\0\0" + block + small)


def test_the_thumbnail_of_a_photo_shows_its_new_pixels():
    data, new = _with_thumbnail(PHOTO), PHOTO.transpose(MIRROR)
    written = write_like(data, new, "it")
    exif_of = [one.content[6:] for one in jpeg.segments(written)[0] if one.marker == 0xE1]
    place = directories.thumbnail(exif_of[0])
    small = Image.open(io.BytesIO(exif_of[0][place.start : place.start + place.length]))
    likely = new.resize(small.size, Image.Resampling.BOX)
    away = np.abs(np.asarray(small, float) - np.asarray(likely, float)).mean()
    assert away < 12 < 30 < np.abs(np.asarray(small, float) - np.asarray(likely.transpose(MIRROR), float)).mean()
    with pytest.raises(InputError, match="its thumbnail is not its picture made small"):
        write_like(_with_thumbnail(PHOTO, PHOTO.transpose(MIRROR)), new, "it")


def test_the_first_picture_of_several_is_read_and_none_is_rewritten(tmp_path):
    several = {
        "jpg": encode(PHOTO, "MPO", save_all=True, append_images=[GREY.convert("RGB")]),
        "tif": encode(PHOTO, "TIFF", save_all=True, append_images=[GREY.convert("RGB")]),
    }
    for kind, data in several.items():
        shown = read_picture(data, "it")
        assert np.abs(np.asarray(shown, float) - np.asarray(PHOTO, float)).mean() < 12
        with pytest.raises(InputError, match="it cannot be written with other pixels"):
            write_like(data, shown.transpose(MIRROR), "it")
        for label in "ab":
            (tmp_path / kind / label).mkdir(parents=True)
            (tmp_path / kind / label / f"0.{kind}").write_bytes(data)
        written = open_source(tmp_path / kind).write(tmp_path / f"{kind}-copy", Changes({0: 1}))
        assert [file.read_bytes() for file in sorted(written.data.rglob("*.*"))] == [data] * 2
    with pytest.raises(InputError, match="is a moving picture"):
        read_picture(encode(FEW, "GIF", save_all=True, append_images=[FEW.transpose(MIRROR)]), "it")


def _signed_png():
    found = png.chunks(LOSSLESS["PNG"])
    return png.SIGNATURE + b"".join(png._chunk(*one) for one in [found[0], (b"caBX", b"manifest"), *found[1:-1]])


UNWRITABLE = {
    "16 bits": encode(Image.fromarray(np.arange(9000, dtype=np.uint16).reshape(90, 100)), "PNG"),
    "CMYK": encode(PHOTO.convert("CMYK"), "JPEG"),
    "signed PNG": _signed_png(),
    "signed JPEG": LOSSY["JPEG"][:2] + b"\xff\xeb\x00\x08JP\0\1\0\0" + LOSSY["JPEG"][2:],
    "preview": LOSSY["JPEG"][:2] + b"\xff\xed\x00\x14Photoshop 3.08BIM\x04\x0c"[:22] + LOSSY["JPEG"][2:],
    "text": b"P3\n2 1\n255\n1 2 3 4 5 6\n",
}


@pytest.mark.parametrize("name", UNWRITABLE)
def test_what_cannot_be_written_unseen_is_read_and_refused(name):
    data = UNWRITABLE[name]
    if name == "preview":
        data = LOSSY["JPEG"][:2] + b"\xff\xed\x00\x14Photoshop 3.08BI" + LOSSY["JPEG"][2:]
        data = data.replace(b"\x00\x14Photoshop 3.08BI", b"\x00\x16Photoshop 3.08BIM\x04\x0c")
    shown = read_picture(data, "it")
    with pytest.raises(InputError, match=r"it cannot be written with other pixels .*label-twins") as refused:
        write_like(data, shown.transpose(MIRROR), "it")
    assert refused.value.__cause__ is not None
    assert write_like(data, shown, "it") == data


def facts(path):
    """Everything about a file but its pixels, as numbers."""
    data = path.read_bytes()
    with Image.open(path) as picture:
        area, info = picture.width * picture.height, picture.info
        found = [len(data), len(data) / area, picture.width, picture.height, len(picture.mode), len(info)]
        found += [zlib.crc32(repr(sorted((key, str(value)) for key, value in info.items())).encode()) % 997]
        found += [zlib.crc32(repr(getattr(picture, "quantization", None)).encode()) % 997]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found += [zlib.crc32(repr(sorted(picture.getexif().items())).encode()) % 997]
    held = parts(data)
    found += [len(held), zlib.crc32(repr([part[0] for part in held]).encode()) % 997, path.stat().st_mtime]
    found += [sum(len(part[1]) for part in held if isinstance(part, tuple))]
    if data[:4] == b"RIFF":
        coded = dict(webp.chunks(data))[b"VP8 "]
        steps, shares = webp.quantisers(coded)
        found += [*steps, *shares, coded[0], int.from_bytes(coded[:3], "little") >> 5]
    if data[:4] == b"\x89PNG":
        streams = [content for kind, content in png.chunks(data) if kind == b"IDAT"]
        raw = zlib.decompress(b"".join(streams))
        header = png.Header(*struct.unpack(">IIBBBBB", png.chunks(data)[0][1]))
        used = np.bincount([raw[at] for at in png._starts(header)], minlength=5) / header.height
        found += [len(streams), len(streams[0]), streams[0][1], len(zlib.compress(raw, 9)) / len(data), *used]
    return found


FILES = {
    "png": {"pnginfo": NOTES, "compress_level": 9},
    "jpg": {"quality": 83, "exif": exif(), "comment": b"about"},
    "progressive.jpg": {"quality": 70, "progressive": True, "dpi": (300, 300)},
    "webp": {"quality": 30, "exif": exif()},
    "gif": {},
    "tif": {"compression": "tiff_lzw", "description": "about"},
}


def _guesses(rows, marked):
    """(n, columns) how likely each file is marked, said by all others; of each column of marks.

    Ridge regression with Gaussian kernel on the ranks of all statistics, each file left out once (Allen 1974).
    """
    ranks = rankdata(rows[:, np.ptp(rows, axis=0) > 0], axis=0)
    ranks = (ranks - ranks.mean(axis=0)) / ranks.std(axis=0)
    near = np.exp(-np.square(ranks[:, None] - ranks[None]).sum(axis=2) / (2 * ranks.shape[1]))
    fitted = near @ np.linalg.inv(near + np.eye(len(near)))
    said, own = marked - marked.mean(axis=0), np.diag(fitted)[:, None]
    return (fitted @ said - own * said) / (1 - own)


def _auc(rows, marked, draws=999):
    """The area under the curve, and the share of permutations of the marks with as large a one."""
    rng = np.random.default_rng(0)
    columns = np.stack([marked, *(rng.permutation(marked) for _ in range(draws))], axis=1).astype(float)
    ranks, ours = rankdata(_guesses(rows, columns), axis=0), int(marked.sum())
    areas = ((ranks * columns).sum(axis=0) - ours * (ours + 1) / 2) / (ours * (len(marked) - ours))
    return areas[0], np.mean(areas >= areas[0])


@pytest.mark.parametrize("kind", FILES)
def test_no_classifier_finds_the_rewritten_files_by_anything_but_pixels(tmp_path, kind):
    rng, count = np.random.default_rng(0), 240
    photos = list(load_sample_images().images)
    for number in range(count):
        top, left, side = rng.integers(0, 350), rng.integers(0, 560), rng.integers(48, 72)
        place = tmp_path / "set" / "ab"[number % 2] / f"{number}.{kind}"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(photos[number % 2][top : top + side, left : left + side]).save(place, **FILES[kind])
    source = open_source(tmp_path / "set")
    marked = np.isin(np.arange(count), rng.choice(count, count // 3, replace=False))
    records = {record.index: record for record in source.picked(np.flatnonzero(marked).tolist())}
    source.write(tmp_path / "copy", Changes(inputs={i: one.input.transpose(MIRROR) for i, one in records.items()}))
    files = [(tmp_path / "copy" / record.name, tmp_path / "set" / record.name) for record in source.records()]
    assert [one.read_bytes() != other.read_bytes() for one, other in files] == marked.tolist()
    rows = np.array([facts(file) for file, _ in files], float)
    # Nothing is tuned: under permutation of the marks the share is uniform.
    assert _auc(rows, marked)[1] > 0.01
    if kind in ("gif", "tif"):
        return
    for index in np.flatnonzero(marked):  # what Pillow writes by itself is found at once
        file, _ = files[index]
        with Image.open(file) as picture:
            picture.load()
            picture.save(file, quality=90)
        rows[index] = facts(file)
    area, share = _auc(rows, marked)
    assert area > 0.9
    assert share == 0.001
