"""How the queue scales: images/s of 1 to 16 workers, what an image costs Redis, where one Redis ends.

    python benchmarks/scale.py                      # all three parts, about two minutes
    python benchmarks/scale.py --parts workers --gate off --workers 1 4 16
    python benchmarks/scale.py --parts commands saturation

Workers are real processes on a private Valkey behind a real service; in place of the network each has a
sleep that makes 20 images a second (`--rate`), of pictures that the real network drew. One job is submitted
over HTTP for each number of workers. Efficiency is images/s of N workers, as a share of N times those of one.
Where the machine's cores are the limit, the last column is near 1, and small pictures without a gate follow.

The other two parts let one worker empty a queue without waiting for any generator, count its commands, and
send the recorded bytes again for other jobs, from more and more processes, until Valkey takes no more.
"""

import argparse
import os
import signal
import sys
import tempfile
import time
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # before anything imports NumPy: a fork keeps no threads

from hardware import hardware_line
from scaling.fleet import FORK, MODEL, Fleet, Rate, running_fleet
from scaling.load import ChunkLife, Load, idle_commands, life_of_chunks, saturate, submit_cost

PARTS = ("workers", "commands", "saturation")
BUSY = 0.9
"""Share of the cores above which they, not the queue, are taken for the limit."""
SMALL_PX = 64
TINY_PX = 16
"""Where commands are counted, and no image is looked at."""
CHUNK_SIZES = (1, 32, 64, 256)
ROUNDS = 3
"""Of which the one counts in which a chunk cost least: other programs only ever make it dearer."""


def draw_pictures(fleet: Fleet, sizes_px: list[int]) -> None:
    """The stand-in's pictures, drawn in a process of its own."""
    from scaling import paced

    arguments = (str(fleet.folder / "store"), MODEL, sizes_px, str(fleet.folder))
    drawing = FORK.Process(target=paced.draw_pictures, args=arguments)
    drawing.start()
    drawing.join()
    if drawing.exitcode:
        raise RuntimeError(f"no pictures were drawn: exit code {drawing.exitcode}")


def pictures_of(fleet: Fleet, size_px: int) -> Path:
    return fleet.folder / f"pictures-{size_px}.npy"


def scale_out(
    fleet: Fleet, size_px: int, gate: str, counts: list[int], arguments: argparse.Namespace
) -> Rate:
    """Print a line for each number of workers; the last one's rate."""
    pictures = pictures_of(fleet, size_px)
    print(f"\n{size_px} px, gate {gate}, {arguments.rate:g} images/s a worker at most")
    print(
        "workers  images/s  efficiency  images a chunk  CPU ms an image: workers  service  Valkey  cores busy"
    )
    rates: list[Rate] = []
    for number, count in enumerate(counts):
        fleet.add_workers(count - len(fleet.workers), pictures, arguments.rate)
        images = round(count * arguments.rate * arguments.seconds)
        rate = fleet.measure(images, gate, seed=size_px + number)
        rates.append(rate)
        cpu = rate.cpu_ms
        print(
            f"{count:7}  {rate.images_per_second:8.1f}  {efficiency(rates):10.3f}  {rate.chunk_images:14}"
            f"  {cpu['workers']:7.2f}  {cpu['service']:7.3f}  {cpu['valkey']:6.3f}"
            f"  {rate.connections:11}  {rate.busy:10.2f}",
            flush=True,
        )
    fleet.stop_workers()
    return rates[-1]


def efficiency(rates: list[Rate]) -> float:
    """Of the last, against the first per worker."""
    one = rates[0].images_per_second / rates[0].workers
    return rates[-1].images_per_second / rates[-1].workers / one


def measure_workers(fleet: Fleet, arguments: argparse.Namespace) -> None:
    """As asked, and without a gate on small pictures if the cores could not judge and encode so many."""
    last = scale_out(fleet, arguments.size, arguments.gate, arguments.workers, arguments)
    if last.busy > BUSY and (arguments.size, arguments.gate) != (SMALL_PX, "off"):
        print(f"The cores are {last.busy:.0%} busy: what ends here is this machine, not the queue.")
        scale_out(fleet, SMALL_PX, "off", [arguments.workers[0], arguments.workers[-1]], arguments)


