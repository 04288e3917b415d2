"""A folder per class, read into memory: duplicates removed, scale bars handled, resized once, cached."""

import hashlib
import io
import os
import re
import tomllib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from model_store.quality.scale_bar import ScaleBarStyle, detect_style
from model_store.quality.scale_bar_cleaning import clean_scale_bar
from model_store.quality.series import series_blocks
from model_store.quality.thumbnails import DUPLICATE_CORRELATION, unique_indices
from training.errors import DatasetInvalidError
from training.sources import (
    CLASSES_FILE,
    Progress,
    Source,
    file_number,
    image_files,
    open_source,
    other_files,
)

LabelMode = Literal["inpaint", "mask", "keep"]
B_ALL_CLASSES: Final = Path(__file__).with_name("b_all_classes.toml")
"""Slugs of the published B-ALL folders."""
CACHE_VERSION: Final = 3
NOT_AN_IMAGE: Final = (OSError, UnidentifiedImageError, Image.DecompressionBombError, ValueError)
"""What `read_square` raises for a file that is no usable image."""


@dataclass(frozen=True, slots=True)
class Dataset:
    """N real images of K classes.

    images: uint8 [N, R, R, 3]. invented: bool [N, R, R], pixels that cleaning had to make up; with
    `mask`, no discriminator looks at them. labels: int64 [N]. blocks: int64 [N], the series block 0..4.
    digest: sha256 over names, bytes and treatment of the files used. skipped: file -> why it was left out.
    """

    root: Path
    classes: tuple[str, ...]
    images: npt.NDArray[np.uint8]
    invented: npt.NDArray[np.bool_]
    labels: npt.NDArray[np.int64]
    files: tuple[str, ...]
    styles: tuple[str, ...]
    blocks: npt.NDArray[np.int64]
    digest: str
    label_mode: LabelMode
    skipped: Mapping[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def resolution(self) -> int:
        return int(self.images.shape[1])

    def images_per_class(self) -> dict[str, int]:
        """Counts by slug, in class order."""
        counts = np.bincount(self.labels, minlength=len(self.classes))
        return {slug: int(count) for slug, count in zip(self.classes, counts, strict=True)}

    def without(self, hidden: frozenset[str]) -> "Dataset":
        """All images but those files."""
        if not hidden:
            return self
        return self.subset(np.array([name not in hidden for name in self.files], dtype=np.bool_))

    def subset(self, keep: npt.NDArray[np.bool_]) -> "Dataset":
        """The images where `keep` [N] is true; the digest covers the choice."""
        index = np.flatnonzero(keep)
        files = tuple(self.files[i] for i in index)
        return Dataset(
            root=self.root,
            classes=self.classes,
            images=self.images[index],
            invented=self.invented[index],
            labels=self.labels[index],
            files=files,
            styles=tuple(self.styles[i] for i in index),
            blocks=self.blocks[index],
            digest=_digest(self.digest, *files),
            label_mode=self.label_mode,
            skipped=self.skipped,
        )


def load_dataset(
    root: Path | str,
    *,
    resolution: int = 256,
    label_mode: LabelMode = "mask",
    deduplicate: bool = True,
    class_slugs: Mapping[str, str] | None = None,
    cache_dir: Path | None = None,
    progress: Progress | None = None,
) -> Dataset:
    """Read every image under `root/<class folder>/`, or in the file that `masan data pack` made of it.

    Folders become classes in alphabetical order; slugs come from `class_slugs`, else `classes.toml` in
    `root` (`[classes]`, folder = "slug"), else the B-ALL map where its four folders are there, else the
    slugged folder name. label_mode: `keep` leaves scale bars; `inpaint` paints them over; `mask` does so and
    marks large painted-over boxes in `invented`. Resize: bicubic, once. Files that are no images are skipped
    and named. Raises DatasetInvalidError for a missing folder, fewer than two classes or an empty class.
    """
    source = open_source(Path(root))
    _check_folders(source)
    slugs = class_slug_list(source, class_slugs or {})
    names = [
        (name, label) for label, folder in enumerate(source.folders) for name in image_files(source, folder)
    ]
    key = _digest(
        _source_digest(source, names),
        str(CACHE_VERSION),
        str(resolution),
        label_mode,
        str(deduplicate),
        *slugs,
    )
    cached = (cache_dir or default_cache_dir()) / f"dataset-{key[:32]}.npz"
    if not cached.exists():
        _build_cache(cached, source, names, resolution, label_mode, deduplicate, progress)
    dataset = _read_cache(cached, source.root, tuple(slugs), key, label_mode)
    return replace(dataset, skipped={**dataset.skipped, **other_files(source)})


def default_cache_dir() -> Path:
    """`$XDG_CACHE_HOME/masan` or `~/.cache/masan`."""
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "masan"


def slugify(name: str) -> str:
    """A folder name as a class slug: lower case, runs of anything else become one underscore."""
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_") or "class"


def _check_folders(source: Source) -> None:
    folders = source.folders
    if len(folders) < 2:
        found = f"1 class folder ({folders[0]})" if folders else "no class folders"
        raise DatasetInvalidError(source.root, f"{found}; at least 2 are needed")
    for folder in folders:
        if not image_files(source, folder):
            raise DatasetInvalidError(source.root, f"class folder {folder!r} holds no image")


def class_slug_list(source: Source, given: Mapping[str, str]) -> list[str]:
    """The slug of each class folder. Raises DatasetInvalidError for a table that cannot name the classes."""
    names, root = source.folders, source.root
    table = _class_table(B_ALL_CLASSES.read_bytes(), B_ALL_CLASSES)
    if set(table) != set(names):
        table = {}
    if CLASSES_FILE in source.files:
        table = _class_table(source.read(CLASSES_FILE), root / CLASSES_FILE)
    unknown = [name for name in given if name not in names]
    if unknown:
        raise DatasetInvalidError(root, f"has no class folder {unknown[0]!r}; there is {', '.join(names)}")
    slugs = [given.get(name, table.get(name, slugify(name))) for name in names]
    for slug in slugs:
        if slugify(slug) != slug:
            raise DatasetInvalidError(root, f"{slug!r} is no class slug; write it like {slugify(slug)!r}")
    if len(set(slugs)) != len(slugs):
        raise DatasetInvalidError(root, f"two folders have the same class slug: {', '.join(slugs)}")
    return slugs


def _class_table(content: bytes, path: Path) -> dict[str, str]:
    try:
        table = tomllib.loads(content.decode())["classes"]
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, KeyError) as error:
        raise DatasetInvalidError(path, f"is no table of classes: {error}") from error
    if not isinstance(table, dict) or not all(isinstance(slug, str) for slug in table.values()):
        raise DatasetInvalidError(path, 'write lines such as Early = "early_pre_b" under [classes]')
    return table


