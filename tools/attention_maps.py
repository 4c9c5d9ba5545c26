"""See ``python tools/attention_maps.py --help``."""

import sys

from stylenat.commands.attention_maps import main

if __name__ == "__main__":
    sys.exit(main())
