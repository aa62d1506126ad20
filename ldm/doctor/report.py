"""What an examination found, and how it is shown: a line a finding, a verdict at the end."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

INDENT = 21  # where the texts begin


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        label: what was looked at, at most 11 characters.
        status: `ok`; `note`, which explains but breaks nothing; `PROBLEM`; `skipped`.
        text: what was found, and what to do about it.
        short: the same in a few words, for the verdict.
        table: lines to show below as they are.
    """

    label: str
    status: str
    text: str
    short: str = ""
    table: Sequence[str] = ()


def render(findings: Sequence[Finding], width: int) -> str:
    """The findings as text of at most `width` columns, as far as words allow."""
    lines = []
    for finding in findings:
        head = f"{finding.label:<12}{finding.status:<{INDENT - 12}}"
        lines += textwrap.wrap(
            finding.text, width, initial_indent=head, subsequent_indent=" " * INDENT, break_on_hyphens=False
        )
        lines += [" " * INDENT + line for line in finding.table]
    return "\n".join(lines)


def verdict(findings: Sequence[Finding]) -> tuple[str, bool]:
    """The last line, and whether it says `fine`."""
    said = {
        status: [finding.short for finding in findings if finding.status == status and finding.short]
        for status in ("ok", "note", "PROBLEM")
    }
    if problems := said["PROBLEM"]:
        return "verdict: broken: " + "; ".join(problems), False
    return "verdict: fine: " + "; ".join(said["ok"] + said["note"]), True
