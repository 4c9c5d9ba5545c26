"""The usual schedules. Each is a function of the iteration or of the images seen."""

import math

from registry import Count, CountOrZero, Finite, UserError
from stylenat.interfaces import Schedule, Time, at


class Constant:
    """Schedule ``constant``: always ``value``."""

    def __init__(self, value: Finite = 1.0) -> None:
        self.value = value

    def __call__(self, time: Time) -> float:
        return self.value


class LinearDecay:
    """Schedule ``linear_decay``: ``value``; from iteration ``start`` on it falls linearly to 0 at the end of the run.

    The learning rate decay of StyleSwin and StyleNAT (as a factor: ``value`` 1).
    """

    def __init__(self, start: CountOrZero, value: Finite = 1.0) -> None:
        self.start, self.value = start, value

    def check(self, iterations: int) -> None:
        """Raises UserError if it would start after the end of the run."""
        if self.start >= iterations:
            raise UserError(
                f"schedule.linear_decay.start must lie before train.iterations = {iterations}; got {self.start}"
            )

    def __call__(self, time: Time) -> float:
        if time.iteration < self.start:
            return self.value
        return self.value * ((time.iterations - time.iteration) / (time.iterations - self.start))


class Warmup:
    """Schedule ``warmup``: rises linearly over the first iterations, to ``then`` (a number or another schedule).

    The value of the first of ``iterations`` is 1 / iterations of ``then``, that of the last is ``then``.
    """

    def __init__(self, iterations: Count, then: Finite | Schedule = 1.0) -> None:
        self.iterations, self.then = iterations, then

    def __call__(self, time: Time) -> float:
        return at(self.then, time) * min(1.0, (time.iteration + 1) / self.iterations)


class Cosine:
    """Schedule ``cosine``: from ``start`` to ``end`` by half a cosine over the first ``images`` images, then ``end``.

    R3GAN (arXiv 2501.05441, appendix) uses it for learning rates, R1's gamma, Adam's second beta, the half-life.
    """

    def __init__(self, start: Finite, end: Finite, images: Count) -> None:
        self.start, self.end, self.images = start, end, images

    def __call__(self, time: Time) -> float:
        done = min(1.0, time.images / self.images)
        return self.end + (self.start - self.end) * (1 + math.cos(math.pi * done)) / 2


class Step:
    """Schedule ``step``: ``before``, and from the given number of images on ``after``.

    StyleGAN-XL begins to regularize path lengths in this way (arXiv 2202.00273, section 3.1).
    """

    def __init__(self, before: Finite, after: Finite, images: Count) -> None:
        self.before, self.after, self.images = before, after, images

    def __call__(self, time: Time) -> float:
        return self.after if time.images >= self.images else self.before
