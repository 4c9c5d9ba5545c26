"""See ``python tools/prepare.py --help``."""

import sys

from stylenat.commands.prepare import main

if __name__ == "__main__":
    sys.exit(main())
