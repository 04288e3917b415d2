"""Image classifiers of Table III: the paper's two and a small one, trained alike and from scratch."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.diffaugment import DiffAugment
from training.errors import ConfigInvalidError, StoppedError, TrainingDivergedError
from training.hardware import MEMORY_FORMATS, Choice, fastest_on

CNN_SIZE: Final = 64
"""Side of the small network's input, px."""
_CNN_CHANNELS: Final = (32, 64, 128, 128)
_MEAN: Final = (0.485, 0.456, 0.406)
_SD: Final = (0.229, 0.224, 0.225)
"""ImageNet's, per channel in [0, 1]."""
_CLASSICAL: Final = DiffAugment("color,translation", color_probability=0.5)
_TEST_BATCH: Final = 64


@dataclass(frozen=True, kw_only=True)
class ClassifierOptions:
    """SGD with momentum and a cosine to zero, cross-entropy, the last state counts.

    The paper names epochs and flips only; the rest is ours. classical: beside flips also quarter turns,
    colour and translation. half_from: half of each batch is drawn from the images before this one, half from
    the others; 0 draws from all alike.
    """

    network: str
    image_size: int
    steps: int
    batch: int = 64
    lr: float = 0.01
    momentum: float = 0.9
    weight_decay: float = 1e-4
    classical: bool = False
    half_from: int = 0
    seed: int = 0


@dataclass(frozen=True)
class Scores:
    """accuracy, and precision and F1 averaged over classes; a class never predicted has precision 0.

    confusion: [K][K], rows are true classes.
    """

    accuracy: float
    macro_precision: float
    macro_f1: float
    confusion: list[list[int]]


def build_classifier(name: str, class_count: int) -> nn.Module:
    """Fresh weights. Raises ConfigInvalidError for an unknown name."""
    if name == "cnn":
        return _small_cnn(class_count)
    from torchvision import models

    builders: dict[str, Callable[..., nn.Module]] = {
        "resnet34": models.resnet34,
        "resnext50": models.resnext50_32x4d,
    }
    if name not in builders:
        raise ConfigInvalidError(f"--classifier {name!r} is not one of {', '.join(CLASSIFIERS)}")
    return builders[name](weights=None, num_classes=class_count)


CLASSIFIERS: Final = ("resnet34", "resnext50", "cnn")


def input_size(name: str, image_size: int) -> int:
    """The small network looks at 64 px, the others at what is asked for."""
    return CNN_SIZE if name == "cnn" else image_size


def _small_cnn(class_count: int) -> nn.Module:
    """Four convolutions with batch norm, each halving the side, then a mean over what is left."""
    layers: list[nn.Module] = []
    before = 3
    for channels in _CNN_CHANNELS:
        layers += [nn.Conv2d(before, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels)]
        layers += [nn.ReLU(inplace=True), nn.MaxPool2d(2)]
        before = channels
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, class_count))


def train_classifier(
    images: npt.NDArray[np.uint8],
    labels: npt.NDArray[np.int64],
    class_count: int,
    options: ClassifierOptions,
    device: torch.device,
    *,
    stop: Callable[[], bool] = lambda: False,
    progress: Callable[[int, int], None] = lambda *_: None,
    choice: Choice | None = None,
) -> nn.Module:
    """A network trained on images [N, H, W, 3] for `options.steps` steps of shuffled batches, in eval mode.

    choice: precision and layout in memory, by default the device's fastest; weights and loss are float32.
    Raises StoppedError when `stop()` says so, TrainingDivergedError if the loss is not finite any more.
    """
    pixels, targets = resized(images, options.image_size), torch.from_numpy(labels).to(device)
    pixels = pixels.to(device)
    random = torch.Generator(device).manual_seed(options.seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed)
        network = build_classifier(options.network, class_count)
    choice = choice or fastest_on(device)
    layout = MEMORY_FORMATS[choice.memory_format]
    network.to(device).to(memory_format=layout)
    optimizer = torch.optim.SGD(
        network.parameters(), lr=options.lr, momentum=options.momentum, weight_decay=options.weight_decay
    )
    network.train()
    batches = _batches(len(targets), options, random, device)
    for step in range(options.steps):
        if stop():
            raise StoppedError("asked to stop")
        index = next(batches)
        for group in optimizer.param_groups:
            group["lr"] = options.lr * (1 + math.cos(math.pi * step / options.steps)) / 2
        batch = _augmented(pixels[index].float().div_(127.5).sub_(1), options.classical, random)
        with torch.autocast(device.type, torch.bfloat16, enabled=choice.precision == "bf16"):
            logits = network(_normalized(batch).contiguous(memory_format=layout))
        loss = F.cross_entropy(logits.float(), targets[index])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        if step % 20 == 19 or step + 1 == options.steps:
            value = float(loss.detach())
            if not math.isfinite(value):
                raise TrainingDivergedError((step + 1) * options.batch, {"loss": value})
            progress(step + 1, options.steps)
    return network.eval()


