from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.utils import parametrizations
from torch.nn.utils import spectral_norm as hooked_spectral_norm

from training.spectral_norm import EPS, SpectralNorm, initialize, spectral_weights

LAYERS: dict[str, Callable[[], nn.Module]] = {
    "conv": lambda: nn.Conv2d(3, 8, 3, bias=False),
    "transposed": lambda: nn.ConvTranspose2d(8, 4, 4, bias=False),
    "linear": lambda: nn.Linear(5, 7, bias=False),
    "row": lambda: nn.Conv2d(16, 1, 1, bias=False),
}
INPUTS = {"conv": (2, 3, 6, 6), "transposed": (2, 8, 3, 3), "linear": (2, 5), "row": (2, 16, 2, 2)}


def build(name: str) -> nn.Sequential:
    """One layer in a module, always with the same weights."""
    torch.manual_seed(0)
    return nn.Sequential(LAYERS[name]())


def singular_vector(normalize: SpectralNorm) -> Tensor:
    u: Tensor = normalize.state_dict()["u_0__weight"]
    return u


def matrix_of(module: nn.Sequential) -> Tensor:
    weight: Tensor = module.state_dict()["0.weight"]
    return (weight.transpose(0, 1) if isinstance(module[0], nn.ConvTranspose2d) else weight).flatten(1)


@pytest.mark.parametrize("name", LAYERS)
def test_weight_and_gradient_equal_pytorchs_parametrization(name: str) -> None:
    module, reference = build(name), build(name)
    normalize = SpectralNorm(module, ["0.weight"])
    parametrizations.spectral_norm(reference[0], eps=EPS)
    reference.eval()  # no power iteration of its own
    state = reference.state_dict()
    u = singular_vector(normalize)
    state["0.parametrizations.weight.0._u"] = u
    state["0.parametrizations.weight.0._v"] = nn.functional.normalize(
        matrix_of(module).t() @ u, dim=0, eps=EPS
    )
    reference.load_state_dict(state)
    x = torch.randn(INPUTS[name])

    output = functional_call(module, normalize(dict(module.named_parameters()), iterations=0), (x,))
    expected = reference(x)

    torch.testing.assert_close(output, expected)
    output.square().sum().backward()
    expected.square().sum().backward()
    (ours,), (theirs,) = module.parameters(), reference.parameters()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", LAYERS)
def test_vectors_follow_pytorchs_hook_step_by_step(name: str) -> None:
    module, hooked = build(name), build(name)
    normalize = SpectralNorm(module, ["0.weight"])
    hooked_spectral_norm(hooked[0], eps=EPS)
    hooked.load_state_dict({**hooked.state_dict(), "0.weight_u": singular_vector(normalize)})
    x = torch.randn(INPUTS[name])

    for _ in range(3):
        hooked(x)
        normalize(dict(module.named_parameters()))

        torch.testing.assert_close(singular_vector(normalize), hooked.state_dict()["0.weight_u"])


@pytest.mark.parametrize("name", LAYERS)
def test_sigma_becomes_the_largest_singular_value(name: str) -> None:
    module = build(name)
    normalize = SpectralNorm(module, ["0.weight"])

    normalized = normalize(module.state_dict(), iterations=200)["0.weight"]

    sigma = torch.linalg.matrix_norm(matrix_of(module), ord=2)
    torch.testing.assert_close(normalized, module.state_dict()["0.weight"] / sigma, rtol=1e-4, atol=1e-6)


def test_zero_iterations_change_no_state() -> None:
    layer = nn.Linear(5, 7)
    normalize = SpectralNorm(layer, ["weight"])
    before = {name: value.clone() for name, value in normalize.state_dict().items()}

    normalize(dict(layer.named_parameters()), iterations=0)

    assert all(torch.equal(before[name], value) for name, value in normalize.state_dict().items())


def test_other_parameters_pass_through_and_the_module_runs_on_the_result() -> None:
    layer = nn.Linear(5, 7)
    normalize = SpectralNorm(layer, ["weight"])
    x = torch.randn(3, 5)

    weights = normalize(dict(layer.named_parameters()), iterations=50)

    assert weights["bias"] is layer.bias
    expected = nn.functional.linear(
        x, layer.weight / torch.linalg.matrix_norm(layer.weight, ord=2), layer.bias
    )
    torch.testing.assert_close(functional_call(layer, weights, (x,)), expected, rtol=1e-4, atol=1e-5)


def test_scale_of_the_stored_weight_does_not_matter() -> None:
    layer = nn.Linear(5, 7)
    normalize = SpectralNorm(layer, ["weight"])

    small, large = (
        normalize({"weight": factor * layer.weight.detach()}, iterations=0)["weight"]
        for factor in (0.02, 50.0)
    )

    torch.testing.assert_close(small, large)


def test_only_convolutions_and_linear_layers_outside_the_excluded_are_named() -> None:
    module = nn.ModuleDict(
        {
            "conv": nn.Conv2d(1, 1, 1),
            "norm": nn.BatchNorm2d(1),
            "head": nn.Linear(2, 2),
            "inner": nn.Sequential(nn.ConvTranspose2d(1, 1, 1)),
        }
    )

    assert spectral_weights(module) == ["conv.weight", "head.weight", "inner.0.weight"]
    assert spectral_weights(module, exclude=("head",)) == ["conv.weight", "inner.0.weight"]


def test_initialization_is_xavier_with_gain_and_spares_the_excluded() -> None:
    torch.manual_seed(0)
    module = nn.ModuleDict({"conv": nn.Conv2d(64, 32, 3), "attention": nn.Conv2d(4, 4, 1)})
    kept = module.state_dict()["attention.weight"].clone()

    initialize(module, 0.02, exclude=("attention",))

    conv = module["conv"]
    assert isinstance(conv, nn.Conv2d)
    assert conv.bias is not None
    assert conv.weight.std().item() == pytest.approx(0.02 * (2 / (9 * (64 + 32))) ** 0.5, rel=0.05)
    assert torch.count_nonzero(conv.bias) == 0
    assert torch.equal(module.state_dict()["attention.weight"], kept)
