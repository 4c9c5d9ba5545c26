import sys
from pathlib import Path

# The tests' own driver lies beside them.
sys.path.insert(0, str(Path(__file__).parent))


def pytest_configure(config):
    config.addinivalue_line("markers", "browser: opens pages in headless Chromium; skipped where there is none")
