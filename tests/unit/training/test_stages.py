import pytest

from training.stages import stage_bars


def test_every_stage_gets_a_bar_of_its_own_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    with stage_bars() as tell:
        for done in range(1, 4):
            tell("read", done, 3)
        tell("pack", 1, 2)

    said = capsys.readouterr()
    assert said.out == ""
    assert "read" in said.err
    assert "3/3" in said.err
    assert "pack" in said.err
    assert "1/2" in said.err


def test_a_bar_does_not_go_back(capsys: pytest.CaptureFixture[str]) -> None:
    with stage_bars() as tell:
        for done in (1, 3, 2):
            tell("draw", done, 3)

    assert "3/3" in capsys.readouterr().err


def test_what_ends_before_its_first_stage_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="wrong"), stage_bars():
        raise ValueError("wrong")

    assert capsys.readouterr().err == ""
