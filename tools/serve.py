"""See ``python tools/serve.py --help``."""

import sys

from stylenat.commands.serve import main

if __name__ == "__main__":
    sys.exit(main())
