import pytest

from training.reproduce.arms import Generators
from training.reproduce.experiment import Facts
from training.reproduce.folds import Fold
from training.reproduce.generators import TrainGenerator
from training.reproduce.given import Given, GivenGenerator
from training.reproduce.recipes import Images, Scope
from training.reproduce.scale import LAPTOP

FOLD = Fold(mode="blocked", index=4, per_class=10)


def given(name: str) -> Given:
    return Given(name=name, what="w", store_url=None, digest="0" * 64, shown=f"{name}@1", classes=("a", "b"))


def test_given_ones_take_a_row_of_the_table_or_one_of_their_own(facts: Facts) -> None:
    arms = Generators(facts=facts, given=(given("ours"), given("b-all"))).arms()

    labels = {arm.name: arm.label for arm in arms}
    assert list(labels)[-5:] == ["cellgan", "ldm", "masan", "ours", "b-all"]
    assert labels["ours"] == "real + masan-projected (ours): ours@1"
    assert labels["b-all"] == "real + b-all@1"
    assert labels["masan"] == "real + MASAN"


@pytest.mark.parametrize(("scope", "block"), [("fold", 4), ("blocks", 4), ("all", -1)])
def test_given_ones_are_held_to_what_their_scope_hides(facts: Facts, scope: Scope, block: int) -> None:
    generators = Generators(facts=facts, given=(given("ours"),))

    ours, masan = (generators.unit(name, LAPTOP, Images(scope=scope), FOLD) for name in ("ours", "masan"))

    assert isinstance(ours, GivenGenerator)
    assert isinstance(masan, TrainGenerator)
    assert (ours.unseen_block, masan.recipe.data.hold_out_block) == (block, block)


def test_knobs_of_training_matter_where_something_is_trained(facts: Facts) -> None:
    generators = Generators(facts=facts, given=(given("ours"),))
    arms = {arm.name: arm for arm in generators.arms()}
    knobs = ("resolution", "kimg", "epochs")

    assert generators.turned([arms["real"], arms["ours"]], knobs) == ("resolution", "epochs")
    assert generators.turned([arms["real"], arms["masan"]], knobs) == knobs
