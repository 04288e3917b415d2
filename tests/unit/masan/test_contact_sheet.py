"""The picture of many images."""

from pathlib import Path

import pytest
from PIL import Image

from masan.contact_sheet import make_contact_sheet, spread


def make_images(folder: Path, count: int, size_px: int = 64) -> list[Path]:
    """Plain images whose red channel is their number."""
    paths = [folder / f"{index:06d}.png" for index in range(count)]
    for index, path in enumerate(paths):
        Image.new("RGB", (size_px, size_px), (index, 0, 0)).save(path)
    return paths


def test_shows_a_grid_of_48_spread_over_all_images(tmp_path: Path) -> None:
    images = make_images(tmp_path, 96)

    make_contact_sheet(images, "b-all@1   pro_b   seed 7   96 synthetic images", tmp_path / "sheet.png")

    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.size == (8 * 132 + 4, 6 * 132 + 4 + 44)
        assert sheet.getpixel((4 + 64, 44 + 64)) == (0, 0, 0)
        assert sheet.getpixel((4 + 132 + 64, 44 + 64)) == (2, 0, 0)
        assert sheet.getpixel((4 + 7 * 132 + 64, 44 + 5 * 132 + 64)) == (94, 0, 0)


def test_title_is_drawn(tmp_path: Path) -> None:
    images = make_images(tmp_path, 1)

    make_contact_sheet(images, "one   image", tmp_path / "sheet.png")

    with Image.open(tmp_path / "sheet.png") as sheet:
        title = sheet.crop((0, 0, sheet.width, 44)).convert("L")
        assert min(title.tobytes()) < 60


@pytest.mark.parametrize(("have", "want"), [(1, 1), (48, 48), (49, 48), (500, 48)])
def test_spread_takes_distinct_items_from_the_first_on(have: int, want: int) -> None:
    items = [Path(str(number)) for number in range(have)]

    chosen = spread(items, 48)

    assert chosen[0] == items[0]
    assert len(set(chosen)) == want
