"""See ``python tools/sample.py --help``."""

import sys

from stylenat.commands.sample import main

if __name__ == "__main__":
    sys.exit(main())
