"""Which plugin files this user has run: a later command loads such a plugin of a run without --plugin.

The list lies outside of every run folder, since a run folder may come from someone else. It is believed only while
nobody but this user can write to it.
"""

import json
import os
import stat
from contextlib import suppress
from pathlib import Path

from registry import PluginFile

KEPT = 1000
"""Entries; the oldest are forgotten first."""
BYTES = 2**20


def remembered_file() -> Path | None:
    """``stylenat/plugins.json`` in ``$XDG_STATE_HOME`` or ``~/.local/state``; None for a user without a home."""
    folder = os.environ.get("XDG_STATE_HOME")
    try:
        return Path(folder or Path.home() / ".local" / "state") / "stylenat" / "plugins.json"
    except RuntimeError:
        return None


def remembered() -> list[tuple[str, str]]:
    """(path, SHA-256) of the files, oldest first; empty where there is no list, or where others could write to it."""
    file = remembered_file()
    if file is None:
        return []
    try:
        with open(os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as opened:
            status = os.fstat(opened.fileno())
            own = stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid() and not status.st_mode & 0o077
            entries = json.loads(opened.read(BYTES)) if own else []
        return [(str(path), str(digest)) for path, digest in entries]
    except (OSError, ValueError, TypeError):  # No list yet, or a damaged one: the user names the plugin again.
        return []


def remember(files: list[PluginFile]) -> None:
    """Adds the files to the list, which is written with mode 0600. Without a folder to write to, nothing is kept."""
    new = [(file.path, file.sha256) for file in files if file.sha256]
    before, file = remembered(), remembered_file()
    if file is None or not set(new) - set(before):
        return
    entries = [entry for entry in before if entry not in new] + list(dict.fromkeys(new))
    temporary = file.with_name(f".plugins.{os.getpid()}.partial")
    with suppress(OSError):  # A home that cannot be written to, as on some clusters.
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
            with open(descriptor, "w", encoding="utf-8") as opened:
                json.dump(entries[-KEPT:], opened)
            temporary.replace(file)
        finally:
            temporary.unlink(missing_ok=True)
