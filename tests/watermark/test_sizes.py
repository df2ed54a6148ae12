"""Photos of mixed sizes and modes become carriers of one, and the public line states it."""

import numpy as np
import pytest
from PIL import Image

import wmplug
from wmplug.errors import InputError
from wmplug.register.notary.package import prepare
from wmplug.watermark.sizes import Size, sized

PASSPHRASE = "correct horse battery staple"
AGE = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p"


def photo(i, mode="RGB", size=(24, 18)):
    pixels = np.random.default_rng(i).integers(0, 256, (size[1], size[0], 3), np.uint8)
    return Image.fromarray(pixels).convert(mode)


@pytest.fixture
def photos():
    modes = ["RGB", "L", "RGBA", "P"]
    return [photo(i, modes[i % 4], (20 + i % 7, 16 + i % 5)) for i in range(80)]


def make(owner, photos, **options):
    labels = [i % 10 for i in range(len(photos))]
    return wmplug.create(owner, scheme="random-label", carriers=photos, labels=labels, classes=10, **options)


def test_mixed_photos_are_brought_to_one_size_which_is_public(owner, photos):
    with pytest.raises(InputError, match="bring pictures to one with image_size="):
        make(owner, photos)
    mark = make(owner, photos, image_size=(12, 16))
    assert mark.public["pictures"] == {"height": 12, "width": 16, "mode": "RGB"}
    picture = mark.triggers.row(0)
    assert (picture.size, picture.mode) == ((16, 12), "RGB")
    assert make(owner, photos, image_size=(16, 12)).id != mark.id


def test_grey_photos_stay_grey():
    assert Size.of(8, [photo(1, "L"), photo(2, "1")]).mode == "L"
    assert Size.of(8, [photo(1, "L"), photo(2, "P")]).mode == "RGB"


def test_proportions_stay_and_a_photo_is_turned_as_it_is_shown():
    wide = Image.fromarray(np.repeat(np.arange(0, 256, 4, dtype=np.uint8)[None], 32, 0)).convert(
        "L"
    )  # 64 wide, 32 high
    (cut,) = Size(32, 32, "L").apply([wide])
    np.testing.assert_allclose(np.asarray(cut), np.asarray(wide)[:, 16:48], atol=2)
    turned = wide.rotate(90, expand=True)
    exif = turned.getexif()
    exif[0x0112] = 6  # shown turned by 90 degrees, clockwise
    turned.getexif().update(exif)
    np.testing.assert_array_equal(np.asarray(Size(32, 64, "L").apply([turned])[0]), np.asarray(wide))


class Processor:
    def __init__(self, size, crop=None):
        self.size, self.crop_size, self.do_center_crop = size, crop, crop is not None


@pytest.mark.parametrize(
    ("wanted", "pixels"),
    [
        (9, (9, 9)),
        ([5, 7], (5, 7)),
        (Processor({"height": 6, "width": 8}), (6, 8)),
        (Processor({"shortest_edge": 20}, {"height": 16, "width": 16}), (16, 16)),
        (Processor({"shortest_edge": 20}), (20, 20)),
    ],
)
def test_a_size_is_given_in_pixels_or_by_a_processor(wanted, pixels):
    size = Size.of(wanted, [photo(0)])
    assert (size.height, size.width) == pixels


@pytest.mark.parametrize("wanted", ["big", True, 0, 2.5, (1, 2, 3), Processor({"longest_edge": 3}), None])
def test_what_is_no_size_is_refused(wanted):
    with pytest.raises(InputError, match="image_size="):
        Size.of(wanted, [photo(0)])


def test_arrays_have_a_size_already(owner, digits):
    with pytest.raises(InputError, match="leave it out"):
        make(owner, digits[0][:80], image_size=8)


def test_the_notarys_package_has_the_photos_as_they_were_asked(photos, tmp_path):
    owner = wmplug.Owner.create(tmp_path / "register", name="Ada", passphrase=PASSPHRASE, scrypt_n=2**10)
    mark = make(owner, photos, image_size=12)
    labels = [i % 10 for i in range(80)]
    prepare(owner, mark.public, tmp_path / "a.age", recipient=AGE, case="1", carriers=photos, labels=labels)
    again = sized(photos, mark.public)
    prepare(owner, mark.public, tmp_path / "b.age", recipient=AGE, case="2", carriers=again, labels=labels)
