"""The suite takes the same few examples every time; ``STYLENAT_FUZZ_EXAMPLES=5000`` looks for new ones."""

import os

from hypothesis import HealthCheck, settings

EXAMPLES = os.environ.get("STYLENAT_FUZZ_EXAMPLES")
settings.register_profile(
    "fuzz",
    max_examples=int(EXAMPLES or 60),
    derandomize=EXAMPLES is None,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
