"""Sets of images in memory, for tests of evaluation."""

import torch


class Images:
    """A data set of a tensor's images."""

    def __init__(self, images, content=None):
        self.images, self.resolution, self.content = images, images.shape[-1], content
        self.read = 0

    def describe(self):
        return "images in memory"

    def prepare(self):
        pass

    def content_hash(self):
        return self.content

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        self.read += 1
        return self.images[index]


def copies(images):
    """A sampler of the images as they are; beyond the last, the last."""
    return lambda start, count: images[torch.arange(start, start + count).clamp_max(len(images) - 1)]
