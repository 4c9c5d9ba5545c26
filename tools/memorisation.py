"""See ``python tools/memorisation.py --help``."""

import sys

from stylenat.commands.memorisation import main

if __name__ == "__main__":
    sys.exit(main())