def measure_commands(fleet: Fleet, arguments: argparse.Namespace) -> list[ChunkLife]:
    """Print what a submit and a chunk's life cost."""
    print("\ncommands that Valkey executes for one POST /generate of n=1 (those within scripts counted too)")
    for waiting, commands in submit_cost(fleet):
        print(f"  with {waiting:3} jobs waiting: {commands:6.1f}")
    fleet.stop_service()
    pictures = pictures_of(fleet, TINY_PX)
    idle = idle_commands(fleet, pictures)
    print(f"\na chunk's life, forward passes of {arguments.micro_batch} images; bytes of Valkey's memory")
    print("                                per image                          of each chunk")
    print("images  sent  trips  executed   sent  executed  a job  queued  made, 60 s  done  events")
    lives = []
    for images in CHUNK_SIZES:
        life = life_of_chunks(fleet, images, pictures, arguments.micro_batch, idle)
        lives.append(life)
        per_chunk = f"{life.sent:4.1f}  {life.round_trips:5.1f}  {life.executed:8.1f}"
        per_image = f"{life.sent / images:5.2f}  {life.executed / images:8.2f}"
        kept = f"{life.done_bytes:4.0f}  {life.event_bytes:6.0f}"
        of_chunk = f"{life.queued_bytes:6.0f}  {life.made_bytes:10.0f}  {kept}"
        print(f"{images:6}  {per_chunk}  {per_image}  {life.job_bytes:5.0f}  {of_chunk}", flush=True)
    return lives


def measure_saturation(fleet: Fleet, lives: list[ChunkLife]) -> None:
    """Print what a chunk takes of a core, then a ladder of processes that send as much as they can."""
    print(
        "\nthe same bytes, again         chunks/s  commands/s  Valkey's core  CPU us a chunk  images/s a core"
    )
    for life in lives:
        loads = [saturate(fleet, life, os.cpu_count() or 1, is_pipelined=False) for _ in range(ROUNDS)]
        best_load = max(loads, key=lambda load: load.chunks_per_core)
        show_load(f"{life.images:3} a chunk, as recorded", best_load, life)
    best = 0.0
    for processes in range(1, 2 * (os.cpu_count() or 1) + 2):
        load = saturate(fleet, lives[-1], processes, is_pipelined=True)
        show_load(f"{lives[-1].images:3} a chunk, pipelined by {processes}", load, lives[-1])
        if load.chunks_per_second < 1.05 * best:
            break
        best = load.chunks_per_second


def show_load(name: str, load: Load, life: ChunkLife) -> None:
    rates = f"{load.chunks_per_second:8.0f}  {load.commands_per_second:10.0f}  {load.valkey_core:13.2f}"
    print(
        f"{name:28}  {rates}  {load.cpu_us_per_chunk:14.0f}  {load.chunks_per_core * life.images:16.0f}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--workers", nargs="+", type=int, default=[1, 2, 4, 8, 16], help="rising")
    parser.add_argument("--rate", type=float, default=20.0, help="images/s of one stand-in")
    parser.add_argument("--size", type=int, default=256, help="width and height in pixels")
    parser.add_argument("--gate", choices=("off", "default", "strict"), default="default")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each number of workers")
    parser.add_argument("--micro-batch", type=int, default=32, help="of the parts without workers: a GPU's")
    arguments = parser.parse_args()
    if arguments.workers != sorted(set(arguments.workers)) or arguments.workers[0] < 1:
        parser.error(f"--workers: {arguments.workers} are not rising numbers from 1")
    if arguments.seconds < 8:
        parser.error(
            f"--seconds: {arguments.seconds:g} is below 8, of which each worker's ends are not counted"
        )
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that no process is left behind
    started = time.monotonic()
    print(hardware_line())
    with tempfile.TemporaryDirectory() as name, running_fleet(Path(name)) as fleet:
        draw_pictures(fleet, sorted({arguments.size, SMALL_PX, TINY_PX}))
        if "workers" in arguments.parts:
            measure_workers(fleet, arguments)
        if {"commands", "saturation"} & set(arguments.parts):
            lives = measure_commands(fleet, arguments)
            if "saturation" in arguments.parts:
                measure_saturation(fleet, lives)
    print(f"\n{time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
