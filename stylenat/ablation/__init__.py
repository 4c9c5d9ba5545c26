"""From one gin file of variants to their runs. What a run is, and what becomes of the results, lives elsewhere."""
