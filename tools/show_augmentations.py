"""See ``python tools/show_augmentations.py --help``."""

import sys

from stylenat.commands.show_augmentations import main

if __name__ == "__main__":
    sys.exit(main())
