"""What a step of Table III's classifiers costs in each precision and layout in memory, in CPU seconds.

    python benchmarks/classifier_step.py
    python benchmarks/classifier_step.py --side 224 --steps 2

All ways run in one process, on one thread and in turns; the best round counts. `*` is what a
training takes here.
"""

import argparse
import time
from itertools import product
from typing import get_args

import numpy as np
import torch

from hardware import hardware_line
from training.hardware import Choice, MemoryFormat, Precision, fastest_on
from training.reproduce.classifiers import CLASSIFIERS, ClassifierOptions, input_size, train_classifier

CLASSES = 4
BATCH = 64
ROUNDS = 3


def step_seconds(network: str, side: int, steps: int, choice: Choice) -> float:
    """CPU seconds of a step, the network's start shared among them."""
    options = ClassifierOptions(network=network, image_size=side, steps=steps, batch=BATCH)
    images = np.zeros((BATCH, side, side, 3), dtype=np.uint8)
    labels = np.arange(BATCH) % CLASSES
    started = time.process_time()
    train_classifier(images, labels, CLASSES, options, torch.device("cpu"), choice=choice)
    return (time.process_time() - started) / steps


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--side", type=int, default=64, help="of a ResNet's input, px (default: 64)")
    parser.add_argument("--steps", type=int, default=3, help="a round (default: 3)")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    taken = fastest_on(torch.device("cpu"))
    ways = [Choice(*way, 0.0) for way in product(get_args(Precision), get_args(MemoryFormat))]

    print(hardware_line())
    print(f"{'network':<10} {'precision':<9} {'layout':<14} {'s a step':>8} {'ratio':>6}")
    for network in CLASSIFIERS:
        side = input_size(network, arguments.side)
        rounds = [[step_seconds(network, side, arguments.steps, way) for way in ways] for _ in range(ROUNDS)]
        best = [min(times) for times in zip(*rounds, strict=True)]
        for way, seconds in zip(ways, best, strict=True):
            mark = "*" if (way.precision, way.memory_format) == (taken.precision, taken.memory_format) else ""
            print(
                f"{network:<10} {way.precision:<9} {way.memory_format + mark:<14} {seconds:8.3f} "
                f"{best[0] / seconds:6.2f}"
            )


if __name__ == "__main__":
    main()
