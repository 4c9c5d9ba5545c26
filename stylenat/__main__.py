"""``python -m stylenat COMMAND``: the console script, of this interpreter."""

import sys

from stylenat.commands.main import main

if __name__ == "__main__":
    sys.exit(main())
