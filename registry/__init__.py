"""How a name in a gin file becomes an object. Knows nothing of GANs, and imports no torch."""

from registry.experiment import Experiment, arguments, load_experiment
from registry.hooks import hookimpl
from registry.kinds import API_VERSION, KINDS, OLDEST_API_VERSION, Kind
from registry.names import Entry, Origin, PluginFile, Registry, Suspect
from registry.plugins import load_plugins
from registry.signatures import Parameter, signature_of
from registry.values import (
    AttentionSite,
    Bounds,
    Count,
    CountOrZero,
    Finite,
    HeadGroup,
    NotNegative,
    Positive,
    Share,
    even_groups,
)
from registry.wording import UserError

__all__ = [
    "API_VERSION",
    "KINDS",
    "OLDEST_API_VERSION",
    "AttentionSite",
    "Bounds",
    "Count",
    "CountOrZero",
    "Entry",
    "Experiment",
    "Finite",
    "HeadGroup",
    "Kind",
    "NotNegative",
    "Origin",
    "Parameter",
    "PluginFile",
    "Positive",
    "Registry",
    "Share",
    "Suspect",
    "UserError",
    "arguments",
    "even_groups",
    "hookimpl",
    "load_experiment",
    "load_plugins",
    "signature_of",
]
