"""One training run from its first image to its last: data, trainer, snapshots, signals, progress."""

import math
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from model_store.quality.extractors import FeatureExtractor
from model_store.quality.feature_cache import FeatureCache
from training.config import TrainConfig
from training.data import Dataset, default_cache_dir, load_dataset
from training.errors import ConfigInvalidError, RunInvalidError, TrainingDivergedError
from training.evaluation.reference import Progress, extract_reference
from training.kinds import (
    VARIANT,
    Kinds,
    counts_of,
    counts_per_class,
    drawn_centres,
    find_kinds,
    restore_kinds,
)
from training.loop import Trainer
from training.origin import Origin
from training.overfitting import OverfittingCheck
from training.process import StopSignals, prepare_process
from training.progress import TrainingProgress
from training.ranks import Ranks
from training.recorder import Recorder
from training.run_dir import RunDir
from training.run_page import write_run_page
from training.scoring import Scorer
from training.stages import stage_bars
from training.starting import grow_from, start_from, take_discriminators


@dataclass(frozen=True, kw_only=True)
class RunRequest:
    """What the command line asked for.

    config: of the run; when resuming, the run's own with `changes` made. out: the run folder to create,
    unless `resume` names one to go on with. grow: a run at half the resolution, init: a published checkpoint,
    to start from. discriminators: with `init`, a run whose discriminators go on in this one. changes:
    settings made by hand, for the run's history. hidden: names of files the run must not see either, such as
    a test fold.
    """

    config: TrainConfig
    data: Path
    out: Path
    resume: Path | None = None
    grow: Path | None = None
    init: Origin | None = None
    discriminators: Path | None = None
    device: str = "cpu"
    time_budget_s: float = float("inf")
    threads: int | None = None
    changes: list[str] = field(default_factory=list)
    hidden: frozenset[str] = frozenset()


def run(request: RunRequest, ranks: Ranks | None = None) -> RunDir:
    """Train until the images or the time are used up, or SIGTERM or Ctrl-C asks to stop; then save.

    With several ranks, all call it with the same request. Raises TrainingError for what cannot work, and
    TrainingDivergedError, which names the state that was kept.
    """
    end = time.monotonic() + request.time_budget_s
    ranks = ranks or Ranks()
    prepare_process(request.threads)
    seen, unseen = load_split(request.config, request.data)
    dataset = seen.without(request.hidden)
    trainer, run_dir = _begin(request, dataset, ranks)
    writes = run_dir if ranks.is_first else None
    scorer = Scorer.for_run(trainer.config, dataset) if writes and trainer.config.run.score_images else None
    is_judged = bool(scorer and trainer.adversaries)
    overfitting = OverfittingCheck.for_run(unseen.without(request.hidden)) if is_judged else None
    total = int(trainer.config.run.total_kimg * 1000)
    progress = TrainingProgress(trainer.config.recipe, total, trainer.images_seen, end, shown=ranks.is_first)
    recorder = Recorder(trainer, writes, scorer, progress, overfitting)
    try:
        with StopSignals() as signals, progress:
            trainer.run_until(
                total, stop=lambda: signals.received or time.monotonic() > end, on_tick=recorder.tick
            )
            recorder.finish(scored=not signals.received)
    except TrainingDivergedError as error:
        raise _keep_good_state(error, writes) from None
    finally:
        recorder.close()
    ranks.wait()
    return run_dir


def _begin(request: RunRequest, dataset: Dataset, ranks: Ranks) -> tuple[Trainer, RunDir]:
    """The trainer where the run starts or goes on, and its folder."""
    if request.resume:
        _check_data(RunDir.open(request.resume), dataset, request.data)
    parent = request.resume or request.grow
    state = RunDir.open(parent).load_state() if parent else {}
    with stage_bars() as tell:
        told = tell if ranks.is_first else None
        kinds = kinds_of_run(request, dataset, state, told)
        device = rank_device(request.device, ranks)
        trainer = Trainer(_naming(kinds, request.config), dataset, device, ranks, told, kinds)
    if request.resume:
        return trainer, _resume(request, RunDir.open(request.resume), trainer, state)
    return trainer, _start(request, trainer, dataset, state)


def load_split(config: TrainConfig, root: Path) -> tuple[Dataset, Dataset]:
    """The images a run may see, cleaned and deduplicated, and those of the block held out, of which it learns
    nothing."""
    dataset = load_dataset(
        root,
        resolution=config.run.resolution,
        label_mode=config.data.label_mode,
        deduplicate=config.data.deduplicate,
        class_slugs=config.data.classes,
    )
    is_held_out = dataset.blocks == config.data.hold_out_block
    seen = dataset if config.data.hold_out_block < 0 else dataset.subset(~is_held_out)
    return seen, dataset.subset(is_held_out)


