"""See ``python tools/mix.py --help``."""

import sys

from stylenat.commands.mix import main

if __name__ == "__main__":
    sys.exit(main())