def _digest(*parts: str) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.encode() + b"\0")
    return digest.hexdigest()


def _source_digest(source: Source, names: list[tuple[str, int]]) -> str:
    def line(name: str) -> str:
        return f"{name}:{hashlib.sha256(source.read(name)).hexdigest()}"

    with ThreadPoolExecutor() as pool:
        return _digest(*pool.map(line, (name for name, _ in names)))


def _build_cache(
    target: Path,
    source: Source,
    names: list[tuple[str, int]],
    resolution: int,
    label_mode: LabelMode,
    deduplicate: bool,
    progress: Progress | None,
) -> None:
    originals: list[npt.NDArray[np.uint8]] = []
    kept: list[tuple[str, int]] = []
    skipped: dict[str, str] = {}
    for position, (name, label) in enumerate(names):
        try:
            originals.append(read_square(source.read(name)))
            kept.append((name, label))
        except NOT_AN_IMAGE as error:
            skipped[name] = one_line(error)
        if progress:
            progress(position + 1, len(names))
    labels = np.array([label for _, label in kept], dtype=np.int64)
    missing = sorted(set(range(len(source.folders))) - set(labels.tolist()))
    if missing:
        folder = source.folders[missing[0]]
        raise DatasetInvalidError(source.root, f"class folder {folder!r} holds no readable image")
    if deduplicate:
        unique = unique_indices(originals, labels, DUPLICATE_CORRELATION)
        originals, labels, kept = [originals[i] for i in unique], labels[unique], [kept[i] for i in unique]
    styles = [detect_style(image) for image in originals]
    images = np.empty((len(kept), resolution, resolution, 3), dtype=np.uint8)
    invented = np.zeros((len(kept), resolution, resolution), dtype=np.bool_)

    def prepare(i: int) -> None:
        if label_mode == "keep":
            images[i] = resize(originals[i], resolution)
            return
        cleaned, mask = clean_scale_bar(originals[i], styles[i])
        images[i] = resize(cleaned, resolution)
        if label_mode == "mask" and styles[i] is ScaleBarStyle.LARGE_BOX:
            invented[i] = resize(mask.astype(np.uint8) * 255, resolution) > 0

    with ThreadPoolExecutor() as pool:  # OpenCV and Pillow let other threads run
        list(pool.map(prepare, range(len(kept))))
    numbers = [file_number(name) for name, _ in kept]
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_suffix(f".{os.getpid()}.npz")
    np.savez(
        partial,
        images=images,
        invented=np.packbits(invented, axis=-1),
        labels=labels,
        files=np.array([name for name, _ in kept]),
        styles=np.array([str(style) for style in styles]),
        blocks=series_blocks(labels, [str(s) for s in styles], numbers),
        skipped=np.array(list(skipped.items()), dtype=np.str_).reshape(-1, 2),
    )
    partial.replace(target)


