"""See ``python tools/invert.py --help``."""

import sys

from stylenat.commands.invert import main

if __name__ == "__main__":
    sys.exit(main())
