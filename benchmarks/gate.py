"""How long the gate takes to judge an image, beside how long the image takes to be drawn and encoded.

    python benchmarks/gate.py                              # the built-in checkpoint
    python benchmarks/gate.py --store STORE --model b-all@production --images 64

Everything runs in one process and in turns, on one thread each as in a worker; the best round counts. Beside
the ratio it tells how many images each level of the gate accepts at the first attempt.
"""

import argparse
import json
import platform
import tempfile
import time
from collections.abc import Callable, Mapping
from itertools import product

import numpy as np
import torch

from model_store.builtin import import_builtin
from model_store.image_id import ImageId
from model_store.quality.luma import mean_luma
from model_store.quality.reference_set import load_reference_set
from model_store.quality.scale_bar import has_residual_bar
from model_store.sampling import Pixels, make_reproducible, micro_batch_for, sample_images
from model_store.store import ModelStore
from model_store.weights import load_generator
from worker.contract.messages import GateLevel
from worker.device import choose_device, device_label
from worker.encode import encode_file
from worker.gate import Gate, GateReference


def best_ms(parts: Mapping[str, Callable[[], object]], images: int, rounds: int) -> dict[str, float]:
    """Of one image, each part in its quickest round."""
    best = dict.fromkeys(parts, float("inf"))
    for _ in range(rounds):
        for name, run in parts.items():
            started = time.perf_counter()
            run()
            best[name] = min(best[name], time.perf_counter() - started)
    return {name: round(seconds / images * 1e3, 2) for name, seconds in best.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description="Gate time beside sampling time, per image.")
    parser.add_argument("--store", help="without it the built-in checkpoint, in a store of its own")
    parser.add_argument("--model", default="b-all")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--images", type=int, default=8, help="of each class")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    make_reproducible()
    with tempfile.TemporaryDirectory() as folder:
        store = ModelStore(arguments.store or folder)
        if arguments.store is None:
            import_builtin(store)
        checkpoint = store.resolve(arguments.model)
        device = choose_device(arguments.device)
        generator = load_generator(store, checkpoint, device)
        started = time.perf_counter()
        reference = GateReference.of(load_reference_set(store, checkpoint))
        load_seconds = time.perf_counter() - started
    slugs = checkpoint.manifest.classes
    ids = [ImageId(checkpoint.digest[:16], *pair) for pair in product(slugs, [1], range(arguments.images))]
    labels = [slugs.index(image_id.class_slug) for image_id in ids]

    def draw() -> list[Pixels]:
        batches = sample_images(
            generator, checkpoint.digest, ids, labels, micro_batch=micro_batch_for(device)
        )
        return [image for batch in batches for image in batch]

    images = draw()
    gate = Gate(GateLevel.DEFAULT, reference)
    judged = list(zip(images, ids, strict=True))
    parts: dict[str, Callable[[], object]] = {
        "sample": draw,
        "gate": lambda: [gate.judge(image, one.class_slug, is_finite=True) for image, one in judged],
        "scale_bar": lambda: [has_residual_bar(image) for image in images],
        "luma": lambda: [mean_luma(image) for image in images],
        "encode_png": lambda: [encode_file(image, one) for image, one in judged],
    }
    if (copies := reference.copies) is not None:
        parts["memorized"] = lambda: [copies.nearest(image) for image in images]
    milliseconds = best_ms(parts, len(images), arguments.rounds)
    accepted = {}
    for level in (GateLevel.DEFAULT, GateLevel.STRICT):
        at_level = Gate(level, reference)
        passes = [at_level.judge(i, one.class_slug, is_finite=True).reason is None for i, one in judged]
        accepted[level.value] = {
            slug: round(
                float(np.mean([p for p, one in zip(passes, ids, strict=True) if one.class_slug == slug])), 3
            )
            for slug in slugs
        }
    result = {
        "model": checkpoint.reference,
        "resolution": checkpoint.manifest.resolution,
        "device": device_label(device),
        "platform": platform.platform(),
        "torch": torch.__version__,
        "images": len(images),
        "milliseconds_per_image": milliseconds,
        "gate_to_sample": round(milliseconds["gate"] / milliseconds["sample"], 3),
        "reference_load_seconds": round(load_seconds, 2),
        "accepted_at_first": accepted,
    }
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
