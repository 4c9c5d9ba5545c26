"""See ``python tools/evaluate.py --help``."""

import sys

from stylenat.commands.evaluate import main

if __name__ == "__main__":
    sys.exit(main())
