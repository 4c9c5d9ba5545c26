"""Features ``inception``: the Inception-v3 of FID, as torch-fidelity has it."""

import pickle
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor, nn

from registry import UserError

FILE = "pt_inception-2015-12-05-6726825d.pth"
SOURCE = "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth"


class Inception:
    """2048 pool features of TensorFlow's Inception-v3, with its own resize, through torch-fidelity.

    Args:
        weights: the weights' file. Nothing is downloaded.
    """

    name = "inception"
    dim = 2048

    def __init__(self, weights: str | None = None) -> None:
        self.weights = weights

    def check(self) -> None:
        """Raises UserError when the weights are not there or not readable."""
        _ = self._network

    @cached_property
    def _network(self) -> nn.Module:
        if self.weights is None or not Path(self.weights).is_file():
            missing = "no Inception weights are given" if self.weights is None else f"there is no file {self.weights}"
            raise UserError(
                f"{missing}; fetch {SOURCE} and bind features.inception.weights = 'FILE', or leave the metric out"
            )
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

        try:
            torch.load(self.weights, weights_only=True, map_location="cpu")
            return FeatureExtractorInceptionV3("inception-v3-compat", ["2048"], self.weights).eval()
        except (RuntimeError, pickle.UnpicklingError, EOFError) as error:
            raise UserError(f"{self.weights} does not hold torch-fidelity's Inception weights: {error}") from error

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """uint8 [batch, 3, height, width] to float32 [batch, 2048]."""
        return self._network(images)[0]
