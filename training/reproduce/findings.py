"""Sentences about a table's rows: what each difference says of the paper's claims, by one rule."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from training.reproduce.published import published
from training.reproduce.verdict import Difference, Finding, claim, paired, unpaired

PRIMARY_JUDGE: Final = "efficientnet-lite2"
"""No discriminator knows it."""
GAIN_WORDS: Final = {1: "a gain", -1: "a loss", 0: "too small to tell"}
_DISTANCE_WORDS: Final = {1: "worse", -1: "better", 0: "too small to tell"}
KID_SCALE: Final = 1000


def distance_finding(
    labels: tuple[str, str],
    runs: tuple[Sequence[Mapping[str, Any]], Sequence[Mapping[str, Any]]],
    papers: tuple[tuple[str, ...], tuple[str, ...]],
) -> Finding | None:
    """Of one row's generators against another's, by mean KID; None where a row left no generator.

    runs: what judging found of each run of both rows. papers: where their published figures stand.
    """
    kids = [_mean_kids(each) for each in runs]
    if not all(kids):
        return None
    difference = unpaired(*kids)
    fids = [published(*path).get("mean") if path else None for path in papers]
    paper = None if fids[0] is None or fids[1] is None else fids[0] - fids[1]
    told = "" if paper is None else f" (paper: FID {paper:+.1f})"
    return Finding(
        kind=claim(difference, paper),
        text=f"{labels[0]} against {labels[1]}: KID x 1000 {difference.text()},"
        f" {_runs(difference, kids)}{_DISTANCE_WORDS[difference.sign]}{told}.",
    )


def accuracy_finding(
    group: str, labels: tuple[str, str], differences: Sequence[float], paper: float | None
) -> Finding:
    """Of one row's accuracies against another's, paired, in points. paper: its difference."""
    difference = paired(differences)
    told = "" if paper is None else f" (paper: {paper:+.1f})"
    return Finding(
        kind=claim(difference, paper),
        text=f"{group}: {labels[0]} against {labels[1]}: {difference.text(unit=' points')},"
        f" {GAIN_WORDS[difference.sign]}{told}.",
    )


def known(findings: Iterable[Finding | None]) -> tuple[Finding, ...]:
    """Those there are."""
    return tuple(finding for finding in findings if finding is not None)


def _mean_kids(runs: Sequence[Mapping[str, Any]]) -> list[float]:
    judged = [run["extractors"][PRIMARY_JUDGE] for run in runs if run["extractors"]]
    return [KID_SCALE * one["mean"]["kid"] for one in judged if one["mean"]["kid"] is not None]


def _runs(difference: Difference, values: Sequence[Sequence[float]]) -> str:
    """Why there is no interval, where there is none."""
    return "" if difference.low is not None else f"{len(values[0])} and {len(values[1])} runs, "
