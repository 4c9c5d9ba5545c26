"""See ``python tools/new_plugin.py --help``."""

import sys

from stylenat.commands.new_plugin import main

if __name__ == "__main__":
    sys.exit(main())
