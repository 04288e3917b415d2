"""A plan within a budget, and how it is told before anything runs."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from training.cli import parse_duration
from training.errors import ConfigInvalidError
from training.reproduce.budget import Fit, dropped, duration, fit
from training.reproduce.equal_time import training_seconds
from training.reproduce.experiment import Experiment
from training.reproduce.generators import TrainGenerator
from training.reproduce.rates import Rates
from training.reproduce.scale import Scale
from training.reproduce.unit import in_order
from training.run_dir import device_name

Adjust = Callable[[Scale], Scale]


def plan_within(
    wanted: Experiment, start: Scale, budget: str | None, rates: Rates, adjust: Adjust = lambda scale: scale
) -> Fit:
    """The largest scale that fits, from `start` down; `start` itself without a budget.

    adjust: changes every scale before it is looked at, and the one that is taken. Raises ConfigInvalidError.
    """

    def cost_s(scale: Scale) -> float:
        return sum(unit.seconds(rates) for unit in in_order(wanted.units(adjust(scale))))

    if budget is None:
        seconds = cost_s(start)
        return Fit(scale=adjust(start), seconds=seconds, full_seconds=seconds)
    try:
        budget_s = parse_duration(budget)
    except ConfigInvalidError:
        raise ConfigInvalidError(f"--budget {budget!r} is not a duration such as 90s, 25m or 1.5h") from None
    fitted = fit(start, budget_s, cost_s)
    return replace(fitted, scale=adjust(fitted.scale))


def outline_of(wanted: Experiment, planned: Fit, rates: Rates) -> dict[str, Any]:
    """The plan for JSON: what runs, how long by estimate, and what was dropped against the paper."""
    units = in_order(wanted.units(planned.scale))
    kinds: dict[str, list[float]] = {}
    for unit in units:
        kinds.setdefault(unit.kind, []).append(unit.seconds(rates))
    return {
        "name": wanted.name,
        "device": device_name(rates.device),
        "units": {kind: {"count": len(times), "seconds": sum(times)} for kind, times in kinds.items()},
        "seconds": planned.seconds,
        "seconds_without_budget": planned.full_seconds,
        "dropped": dropped(planned.scale, wanted.turned(), wanted.full),
        "training_seconds": training_seconds([u for u in units if isinstance(u, TrainGenerator)], rates),
        "diffusion_kimg": [planned.scale.autoencoder_kimg, planned.scale.denoiser_kimg],
    }


def describe(outline: dict[str, Any]) -> str:
    """The plan for people."""
    units, seconds, full = outline["units"], outline["seconds"], outline["seconds_without_budget"]
    parts = ", ".join(f"{of['count']} x {kind} {duration(of['seconds'])}" for kind, of in units.items())
    lines = [
        f"{outline['name']}: {sum(of['count'] for of in units.values())} units, about {duration(seconds)} on"
        f" {outline['device']}: {parts}",
        "dropped against the paper: " + ("; ".join(outline["dropped"]) or "nothing"),
    ]
    if seconds < full:
        lines.append(f"without the budget it would take about {duration(full)}")
    times, kimg = outline["training_seconds"], outline["diffusion_kimg"]
    if "diffusion" in times:
        beside = f", a GAN {duration(times['gan'])}" if "gan" in times else ""
        lines.append(
            f"one training by estimate: the diffusion model {duration(times['diffusion'])}"
            f" ({kimg[0]:g} and {kimg[1]:g} thousand images in its stages){beside}"
        )
    return "\n".join(lines)
