"""See ``python tools/ablate.py --help``."""

import sys

from stylenat.commands.ablate import main

if __name__ == "__main__":
    sys.exit(main())