def _batches(
    count: int, options: ClassifierOptions, random: torch.Generator, device: torch.device
) -> Iterator[Tensor]:
    """Positions of shuffled images, each once before any comes again, without end."""
    if not options.half_from:
        yield from _shuffled(0, count, min(options.batch, count), random, device)
    half = options.batch // 2
    first = _shuffled(0, options.half_from, half, random, device)
    others = _shuffled(options.half_from, count, options.batch - half, random, device)
    for parts in zip(first, others, strict=True):
        yield torch.cat(parts)


def _shuffled(
    start: int, end: int, batch: int, random: torch.Generator, device: torch.device
) -> Iterator[Tensor]:
    """`batch` positions of start..end-1 at a time."""
    order = torch.empty(0, dtype=torch.long, device=device)
    while True:
        while len(order) < batch:
            shuffled = torch.randperm(end - start, generator=random, device=device) + start
            order = torch.cat([order, shuffled])
        yield order[:batch]
        order = order[batch:]


@torch.inference_mode()
def classify(
    network: nn.Module, images: npt.NDArray[np.uint8], image_size: int, device: torch.device
) -> npt.NDArray[np.int64]:
    """Most likely label of each image [N, H, W, 3], [N]."""
    found = [
        network(_normalized(part.to(device).float().div_(127.5).sub_(1))).argmax(dim=1).cpu()
        for part in resized(images, image_size).split(_TEST_BATCH)
    ]
    return np.asarray(torch.cat(found).numpy())


def scores(predicted: npt.NDArray[np.int64], labels: npt.NDArray[np.int64], class_count: int) -> Scores:
    """Scores of predicted labels [N] against true ones [N]."""
    confusion = np.zeros((class_count, class_count), dtype=np.int64)
    np.add.at(confusion, (labels, predicted), 1)
    right = np.diag(confusion).astype(np.float64)
    precision = right / np.maximum(confusion.sum(axis=0), 1)
    recall = right / np.maximum(confusion.sum(axis=1), 1)
    f1 = 2 * precision * recall / np.maximum(precision + recall, np.finfo(np.float64).tiny)
    return Scores(
        accuracy=float(right.sum() / len(labels)),
        macro_precision=float(precision.mean()),
        macro_f1=float(f1.mean()),
        confusion=confusion.tolist(),
    )


def resized(images: npt.NDArray[np.uint8], side: int) -> Tensor:
    """[N, H, W, 3] -> uint8 [N, 3, side, side], antialiased."""
    pixels = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2)
    if pixels.shape[-1] == side:
        return pixels.contiguous()
    parts = [
        F.interpolate(part.float(), (side, side), mode="bicubic", antialias=True).round().clamp(0, 255)
        for part in pixels.split(256)
    ]
    return torch.cat([part.to(torch.uint8) for part in parts])


def _augmented(batch: Tensor, classical: bool, random: torch.Generator) -> Tensor:
    """Flips, the paper's only augmentation; quarter turns, colour and translation where asked for."""
    n = len(batch)
    turns = torch.randint(0, 2, (3, n, 1, 1, 1), generator=random, device=batch.device).bool()
    batch = torch.where(turns[0], batch.flip(2), batch)
    batch = torch.where(turns[1], batch.flip(3), batch)
    if not classical:
        return batch
    batch = torch.where(turns[2], batch.transpose(2, 3), batch)
    return _CLASSICAL(batch, random)


def _normalized(batch: Tensor) -> Tensor:
    """[-1, 1] -> as ImageNet's networks are used to it."""
    values: Any = {"device": batch.device, "dtype": batch.dtype}
    mean, sd = (torch.tensor(v, **values)[:, None, None] for v in (_MEAN, _SD))
    return ((batch + 1) / 2 - mean) / sd
