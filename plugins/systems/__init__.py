"""Whole systems of other papers, a folder each: networks, layouts of their checkpoints, recipe."""
