"""See ``python tools/inspect_data.py --help``."""

import sys

from stylenat.commands.inspect_data import main

if __name__ == "__main__":
    sys.exit(main())
