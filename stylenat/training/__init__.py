"""One run: the loop, its steps, its random streams, its folder and checkpoints."""
