"""Train a ResNet34 on real images, with and without synthetic ones, and compare both on held-out real images.

    masan up                                                  # in another terminal
    python examples/train_resnet34.py --real DATA             # DATA: a folder of images for each class

Needs torchvision: pip install '.[training]' in a clone. Both runs take the same number of steps from the same
weights, so that more images do not mean more training.
"""

import argparse
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset
from torchvision.models import resnet34
from torchvision.transforms import v2

from masan import Client, MasanError, SyntheticDataset

B_ALL = {"Benign": "benign", "Early": "early_pre_b", "Pre": "pre_b", "Pro": "pro_b"}
"""Folders of the B-ALL set -> class slugs; other folders are taken to be named by their slug."""
SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"}

COST = """cost:
  a step of 16 images takes 0.7 seconds of one CPU core (Xeon) at 96 px, 0.45 at 64 px and five to six times
  as much at 224 px as at 96. The default, 2 epochs of 400 real images and as many synthetic ones, is 100
  steps for each of the two runs: two and a half minutes of one core, besides making the synthetic images."""

Labelled = list[tuple[Path, str]]


@dataclass(frozen=True)
class Split:
    """Real files with their class slugs: to learn from, and to judge on."""

    train: Labelled
    held_out: Labelled


class RealImages(Dataset[tuple[torch.Tensor, int]]):
    """Files as (transformed image, label); labels count the class slugs in alphabetical order."""

    def __init__(self, files: Labelled, classes: tuple[str, ...], transform: Any) -> None:
        self._files, self._classes, self._transform = files, classes, transform

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        path, slug = self._files[index]
        with Image.open(path) as image:
            return self._transform(image.convert("RGB")), self._classes.index(slug)


def split_real(folder: Path, held_out: float) -> Split:
    """The last part of every class, by file name, is held out.

    Neighbours in a numbered series show the same slide: a random split would test on what was learned. Better
    still is a split by patient, where the files tell whose they are.
    """
    if not folder.is_dir():
        raise SystemExit(f"--real {folder}: there is no such folder")
    train: Labelled = []
    last: Labelled = []
    for of_class in sorted(path for path in folder.iterdir() if path.is_dir()):
        slug = B_ALL.get(of_class.name, of_class.name)
        files = sorted(path for path in of_class.rglob("*") if path.suffix.lower() in SUFFIXES)
        cut = len(files) - max(1, round(held_out * len(files)))
        train += [(path, slug) for path in files[:cut]]
        last += [(path, slug) for path in files[cut:]]
    if not train or not last:
        raise SystemExit(f"--real {folder}: it holds no class folders of at least two images each")
    return Split(train, last)


def make_transform(size_px: int, *, augment: bool) -> Any:
    """PIL image -> normalized float tensor [3, size_px, size_px]."""
    flips = [v2.RandomHorizontalFlip(), v2.RandomVerticalFlip()] if augment else []
    return v2.Compose(
        [
            v2.Resize((size_px, size_px), antialias=True),
            *flips,
            v2.PILToTensor(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize((0.5,) * 3, (0.5,) * 3),
        ]
    )


def epochs(loader: DataLoader[Any], dataset: object) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Batches for ever, in another order each epoch."""
    epoch = 0
    while True:
        if isinstance(dataset, SyntheticDataset):
            dataset.set_epoch(epoch)
        yield from loader
        epoch += 1


def train(dataset: Dataset[Any], classes: int, steps: int, options: argparse.Namespace) -> nn.Module:
    """A ResNet34 from fresh weights after `steps` batches."""
    torch.manual_seed(options.seed)
    network: nn.Module = resnet34(weights=None, num_classes=classes).to(options.device).train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=options.lr, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, options.lr, total_steps=max(2, steps))
    loader = DataLoader(
        dataset,
        batch_size=options.batch,
        shuffle=None if isinstance(dataset, SyntheticDataset) else True,
        num_workers=options.workers,
        drop_last=True,
    )
    for step, (images, labels) in enumerate(epochs(loader, dataset), start=1):
        loss = functional.cross_entropy(network(images.to(options.device)), labels.to(options.device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 10 == 0 or step == steps:
            print(f"  step {step} of {steps}, loss {loss.item():.3f}", flush=True)
        if step == steps:
            return network
    raise AssertionError("the batches go on for ever")


@torch.no_grad()
def accuracy(network: nn.Module, images: RealImages, options: argparse.Namespace) -> float:
    """Share of images whose class is told."""
    network.eval()
    right = 0
    for batch, labels in DataLoader(images, batch_size=options.batch):
        right += int((network(batch.to(options.device)).argmax(1).cpu() == labels).sum())
    return right / len(images)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=COST,
    )
    parser.add_argument("--real", type=Path, required=True, help="folder with a folder of images per class")
    parser.add_argument("--url", default=os.environ.get("MASAN_URL", "http://127.0.0.1:8000"))
    parser.add_argument("--api-key", default=os.environ.get("MASAN_API_KEY"))
    parser.add_argument("--model", help="checkpoint; default: the one in production")
    parser.add_argument("--per-class", type=int, default=100, help="synthetic images a class (100)")
    parser.add_argument("--limit", type=int, default=100, help="real images a class to learn from (100)")
    parser.add_argument("--share", type=float, default=0.5, help="synthetic part of every batch (0.5)")
    parser.add_argument("--held-out", type=float, default=0.25, help="part of the real to judge on (0.25)")
    parser.add_argument("--size", type=int, default=96, help="side of the images, pixels (96)")
    parser.add_argument("--epochs", type=float, default=2.0, help="over real and synthetic together (2)")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--workers", type=int, default=0, help="processes that load images (0: this one)")
    parser.add_argument("--cache-dir", type=Path, default=Path("~/.cache/masan/shards"))
    return parser.parse_args()


def limited(files: Labelled, per_class: int) -> Labelled:
    """The first so many of each class."""
    kept: dict[str, Labelled] = {}
    for path, slug in files:
        kept.setdefault(slug, []).append((path, slug))
    return [each for of_class in kept.values() for each in of_class[:per_class]]


def main() -> None:
    options = parse()
    split = split_real(options.real, options.held_out)
    real = limited(split.train, options.limit)
    classes = tuple(sorted({slug for _, slug in real}))
    with Client(options.url, options.api_key) as client:
        # A job for each class: their shards come side by side, and training begins at the first.
        jobs = [
            client.submit(slug, options.per_class, seed=options.seed, model=options.model) for slug in classes
        ]
    augmented = make_transform(options.size, augment=True)
    mix = SyntheticDataset(
        jobs,
        url=options.url,
        api_key=options.api_key,
        cache_dir=options.cache_dir,
        real=real,
        synthetic_share=options.share,
        transform=augmented,
        seed=options.seed,
    )
    held_out = RealImages(split.held_out, classes, make_transform(options.size, augment=False))
    steps = max(1, round(options.epochs * len(mix) / options.batch))
    print(
        f"{len(real)} real images of {len(classes)} classes to learn from, {len(held_out)} to judge on; "
        f"{steps} steps of {options.batch}"
    )
    results = {}
    for name, dataset in (
        ("real alone", RealImages(real, classes, augmented)),
        ("real + synthetic", mix),
    ):
        print(f"{name}:")
        results[name] = accuracy(train(dataset, len(classes), steps, options), held_out, options)
    for name, share in results.items():
        print(f"accuracy on held-out real images, {name}: {share:.3f}")


if __name__ == "__main__":
    try:
        main()
    except (MasanError, OSError) as error:
        sys.exit(str(error))
