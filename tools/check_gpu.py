"""See ``python tools/check_gpu.py --help``."""

import sys

from stylenat.commands.check_gpu import main

if __name__ == "__main__":
    sys.exit(main())
