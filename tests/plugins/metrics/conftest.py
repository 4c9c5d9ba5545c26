from unittest.mock import patch

import pytest
import torch
from torch import nn

from stylenat.testing.contract import pictures


def randomised(network, seed=0):
    """The network with weights that keep its signal alive: PyTorch's own initialisation dies out in the depth."""
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                fan_in = module.weight[0].numel()
                module.weight.normal_(0, (2 / fan_in) ** 0.5, generator=random)
            elif isinstance(module, nn.BatchNorm2d):
                module.bias.normal_(0, 0.3, generator=random)
    return network


@pytest.fixture(scope="session")
def image_sets():
    """6 real and 6 other images, 24x24: Inception takes a quarter of a second for each."""
    random = torch.Generator().manual_seed(1)
    brightness = torch.linspace(0.1, 1.5, 6)[:, None, None, None]
    noise = torch.randint(-40, 40, (6, 3, 24, 24), generator=random)
    sets = pictures(6, 24) * brightness, pictures(6, 24, seed=1) * brightness + noise
    return [images.round().clamp(0, 255).to(torch.uint8) for images in sets]


@pytest.fixture(scope="session")
def inception_weights(tmp_path_factory, image_sets):
    """A file of random weights for torch-fidelity's Inception, whose logits tell the images apart."""
    from torch_fidelity import feature_extractor_inceptionv3 as library

    unloaded = patch.object(nn.Module, "load_state_dict", lambda *args, **kwargs: None)
    with unloaded, patch.object(library, "load_state_dict_from_url", lambda *args, **kwargs: None):
        network = randomised(library.FeatureExtractorInceptionV3("inception-v3-compat", ["2048"]))
    # Without what all images share, and large enough, the logits differ from image to image.
    features = network(torch.cat([image_sets[0][:2], image_sets[1][-2:]]))[0]
    common, weight = features.mean(dim=0), network.fc.weight.data
    weight -= torch.outer(weight @ common, common) / common.square().sum()
    weight *= 2 / (features @ weight.t()).std()
    path = tmp_path_factory.mktemp("weights") / "inception-random.pth"
    torch.save(network.state_dict(), path)
    return str(path)
