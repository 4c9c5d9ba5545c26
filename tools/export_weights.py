"""See ``python tools/export_weights.py --help``."""

import sys

from stylenat.commands.export_weights import main

if __name__ == "__main__":
    sys.exit(main())
