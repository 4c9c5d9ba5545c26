"""See ``python tools/run.py --help``."""

import sys

from stylenat.commands.run import main

if __name__ == "__main__":
    sys.exit(main())
