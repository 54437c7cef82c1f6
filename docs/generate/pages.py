"""Write the tables of the reference pages from the code: a hook of MkDocs.

A line `<!-- reference: params -->` in a page becomes the table that `TABLES` has under this name.
"""

import re
from collections.abc import Callable, Iterator

from docs.generate.columns import write_columns
from docs.generate.commands import write_options, write_targets
from docs.generate.params import write_architectures, write_backbones, write_params
from docs.generate.rest import write_routes, write_settings

MARKER = re.compile(r"^<!-- reference: (\w+) -->$", re.MULTILINE)
TABLES: dict[str, Callable[[], Iterator[str]]] = {
    "architectures": write_architectures,
    "backbones": write_backbones,
    "columns": write_columns,
    "options": write_options,
    "params": write_params,
    "routes": write_routes,
    "settings": write_settings,
    "targets": write_targets,
}


def on_page_markdown(markdown: str, **_: object) -> str:
    """Replace each marker of a page by its table."""
    return MARKER.sub(lambda marker: "\n".join(TABLES[marker[1]]()), markdown)
