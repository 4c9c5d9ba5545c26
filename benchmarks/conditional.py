"""Whether a conditional generator makes the class that it is asked for, by a small classifier of the real images.

  python benchmarks/conditional.py runs/digits-1234abcd

The classifier has two convolutions, is trained on nine tenths of the labelled images of the run's data set, and is
measured on the last tenth and on 100 generated images of each class.
"""

import sys
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from registry import load_experiment, load_plugins
from stylenat import weights
from stylenat.commands._command import CORE
from stylenat.sampling import sampler_of

STEPS, BATCH, EACH = 600, 64, 100


def accuracy(classifier: nn.Module, images: Tensor, labels: Tensor) -> float:
    with torch.no_grad():
        return float((classifier(images.float() / 255).argmax(dim=1) == labels).float().mean())


def main(run: str) -> None:
    torch.manual_seed(0)
    torch.set_num_threads(2)
    folder = weights.weights_folder(Path(run))
    experiment = load_experiment(load_plugins(core=CORE), [str(weights.config_of(folder))])
    dataset = experiment.value("train.dataset")
    dataset.prepare()
    order = torch.randperm(len(dataset)).tolist()
    images = torch.stack([dataset[i] for i in order])
    labels = torch.tensor([dataset.label(i) for i in order])
    held = len(order) // 10
    classifier = nn.Sequential(
        nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU(), nn.Flatten(),
        nn.Linear(32 * (dataset.resolution // 4) ** 2, dataset.num_classes),
    )  # fmt: skip
    optimizer = torch.optim.Adam(classifier.parameters(), lr=2e-3)
    for _ in range(STEPS):
        some = torch.randint(held, len(order), (BATCH,))
        optimizer.zero_grad()
        F.cross_entropy(classifier(images[some].float() / 255), labels[some]).backward()
        optimizer.step()
    print(f"real images, held out: {accuracy(classifier, images[:held], labels[:held]):.3f} of {held}")
    generator, _ = weights.generator_of(folder, experiment.value("train.generator"))
    classes = weights.classes_of_weights(folder, generator)
    space = experiment.value("train.pixel_space")
    sampler = sampler_of(generator, experiment.value("train.seed"), classes=classes, pixel_space=space)
    found = [accuracy(classifier, sampler.of_class(k)(0, EACH), torch.full((EACH,), k)) for k in range(len(classes))]
    print("generated, by class:", " ".join(f"{value:.2f}" for value in found))
    print(f"generated, all: {sum(found) / len(found):.3f} of {EACH * len(found)}")


if __name__ == "__main__":
    main(sys.argv[1])
