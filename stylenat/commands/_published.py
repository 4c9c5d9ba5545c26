"""Published results, as the headers of gin files give them: the number, and the protocol that it was measured by."""

import re
from dataclasses import dataclass
from pathlib import Path

from registry import UserError
from registry.wording import did_you_mean
from stylenat.commands._command import experiments_folder
from stylenat.files import read_bounded

GIN_BYTES = 2**20
FIELD = re.compile(r"^# ([a-z]+): +(\S.*)$", re.MULTILINE)
NUMBER = re.compile(r"\b([A-Za-z]\w*?)(?:-\d+k)? (\d+(?:\.\d+)?)")
"""``FID-50k 2.046`` in the field ``expected``."""
PROTOCOL = re.compile(r"(\S+\.gin) against ([\d,]+) images of (.+)")
"""The field ``protocol``: a gin file of metrics, and the real images."""


@dataclass(frozen=True)
class Published:
    """A row of a paper.

    Attributes:
        gin: the experiment's file; paper, expected: its header's fields, as text.
        values: the numbers of ``expected`` by their names in lower case, such as ``{"fid": 2.046}``.
        protocol: the gin file of its metrics; count: real images; data: what they are.
    """

    gin: Path
    paper: str
    expected: str
    values: dict[str, float]
    protocol: str
    count: int
    data: str


def published(name: str) -> Published:
    """The published result of a shipped experiment, or of any gin file with such a header.

    Raises:
        UserError: there is no such file, or its header has no number with a protocol.
    """
    path = Path(name) if name.endswith(".gin") else experiments_folder() / f"{name}.gin"
    if not path.is_file():
        known = names()
        raise UserError(
            f"there is no experiment {name}{did_you_mean(name, known)}; with a published number there are "
            f"{', '.join(known)}"
        )
    try:
        fields = _fields(path)
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error
    protocol = PROTOCOL.fullmatch(fields.get("protocol", ""))
    values = {found.lower(): float(value) for found, value in NUMBER.findall(fields.get("expected", ""))}
    if protocol is None or not values:
        raise UserError(
            f"the header of {path} has no number with a protocol (`# protocol: metrics/fid50k.gin against N images of "
            f"DATA`), so there is nothing to compare with; there are {', '.join(names())}"
        )
    file, count, data = protocol.groups()
    return Published(
        path, fields.get("paper", "no paper"), fields["expected"], values, file, int(count.replace(",", "")), data
    )


def names() -> list[str]:
    """The shipped experiments with a published number that can be measured here."""
    return [path.stem for path in sorted(experiments_folder().glob("*.gin")) if "protocol" in _fields(path)]


def _fields(path: Path) -> dict[str, str]:
    text = read_bounded(path, GIN_BYTES).decode()
    return dict(FIELD.findall(re.match(r"(?:#.*\n)*", text)[0]))
