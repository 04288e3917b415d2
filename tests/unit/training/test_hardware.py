import torch

from tests.tiny_training import tiny_config
from training.hardware import Choice, fastest, fastest_on, fit_to_device, measure

CPU = torch.device("cpu")


def test_configuration_that_leaves_nothing_open_stays_as_it_is() -> None:
    config = tiny_config("run.precision=bf16", "run.memory_format=channels_last")

    assert fit_to_device(config, CPU) is config


def test_auto_becomes_what_was_measured_fastest() -> None:
    config = tiny_config("run.precision=auto", "run.memory_format=auto")

    choices = measure(config, CPU)
    fitted = fit_to_device(config, CPU)

    assert len(choices) == 4
    assert all(choice.flops_per_second > 0 for choice in choices)
    assert (fitted.run.precision, fitted.run.memory_format) in {
        (choice.precision, choice.memory_format) for choice in choices
    }


def test_only_what_is_open_is_measured() -> None:
    choices = measure(tiny_config("run.precision=auto"), CPU)

    assert [(choice.precision, choice.memory_format) for choice in choices] == [
        ("fp32", "contiguous"),
        ("bf16", "contiguous"),
    ]


def test_plainer_choice_wins_unless_clearly_beaten() -> None:
    plain, same, better = (
        Choice("fp32", "contiguous", 100.0),
        Choice("bf16", "contiguous", 101.0),
        Choice("bf16", "channels_last", 110.0),
    )

    assert fastest([plain, same]) is plain
    assert fastest([plain, same, better]) is better


def test_device_is_measured_once() -> None:
    assert fastest_on(CPU) is fastest_on(torch.device("cpu"))
