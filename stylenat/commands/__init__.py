"""Command lines: argument parsing and exit codes. What they do lives in the other rooms."""
