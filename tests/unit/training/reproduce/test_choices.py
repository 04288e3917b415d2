from pathlib import Path

import pytest

from training.errors import ConfigInvalidError
from training.reproduce.choices import BarsShown, Options, ScopeName, What
from training.reproduce.experiment import Facts
from training.reproduce.few_shot import FewShotCurve
from training.reproduce.rates import Rates
from training.reproduce.scale import LAPTOP
from training.reproduce.table3 import Table3


def test_scope_follows_the_table_and_the_generators_it_is_given() -> None:
    def scope(what: What, *generators: str) -> str:
        return Options(what=what, generators=generators).variants()[0].scope

    assert scope(What.TABLE3) == "fold"
    assert scope(What.TABLE3, "ours=b-all") == "blocks"
    assert scope(What.FEWSHOT) == scope(What.TABLE1) == "blocks"


@pytest.mark.parametrize(
    ("bars", "shown"), [("cleaned", ["cleaned"]), ("kept", ["kept"]), ("both", ["cleaned", "kept"])]
)
def test_bars_are_read_in_every_way_asked_for(bars: str, shown: list[str]) -> None:
    variants = Options(what=What.TABLE3, bars=BarsShown(bars)).variants()

    assert [images.bars for images in variants] == shown


def test_every_table_has_its_own_shots_and_seeds(facts: Facts) -> None:
    shots = {what: Options(what=what) for what in (What.TABLE3, What.FEWSHOT)}
    many = Facts(classes=("a", "b"), images_per_class=(500, 500))

    table, curve = (options.experiment(many) for options in shots.values())

    assert isinstance(table, Table3)
    assert isinstance(curve, FewShotCurve)
    assert (table.shots, curve.shots) == ((10, 20), (10, 20, 50, 100))
    seeds = [options.start(LAPTOP).seeds for options in shots.values()]
    assert seeds == [3, 5]
    chosen = Options(what=What.FEWSHOT, seeds=2, classifiers=("resnet34",), settings=("epochs=7",))
    scale = chosen.start(LAPTOP)
    assert (scale.seeds, scale.classifiers, scale.epochs) == (2, ("resnet34",), 7)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (Options(what=What.TABLE2, generators=("ours=b-all",)), "--generator is for table3 and fewshot"),
        (Options(what=What.FEWSHOT, scope=ScopeName.FOLD), "--gan-train-scope 'fold' is for table3"),
        (Options(what=What.FEWSHOT, bars=BarsShown.BOTH), "--bars 'both' is for table3"),
    ],
)
def test_what_does_not_go_together_is_named(facts: Facts, options: Options, message: str) -> None:
    with pytest.raises(ConfigInvalidError, match=message):
        options.experiment(facts)


def test_same_name_twice_is_refused() -> None:
    four = Facts(classes=("benign", "early_pre_b", "pre_b", "pro_b"), images_per_class=(500,) * 4)

    with pytest.raises(ConfigInvalidError, match="--generator ours is given twice"):
        Options(what=What.FEWSHOT, generators=("ours=b-all", "ours=b-all")).experiment(four)


def test_equal_time_is_for_tables_with_a_diffusion_model(facts: Facts, tmp_path: Path) -> None:
    rates = Rates("cpu", 2, tmp_path / "calibration.json")

    with pytest.raises(ConfigInvalidError, match="--equal-time is about the diffusion model, which table1"):
        Options(what=What.TABLE1, equal_time=True).adjustment(rates, facts)
    assert Options(what=What.TABLE1).adjustment(rates, facts)(LAPTOP) == LAPTOP
