"""The figures and pictures as one static page: relative links, nothing from the network, every text escaped."""

import io
from collections.abc import Sequence
from html import escape
from pathlib import Path
from urllib.parse import quote

import numpy as np

from ..bulk.grid import Grid, GridIdentity
from ..bulk.store import read_picture
from ..errors import FaceCLIPError
from ..files import whole
from .measure import Row
from .metrics import FACES
from .table import Summary, columns

REFERENCES = "references"
_THUMBNAIL = 192
_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; padding: 0 1rem; max-width: 90rem; color: #1c1c1c;
       background: #fff }
h1 { font-size: 1.5rem } h2 { font-size: 1.15rem; margin-top: 2rem }
table { border-collapse: collapse } .wide { overflow-x: auto }
th, td { padding: .3rem .6rem; border-bottom: 1px solid #ddd; text-align: left; vertical-align: top }
td.number { text-align: right; font-variant-numeric: tabular-nums }
.grid td { border: 0; padding: .3rem } .grid th { position: sticky; left: 0; background: #fff; font-weight: 600 }
.grid thead th { font-weight: 400; font-size: .85rem; max-width: 14rem }
.grid img { width: 13rem; height: auto; display: block; background: #eee } .grid th img { width: 6rem }
.small { font-size: .8rem; color: #444; font-variant-numeric: tabular-nums } .bad { color: #a40000 }
.missing { width: 13rem; min-height: 6rem; border: 1px dashed #a40000; padding: .5rem; box-sizing: border-box }
"""


def write_page(
    path: Path, grid: Grid, rows: Sequence[Row], summaries: Sequence[Summary], notes: Sequence[str] = ()
) -> None:
    """The page, whole or not at all. notes: sentences that explain the figures."""
    references = {one.name: _reference(one, path.parent) for one in grid.identities}
    made = sum(row.picture is not None for row in rows)
    cases = "" if "" in grid.graphs else f"&times; {len(grid.graphs)} cases "
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(grid.name)}</title><style>{_STYLE}</style></head><body>",
        f"<h1>{escape(grid.name)}</h1>",
        f"<p>{made} of {len(rows)} pictures: {len(grid.identities)} identities &times; {len(grid.prompts)} prompts "
        f"{cases}&times; {len(grid.seeds)} seeds. The figures of each picture: "
        '<a href="results.csv">results.csv</a>.</p>',
        *(f"<p>{escape(note)}</p>" for note in notes),
        *(_table(title, [one for one in summaries if one.kind == kind], grid) for kind, title in _TABLES),
        _pictures(path.parent, grid, rows, references),
        "</body></html>\n",
    ]
    whole.write(path, "\n".join(parts).encode("utf-8"))


_TABLES = (("all", "All"), ("identity", "By identity"), ("prompt", "By prompt"), ("case", "By case"))


def _table(title: str, summaries: Sequence[Summary], grid: Grid) -> str:
    names = list(dict.fromkeys(name for one in summaries for name in one.values))
    faces = any(one.without_face is not None for one in summaries)
    heads = ["", "pictures", "missing", *(["without a face"] if faces else []), *names]
    texts = {prompt.name: prompt.text for prompt in grid.prompts}
    lines = [f'<h2>{title}</h2><div class="wide"><table><thead><tr>']
    lines += [f"<th>{escape(head)}</th>" for head in heads]
    lines.append("</tr></thead><tbody>")
    for one in summaries:
        name = f"{one.name}: {texts[one.name]}" if one.kind == "prompt" else one.name or grid.name
        numbers = [one.pictures, one.missing, *([one.without_face] if faces else [])]
        numbers = [str(number) for number in numbers] + [_figure(one.values.get(key)) for key in names]
        cells = "".join(f'<td class="number">{number}</td>' for number in numbers)
        lines.append(f"<tr><td>{escape(name)}</td>{cells}</tr>")
    return "".join(lines) + "</tbody></table></div>"


def _pictures(folder: Path, grid: Grid, rows: Sequence[Row], references: dict[str, Path | None]) -> str:
    """Identities, cases and seeds down, prompts across."""
    by_place = {(row.cell.identity.name, row.cell.prompt.name, row.cell.case, row.cell.seed): row for row in rows}
    shown = columns(rows)
    lines = ['<h2>Pictures</h2><div class="wide"><table class="grid"><thead><tr><th></th>']
    lines += [f"<th>{escape(prompt.text)}</th>" for prompt in grid.prompts]
    lines.append("</tr></thead><tbody>")
    for identity in grid.identities:
        for number, (case, seed) in enumerate((case, seed) for case in grid.graphs for seed in grid.seeds):
            reference = references[identity.name] if number == 0 else None
            image = _image(folder, reference, identity.name) if reference else ""
            note = escape(f"{case} seed {seed}".strip())
            lines.append(f'<tr><th>{image}{escape(identity.name)}<div class="small">{note}</div></th>')
            for prompt in grid.prompts:
                row = by_place[identity.name, prompt.name, case, seed]
                lines.append(f"<td>{_cell(folder, row, shown)}</td>")
            lines.append("</tr>")
    return "\n".join(lines) + "</tbody></table></div>"


def _cell(folder: Path, row: Row, shown: Sequence[str]) -> str:
    if row.picture is None:
        return f'<div class="missing small bad">{escape(row.problem)}</div>'
    image = _image(folder, row.picture, row.cell.label)
    figures = [f"{escape(name)} {_figure(row.values[name])}" for name in shown if name in row.values and name != FACES]
    note = '<div class="small bad">no face found</div>' if row.values.get(FACES) == 0 else ""
    return f'<a href="{_link(folder, row.picture)}">{image}</a><div class="small">{"<br>".join(figures)}</div>{note}'


def _image(folder: Path, path: Path, text: str) -> str:
    return f'<img src="{_link(folder, path)}" alt="{escape(text)}" title="{escape(text)}" loading="lazy">'


def _link(folder: Path, path: Path) -> str:
    return escape(quote(path.relative_to(folder).as_posix()))


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _reference(identity: GridIdentity, folder: Path) -> Path | None:
    """A small picture of the person beside the page; None where it cannot be read."""
    from PIL import Image

    try:
        picture = Image.fromarray(_first_picture(identity))
    except (FaceCLIPError, OSError):
        return None
    picture.thumbnail((_THUMBNAIL, _THUMBNAIL))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=90)
    (folder / REFERENCES).mkdir(exist_ok=True)
    path = folder / REFERENCES / f"{identity.name}.jpg"
    whole.write(path, buffer.getvalue())
    return path


def _first_picture(identity: GridIdentity) -> np.ndarray:
    if identity.pictures:
        return read_picture(identity.pictures[0])
    from ..identity.file import load_person

    assert identity.identity is not None  # a person has the one or the other
    return load_person(identity.identity).thumbnails[0].permute(1, 2, 0).numpy()  # CHW -> HWC
