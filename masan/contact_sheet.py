"""One picture of many images: a titled grid to look at before anything else."""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

_COLUMNS, _ROWS = 8, 6
_THUMB_PX = 128
_GAP_PX = 4
_TITLE_PX = 44
_BACKGROUND = (250, 250, 250)
_INK = (30, 30, 30)


def make_contact_sheet(images: Sequence[Path], title: str, path: Path) -> None:
    """Write a PNG grid of up to 48 images, evenly spread over `images`, in their order."""
    shown = spread(images, _COLUMNS * _ROWS)
    columns = min(_COLUMNS, len(shown))
    rows = -(-len(shown) // columns)
    cell = _THUMB_PX + _GAP_PX
    width = max(columns * cell + _GAP_PX, 4 * cell)
    sheet = Image.new("RGB", (width, rows * cell + _GAP_PX + _TITLE_PX), _BACKGROUND)
    _write_title(sheet, title)
    for number, image_path in enumerate(shown):
        row, column = divmod(number, columns)
        with Image.open(image_path) as image:
            thumb = image.convert("RGB").resize((_THUMB_PX, _THUMB_PX), Image.Resampling.LANCZOS)
        sheet.paste(thumb, (_GAP_PX + column * cell, _TITLE_PX + row * cell))
    sheet.save(path)


def spread(items: Sequence[Path], count: int) -> list[Path]:
    """Up to `count` items, evenly spaced, the first one included."""
    if len(items) <= count:
        return list(items)
    return [items[number * len(items) // count] for number in range(count)]


def _write_title(sheet: Image.Image, title: str) -> None:
    """The title in the largest size that fits the width."""
    draw = ImageDraw.Draw(sheet)
    for size_px in range(22, 9, -1):
        font = ImageFont.load_default(size_px)
        if draw.textlength(title, font=font) <= sheet.width - 4 * _GAP_PX:
            break
    draw.text((2 * _GAP_PX, _TITLE_PX / 2), title, fill=_INK, font=font, anchor="lm")
