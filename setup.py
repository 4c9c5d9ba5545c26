"""What pyproject.toml cannot say: the folder ``gin/`` travels inside the package, and never as a package ``gin``."""

from setuptools import find_packages, setup

setup(
    packages=[
        *find_packages(include=["registry*", "stylenat*", "plugins*"]),
        "stylenat.experiments",
        "stylenat.experiments.ablations",
        "stylenat.experiments.base",
        "stylenat.experiments.metrics",
        "stylenat.templates",
    ],
    package_dir={"stylenat.experiments": "gin"},
    package_data={
        "stylenat.experiments": ["*.gin"],
        "stylenat.experiments.ablations": ["*.gin"],
        "stylenat.experiments.base": ["*.gin"],
        "stylenat.experiments.metrics": ["*.gin"],
        "stylenat.comparison": ["*.mplstyle"],
        "stylenat.native": ["*.cpp", "*.h"],
        "stylenat.templates": ["*.txt"],
    },
)
