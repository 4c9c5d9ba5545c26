"""See ``python tools/compare.py --help``."""

import sys

from stylenat.commands.compare import main

if __name__ == "__main__":
    sys.exit(main())
