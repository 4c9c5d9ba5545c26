"""See ``python tools/reproduce.py --help``."""

import sys

from stylenat.commands.reproduce import main

if __name__ == "__main__":
    sys.exit(main())
