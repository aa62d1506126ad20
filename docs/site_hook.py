"""Hook of mkdocs: brings pages that lie elsewhere in the repository into the site, so that each is written once."""

import posixpath
import re
from pathlib import Path

from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parents[1]
PAGES = {  # page of the site -> file of the repository
    "changelog.md": "CHANGELOG.md",
    "contributing.md": "CONTRIBUTING.md",
    "data.md": "dataset/README.md",
    "weights.md": "pretrained_models/README.md",
}
PAGE_OF = {file: page for page, file in PAGES.items()}
LINK = re.compile(r"(?<!!)\[([^\]]+)\]\(([^)#:]+)(#[^)]*)?\)")


def on_files(files, config):
    for page, file in PAGES.items():
        files.append(File.generated(config, page, content=(ROOT / file).read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown, page, config, files):
    """Links to files of the repository become links to their pages, or text where they have none."""
    here = page.file.src_uri
    folder = posixpath.dirname(PAGES.get(here, f"docs/{here}"))

    def link(match):
        text, target, anchor = match[1], posixpath.normpath(posixpath.join(folder, match[2])), match[3] or ""
        inside = PAGE_OF.get(target, target.removeprefix("docs/"))
        if target in PAGE_OF or target.startswith("docs/"):
            return f"[{text}]({posixpath.relpath(inside, posixpath.dirname(here) or '.')}{anchor})"
        return text

    return LINK.sub(link, markdown)
