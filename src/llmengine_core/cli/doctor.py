"""``llmengine doctor``: what is wrong on this machine, and what mends it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from llmengine_core.cli.console import Console, common_options, json_option

if TYPE_CHECKING:
    from llmengine_core.cli.checks.finding import Finding

__all__ = ["doctor"]


@click.command(short_help="Check this machine, and say what mends it.")
@json_option
@common_options
@click.pass_context
def doctor(context: click.Context) -> None:
    """Check this machine for all that llmengine needs.

    Each check is made by itself: one that fails hides no other. The exit code is 1 where something is broken;
    advice alone leaves it 0.
    """
    from llmengine_core.cli.checks import examine

    console = context.ensure_object(Console)
    findings: list[Finding] = []
    for finding in examine():
        findings.append(finding)
        if not console.json:
            for line in _lines(finding):
                console.line(line)
    broken = any(finding.level == "broken" for finding in findings)
    if console.json:
        console.result({"healthy": not broken, "findings": findings}, "")
    if broken:
        context.exit(1)


def _lines(finding: Finding) -> Iterator[str]:
    yield f"{finding.level:7} {finding.check:9} {finding.message}"
    if finding.mend:
        yield f"{'':17} mend: {finding.mend}"
