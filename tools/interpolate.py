"""See ``python tools/interpolate.py --help``."""

import sys

from stylenat.commands.interpolate import main

if __name__ == "__main__":
    sys.exit(main())
