"""Files as the published networks have them, but of random weights, and CLIP's far smaller."""

import io
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn


@pytest.fixture(autouse=True)
def torch_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of torch, so that no test finds weights; returns where it keeps them."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return tmp_path / "torch" / "hub" / "checkpoints"


@pytest.fixture(scope="package")
def fidelity() -> Any:
    return pytest.importorskip("torch_fidelity", reason="needs torch-fidelity: pip install 'masan[fid]'")


@pytest.fixture(scope="package")
def inception_file(fidelity: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of FID's Inception architecture; its batch norms do something."""

    class Unloaded(fidelity.FeatureExtractorInceptionV3):  # type: ignore[misc]
        def load_state_dict(self, *_: object) -> None:
            """Keeps the weights it was made with."""

    nothing = io.BytesIO()
    torch.save({}, nothing)
    nothing.seek(0)
    torch.manual_seed(0)
    network = Unloaded("inception-v3-compat", ["2048"], feature_extractor_weights_path=nothing)
    state = network.state_dict()
    for name, value in state.items():
        if name.endswith("running_var"):
            value.uniform_(0.5, 1.5)
        elif name.endswith("running_mean"):
            value.normal_(0, 0.1)
        elif name.endswith("conv.weight"):
            nn.init.kaiming_normal_(value, nonlinearity="relu")
    path = tmp_path_factory.mktemp("inception") / "random-inception.pth"
    torch.save(state, path)
    return path


class _Clip(nn.Module):
    """What torch-fidelity looks for in CLIP's archive."""

    def __init__(self, visual: nn.Module) -> None:
        super().__init__()
        self.visual = visual
        self.text_projection = nn.Parameter(torch.zeros(4, 8))

    def forward(self, images: Tensor) -> Tensor:
        embeddings: Tensor = self.visual(images)
        return embeddings


@pytest.fixture(scope="package")
def clip_file(fidelity: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """CLIP's vision transformer, one layer of width 64, 28 px, 8 features, as a TorchScript archive."""
    torch.manual_seed(0)
    towers = fidelity.feature_extractor_clip.CLIPVisual(8, 28, 1, 64, 14)
    path = tmp_path_factory.mktemp("clip") / "random-clip.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of tracing itself, and that it is going away
        traced = torch.jit.trace(_Clip(towers.visual.eval()), torch.zeros(1, 3, 28, 28))
        torch.jit.save(traced, str(path))
    return path
