"""The file that `fairlane export new NAME` writes: a whole model definition, which works as it is."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from export.definition.definition import NAME
from export.errors import ExportError

TEMPLATE: Final = Path(__file__).with_name("template_model.py")


class TemplateError(ExportError):
    """The starting point cannot be written."""


def write_template(names: Sequence[str], folder: Path) -> str:
    """Write NAME.py into a folder.

    Args:
        names: the one name that was typed.
        folder: where to.

    Returns:
        What to do next, to be shown to the user.

    Raises:
        TemplateError: no name, a name that Triton would not take, or a file of that name is there.
    """
    if len(names) != 1 or not NAME.fullmatch(names[0]):
        raise TemplateError(
            f"new: expected one NAME of letters, digits, '_', '-' and '.'; got {' '.join(names) or 'none'}"
        )
    (name,) = names
    path = folder / f"{name}.py"
    text = TEMPLATE.read_text(encoding="utf-8").replace("template_model", name)
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError as error:
        raise TemplateError(f"{path} is there already; it stays as it is") from error
    return f"{path} is written. Change it, then: fairlane export ./{path}"
