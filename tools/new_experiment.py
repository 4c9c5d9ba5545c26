"""See ``python tools/new_experiment.py --help``."""

import sys

from stylenat.commands.new_experiment import main

if __name__ == "__main__":
    sys.exit(main())
