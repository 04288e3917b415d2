"""Drawn stand-ins for blood smears: light background, ringed red cells, stained nuclei, burnt-in scale bars.

Not meant to look real; meant to have what the code under test looks for: classes that differ in stain and
crowding, bars of the three styles at their places, and file numbers that follow the slides.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter

from model_store.quality.scale_bar import ScaleBarStyle

ImageArray = npt.NDArray[np.uint8]

_NATIVE_SIZE_PX = 224
_OVERSAMPLING = 2  # cells are drawn larger and averaged down, so that their rims are smooth


@dataclass(frozen=True)
class _Stain:
    background: tuple[int, int, int]
    ring: tuple[int, int, int]
    nucleus: tuple[int, int, int]
    nuclei: int
    styles: tuple[ScaleBarStyle, ...]


_LARGE, _RED, _SMALL = ScaleBarStyle.LARGE_BOX, ScaleBarStyle.RED, ScaleBarStyle.SMALL_BOX
_STAINS = {
    "Benign": _Stain((250, 252, 244), (205, 205, 222), (120, 90, 190), 2, (_LARGE, _SMALL, _RED)),
    "Early": _Stain((240, 250, 250), (180, 195, 225), (105, 75, 215), 4, (_LARGE, _RED)),
    "Pre": _Stain((236, 248, 252), (160, 190, 228), (130, 100, 235), 8, (_SMALL, _RED)),
    "Pro": _Stain((254, 255, 252), (225, 228, 226), (222, 130, 232), 3, (_SMALL,)),
}
CLASS_FOLDERS = tuple(_STAINS)


def make_smear_dataset(folder: Path, per_class: int = 12, size: int = 224, seed: int = 0) -> Path:
    """Writes `per_class` numbered JPEG files into each of four class folders; returns `folder`."""
    for class_index, (name, stain) in enumerate(_STAINS.items()):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number in range(1, per_class + 1):
            rng = np.random.default_rng([seed, class_index, number])
            image = draw_scale_bar(draw_smear(rng, name), stain.styles[number % len(stain.styles)])
            picture = Image.fromarray(image).resize((size, size), Image.Resampling.BICUBIC)
            picture.save(folder / name / f"WBC-{name}-{number:03d}.jpg", quality=95, subsampling=0)
    return folder


def draw_smear(rng: np.random.Generator, class_name: str) -> ImageArray:
    """One smear of a class without a scale bar, [224, 224, 3]."""
    stain = _STAINS[class_name]
    side = _NATIVE_SIZE_PX * _OVERSAMPLING
    picture = Image.new("RGB", (side, side), stain.background)
    draw = ImageDraw.Draw(picture)
    for _ in range(40):
        x, y = rng.uniform(0, side, 2)
        radius = rng.uniform(0.035, 0.05) * side
        pallor = radius * rng.uniform(0.3, 0.5)
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=stain.ring)
        draw.ellipse((x - pallor, y - pallor, x + pallor, y + pallor), fill=stain.background)
    for _ in range(stain.nuclei):
        x, y = rng.uniform(0, side, 2)
        width, height = rng.uniform(0.06, 0.1, 2) * side
        draw.ellipse((x - width, y - height, x + width, y + height), fill=stain.nucleus)
    picture = picture.filter(ImageFilter.GaussianBlur(_OVERSAMPLING))
    small = picture.resize((_NATIVE_SIZE_PX, _NATIVE_SIZE_PX), Image.Resampling.BOX)
    noisy = np.asarray(small, dtype=np.float64) + rng.normal(0, 2, (_NATIVE_SIZE_PX, _NATIVE_SIZE_PX, 1))
    return np.clip(np.rint(noisy), 0, 255).astype(np.uint8)


def draw_scale_bar(image: ImageArray, style: ScaleBarStyle) -> ImageArray:
    """Copy of a 224 px image with a bar of that style at its published place."""
    marked = image.copy()
    if style is ScaleBarStyle.LARGE_BOX:
        marked[194:, 193:] = 255
        marked[214:216, 196:] = 0
        marked[197:206, 200:220:4] = 0
        marked[209:221, 196] = 0
    elif style is ScaleBarStyle.RED:
        marked[210:213, 200:203] = marked[210:213, 206:210] = (225, 50, 60)
        marked[213:216, 194:196] = marked[213:216, 217] = (225, 50, 60)
    elif style is ScaleBarStyle.SMALL_BOX:
        marked[206:218, 194:219] = 255
        marked[210:213, 200:203] = marked[210:213, 206:210] = 20
        marked[213:216, 194:196] = 20
    return marked
