"""A folder per class, read into memory: duplicates removed, scale bars handled, resized once, cached."""

import hashlib
import os
import re
import tomllib
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from model_store.quality.scale_bar import ScaleBarStyle, clean_scale_bar, detect_style
from model_store.quality.series import series_blocks
from model_store.quality.thumbnails import DUPLICATE_CORRELATION, unique_indices
from training.errors import DatasetInvalidError

LabelMode = Literal["inpaint", "mask", "keep"]
SUFFIXES: Final = {".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp"}
B_ALL_CLASSES: Final = {"Benign": "benign", "Early": "early_pre_b", "Pre": "pre_b", "Pro": "pro_b"}
"""Slugs of the published B-ALL folders."""
CACHE_VERSION: Final = 3
Progress = Callable[[int, int], None]


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
    """Read every image under `root/<class folder>/`.

    Folders become classes in alphabetical order; slugs come from `class_slugs`, else `classes.toml` in
    `root` (`[classes]`, folder = "slug"), else the B-ALL map where its four folders are there, else the
    slugged folder name. label_mode: `keep` leaves scale bars; `inpaint` paints them over; `mask` does so and
    marks large painted-over boxes in `invented`. Resize: bicubic, once. Files that are no images are skipped
    and named. Raises DatasetInvalidError for a missing folder, fewer than two classes or an empty class.
    """
    root = Path(root)
    folders = _class_folders(root)
    slugs = _class_slugs(root, folders, class_slugs or {})
    paths = [(path, label) for label, folder in enumerate(folders) for path in _image_files(folder)]
    source = _source_digest(root, paths)
    key = _digest(
        source, str(CACHE_VERSION), str(resolution), label_mode, str(deduplicate), *slugs
    )
    cached = (cache_dir or default_cache_dir()) / f"dataset-{key[:32]}.npz"
    if not cached.exists():
        _build_cache(cached, root, paths, resolution, label_mode, deduplicate, len(folders), progress)
    return _read_cache(cached, root, tuple(slugs), key, label_mode)


def default_cache_dir() -> Path:
    """`$XDG_CACHE_HOME/masan` or `~/.cache/masan`."""
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "masan"


def slugify(name: str) -> str:
    """A folder name as a class slug: lower case, runs of anything else become one underscore."""
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_") or "class"


def _class_folders(root: Path) -> list[Path]:
    if not root.is_dir():
        raise DatasetInvalidError(root, "no such folder")
    folders = sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
    if len(folders) < 2:
        raise DatasetInvalidError(root, f"{len(folders)} class folders; at least 2 are needed")
    return folders


def _class_slugs(root: Path, folders: list[Path], given: Mapping[str, str]) -> list[str]:
    names = [folder.name for folder in folders]
    table: Mapping[str, str] = B_ALL_CLASSES if set(names) == set(B_ALL_CLASSES) else {}
    toml = root / "classes.toml"
    if toml.exists():
        table = tomllib.loads(toml.read_text())["classes"]
    slugs = [given.get(name, table.get(name, slugify(name))) for name in names]
    if len(set(slugs)) != len(slugs):
        raise DatasetInvalidError(root, f"two folders have the same class slug: {slugs}")
    return slugs


def _image_files(folder: Path) -> list[Path]:
    return sorted((p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES), key=_natural)


def _natural(path: Path) -> tuple[int, str]:
    return _file_number(path.name), path.name


def _file_number(name: str) -> int:
    """The last number in a file name, which orders the fields of a slide; -1 without one."""
    numbers = re.findall(r"\d+", name)
    return int(numbers[-1]) if numbers else -1


def _digest(*parts: str) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.encode() + b"\0")
    return digest.hexdigest()


def _source_digest(root: Path, paths: list[tuple[Path, int]]) -> str:
    def line(path: Path) -> str:
        return f"{path.relative_to(root).as_posix()}:{hashlib.sha256(path.read_bytes()).hexdigest()}"

    with ThreadPoolExecutor() as pool:
        return _digest(*pool.map(line, (path for path, _ in paths)))


def _build_cache(
    target: Path,
    root: Path,
    paths: list[tuple[Path, int]],
    resolution: int,
    label_mode: LabelMode,
    deduplicate: bool,
    class_count: int,
    progress: Progress | None,
) -> None:
    originals: list[npt.NDArray[np.uint8]] = []
    kept: list[tuple[Path, int]] = []
    skipped: dict[str, str] = {}
    for position, (path, label) in enumerate(paths):
        try:
            originals.append(_read_square(path))
            kept.append((path, label))
        except (OSError, UnidentifiedImageError, ValueError) as error:
            skipped[path.relative_to(root).as_posix()] = str(error)
        if progress:
            progress(position + 1, len(paths))
    labels = np.array([label for _, label in kept], dtype=np.int64)
    missing = sorted(set(range(class_count)) - set(labels.tolist()))
    if missing:
        raise DatasetInvalidError(root, f"no readable image in class folder number {missing[0] + 1}")
    if deduplicate:
        unique = unique_indices(originals, labels, DUPLICATE_CORRELATION)
        originals, labels, kept = [originals[i] for i in unique], labels[unique], [kept[i] for i in unique]
    styles = [detect_style(image) for image in originals]
    images = np.empty((len(kept), resolution, resolution, 3), dtype=np.uint8)
    invented = np.zeros((len(kept), resolution, resolution), dtype=np.bool_)
    for i, (original, style) in enumerate(zip(originals, styles, strict=True)):
        cleaned, mask = (original, None) if label_mode == "keep" else clean_scale_bar(original, style)
        images[i] = _resize(cleaned, resolution)
        if label_mode == "mask" and style is ScaleBarStyle.LARGE_BOX and mask is not None:
            invented[i] = _resize(mask.astype(np.uint8) * 255, resolution) > 0
    numbers = [_file_number(path.name) for path, _ in kept]
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_suffix(f".{os.getpid()}.npz")
    np.savez(
        partial,
        images=images,
        invented=np.packbits(invented, axis=-1),
        labels=labels,
        files=np.array([path.relative_to(root).as_posix() for path, _ in kept]),
        styles=np.array([str(style) for style in styles]),
        blocks=series_blocks(labels, [str(s) for s in styles], numbers),
        skipped=np.array(list(skipped.items()), dtype=np.str_).reshape(-1, 2),
    )
    partial.replace(target)


def _read_square(path: Path) -> npt.NDArray[np.uint8]:
    with Image.open(path) as image:
        rgb = image.convert("RGB")
    if rgb.width != rgb.height:
        side = min(rgb.size)
        left, top = (rgb.width - side) // 2, (rgb.height - side) // 2
        rgb = rgb.crop((left, top, left + side, top + side))
    if rgb.width < 16:
        raise ValueError(f"{rgb.width} px wide; at least 16 are needed")
    return np.asarray(rgb)


def _resize(image: npt.NDArray[np.uint8], side: int) -> npt.NDArray[np.uint8]:
    if image.shape[0] == side:
        return image
    return np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC))


def _read_cache(path: Path, root: Path, slugs: tuple[str, ...], digest: str, label_mode: LabelMode) -> Dataset:
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
