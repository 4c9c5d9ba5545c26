"""StyleNAT: style-based generators with variadic neighborhood attention (arXiv 2211.05770), and their training.

Importing this package imports no torch, so that command lines answer at once. It never imports ``plugins``.
"""

__version__ = "0.1.0"
