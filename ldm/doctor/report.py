"""The findings of an examination, rendered as text, and the verdict."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

INDENT = 21  # column where texts begin


@dataclass(frozen=True)
class Finding:
    """A finding of an examination.

    Attributes:
        label: what was examined, at most 11 characters.
        status: `ok`, `note` (harmless), `PROBLEM` or `skipped`.
        text: what was found, and what to do about it.
        short: a summary in a few words, for the verdict.
        table: lines to show below, verbatim.
    """

    label: str
    status: str
    text: str
    short: str = ""
    table: Sequence[str] = ()


def render(findings: Sequence[Finding], width: int) -> str:
    """Render findings as text of at most `width` columns, as far as word lengths allow."""
    lines = []
    for finding in findings:
        head = f"{finding.label:<12}{finding.status:<{INDENT - 12}}"
        lines += textwrap.wrap(
            finding.text, width, initial_indent=head, subsequent_indent=" " * INDENT, break_on_hyphens=False
        )
        lines += [" " * INDENT + line for line in finding.table]
    return "\n".join(lines)


def verdict(findings: Sequence[Finding]) -> tuple[str, bool]:
    """Return the last line, and whether it says `fine`."""
    shorts = {
        status: [finding.short for finding in findings if finding.status == status and finding.short]
        for status in ("ok", "note", "PROBLEM")
    }
    if problems := shorts["PROBLEM"]:
        return "verdict: broken: " + "; ".join(problems), False
    return "verdict: fine: " + "; ".join(shorts["ok"] + shorts["note"]), True
