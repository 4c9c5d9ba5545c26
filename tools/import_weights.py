"""See ``python tools/import_weights.py --help``."""

import sys

from stylenat.commands.import_weights import main

if __name__ == "__main__":
    sys.exit(main())
