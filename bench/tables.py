"""Tables of measured figures that the benchmarks keep up to date inside pages of the documentation."""

from __future__ import annotations

from pathlib import Path

_END = "<!-- end of table -->"


def put_table(page: Path, script: str, text: str) -> None:
    """Replace what is between `<!-- table: SCRIPT -->` and `<!-- end of table -->`, where a page has them.

    Args:
        page: Markdown file.
        script: what made the table, as the mark names it.
        text: the table.
    """
    begin = f"<!-- table: {script} -->"
    content = page.read_text(encoding="utf-8") if page.is_file() else ""
    if begin in content:
        before, rest = content.split(begin)
        after = rest.split(_END, 1)[1]
        page.write_text(f"{before}{begin}\n\n{text}\n\n{_END}{after}", encoding="utf-8")