def read_square(content: bytes) -> npt.NDArray[np.uint8]:
    """An image file's middle square [S, S, 3]. Raises ValueError or OSError for what is no usable image."""
    with Image.open(io.BytesIO(content)) as image:
        rgb = image.convert("RGB")
    if rgb.width != rgb.height:
        side = min(rgb.size)
        left, top = (rgb.width - side) // 2, (rgb.height - side) // 2
        rgb = rgb.crop((left, top, left + side, top + side))
    if rgb.width < 16:
        raise ValueError(f"{rgb.width} px wide; at least 16 are needed")
    return np.asarray(rgb)


def image_sizes(source: Source, names: list[str]) -> list[tuple[int, int]]:
    """Width and height of image files, in pixels, as their headers say."""
    sizes = []
    for name in names:
        with Image.open(io.BytesIO(source.read(name))) as image:
            sizes.append(image.size)
    return sizes


def one_line(error: Exception) -> str:
    """Why a file is no usable image."""
    if isinstance(error, UnidentifiedImageError):
        return "is no image that can be read"
    return " ".join(str(error).split()) or type(error).__name__


def resize(image: npt.NDArray[np.uint8], side: int) -> npt.NDArray[np.uint8]:
    """A square image or mask [H, H, ...] at that size, bicubic."""
    if image.shape[0] == side:
        return image
    return np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC))


def _read_cache(
    path: Path, root: Path, slugs: tuple[str, ...], digest: str, label_mode: LabelMode
) -> Dataset:
    with np.load(path, allow_pickle=False) as data:
        side = data["images"].shape[1]
        return Dataset(
            root=root,
            classes=slugs,
            images=data["images"],
            invented=np.unpackbits(data["invented"], axis=-1, count=side).astype(np.bool_),
            labels=data["labels"],
            files=tuple(str(f) for f in data["files"]),
            styles=tuple(str(s) for s in data["styles"]),
            blocks=data["blocks"],
            digest=digest,
            label_mode=label_mode,
            skipped={str(name): str(why) for name, why in data["skipped"]},
        )
