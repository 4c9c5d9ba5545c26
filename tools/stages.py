"""See ``python tools/stages.py --help``."""

import sys

from stylenat.commands.stages import main

if __name__ == "__main__":
    sys.exit(main())