def kinds_of_run(
    request: RunRequest, dataset: Dataset, state: dict[str, Any], progress: Progress | None = None
) -> Kinds | None:
    """Kinds of the images trained on; None where no class is parted. state: of the run gone on from, if any.

    A run that goes on, or grows, keeps those it has; one that starts from a checkpoint of these classes, with
    as many kinds, finds them where that one draws them. Raises RunInvalidError for other kinds than the run
    has, ConfigInvalidError for kinds that the images do not have.
    """
    parent = request.resume or request.grow
    kept = state.get("kinds")
    one_each = (1,) * len(dataset.classes)
    init = request.init if request.init and request.init.manifest.classes == dataset.classes else None
    found = counts_of(kept["shares"]) if kept else counts_of(init.kind_shares) if init else one_each
    counts = counts_per_class(request.config.data.kinds or found, len(dataset.classes))
    if parent and counts != found:
        raise RunInvalidError(
            f"data.kinds {list(counts)}: {parent} has {list(found)}, which go on as they are"
        )
    if counts == one_each:
        return None
    extractor, cache = FeatureExtractor(VARIANT), FeatureCache(default_cache_dir())
    features = extract_reference(dataset, extractor, cache=cache, progress=progress).features
    if kept:
        return restore_kinds(features, dataset.labels, kept)
    start = drawn_centres(init, extractor) if init and counts == found else None
    return find_kinds(features, dataset.labels, counts, start)


def _naming(kinds: Kinds | None, config: TrainConfig) -> TrainConfig:
    """The configuration with the number of kinds that there are."""
    return replace(config, data=replace(config.data, kinds=kinds.counts)) if kinds else config


def rank_device(device: str, ranks: Ranks) -> str:
    """The device of this rank: with several on `cuda`, one GPU each."""
    return f"cuda:{ranks.local_rank}" if device == "cuda" and ranks.size > 1 else device


def _start(request: RunRequest, trainer: Trainer, dataset: Dataset, state: dict[str, Any]) -> RunDir:
    """A new run folder, with a state to fall back on from the first image."""
    how, origin = "started", dict[str, Any]()
    if trainer.held and not request.init:
        held = ", ".join(trainer.config.data.held_classes)
        raise ConfigInvalidError(f"data.held_classes {held}: only with --init, whose networks draw them")
    if request.grow:
        grow_from(trainer, state)
        how, origin = "grown", {"grown_from": _origin(RunDir.open(request.grow), state)}
    if request.init:
        kept = start_from(trainer, request.init)
        how, origin = "initialized", {"initialized_from": request.init.describe() | {"discriminators": kept}}
    if request.discriminators:
        source = RunDir.open(request.discriminators)
        theirs = source.load_state()
        take_discriminators(trainer, theirs)
        origin["discriminators_of"] = {
            "run": source.path.resolve().name,
            "images_seen": theirs["images_seen"],
        }
    if not trainer.ranks.is_first:
        return RunDir(request.out)
    run_dir = RunDir.create(request.out, trainer.config, dataset, trainer.device)
    _note(run_dir, trainer, how, request, **origin)
    run_dir.save_state(trainer.state_dict())
    return run_dir


def _check_data(run_dir: RunDir, dataset: Dataset, data: Path) -> None:
    """Raises RunInvalidError unless these are the images that the run was begun with."""
    if run_dir.environment()["dataset"]["digest"] != dataset.digest:
        raise RunInvalidError(
            f"{data} is not the dataset of {run_dir.path}: the digests differ; start a new run"
        )


def _resume(request: RunRequest, run_dir: RunDir, trainer: Trainer, state: dict[str, Any]) -> RunDir:
    """The run as it was left. Raises RunInvalidError if its state does not fit the configuration."""
    try:
        trainer.load_state_dict(state)
    except (RuntimeError, ValueError, KeyError) as error:
        reason = str(error).splitlines()[0]
        raise RunInvalidError(f"the state of {run_dir.path} does not fit its settings: {reason}") from error
    if trainer.ranks.is_first:
        run_dir.write_config(trainer.config)
        _note(run_dir, trainer, "resumed", request)
    trainer.ranks.wait()
    return run_dir


def _note(run_dir: RunDir, trainer: Trainer, how: str, request: RunRequest, **values: Any) -> None:
    run_dir.note_start(
        how,
        trainer.device,
        images_seen=trainer.images_seen,
        hours=round(trainer.seconds_trained / 3600, 3),
        processes=trainer.ranks.size,
        changes=request.changes,
        **values,
    )


def _origin(parent: RunDir, state: dict[str, Any]) -> dict[str, Any]:
    """What a grown run keeps of the run it came from."""
    return {
        "run": parent.path.resolve().name,
        "resolution": state["config"]["run"]["resolution"],
        "images_seen": state["images_seen"],
        "hours": round(state["seconds_trained"] / 3600, 3),
        "config": state["config"],
        "history": parent.history(),
    }


def _keep_good_state(error: TrainingDivergedError, writes: RunDir | None) -> TrainingDivergedError:
    """The error with the state that is left; nothing is saved over it."""
    if writes is None:
        return error
    finite = {name: value for name, value in error.losses.items() if math.isfinite(value)}
    writes.log(images_seen=error.images_seen, diverged=True, **finite)
    write_run_page(writes)
    kept = writes.load_state()["images_seen"]
    where = f"the last good state, of {kept} images, is {writes.path / 'state.pt'}"
    return TrainingDivergedError(error.images_seen, error.losses, where)
