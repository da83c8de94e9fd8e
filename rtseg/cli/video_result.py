"""Printed results of `rtseg video`."""

from __future__ import annotations

from rtseg.cli.errors import one_line, print_line
from rtseg.core.errors import printable_name
from rtseg.core.video_report import BatchItem, BatchReport, UnprocessedVideo, VideoReport


class ResultPrinter:
    """Printer of the results of one or several videos. The lines of one video stay together."""

    def __init__(self, count: int, quiet: bool) -> None:
        self._count, self._quiet = count, quiet
        self._finished = 0

    def print_item(self, item: BatchItem) -> None:
        """Print the result of one video."""
        self._finished += 1
        if isinstance(item, UnprocessedVideo) and item.error is not None:
            print_line(f"rtseg: {one_line(item.error)}")
        elif not self._quiet:
            prefix = f"[{self._finished} of {self._count}] " if self._count > 1 else ""
            print_line("\n".join(_result_lines(item, prefix)))


def summary(report: BatchReport) -> str:
    """Format the totals and the result of each input."""
    skipped = sum(isinstance(item, UnprocessedVideo) and item.skipped is not None for item in report.items)
    done = skipped + sum(isinstance(item, VideoReport) for item in report.items)
    lines = [
        f"{done} of {len(report.items)} videos done"
        + (f", {skipped} of them before" if skipped else "")
        + f": {report.frames.written} frames in {report.seconds:.1f} s, {report.fps:.1f} fps"
        + (f", {report.jobs} at a time" if report.jobs > 1 else "")
    ]
    for item in report.items:
        if isinstance(item, VideoReport):
            pipeline = item.pipeline
            name = printable_name(item.identity.input)
            lines.append(f"  done     {name}: {pipeline.frames.written} frames, {pipeline.fps:.1f} fps")
        elif item.error is not None:
            lines.append(f"  failed   {printable_name(item.input)}: {one_line(item.error)}")
        else:
            lines.append(f"  skipped  {printable_name(item.input)}: {item.skipped}")
    return "\n".join(lines)


def _result_lines(item: BatchItem, prefix: str = "") -> list[str]:
    """Format the result of a video that did not fail. `prefix` is its number among several videos."""
    if isinstance(item, UnprocessedVideo):
        return [f"{prefix}{printable_name(item.output)}: {item.skipped}"]
    pipeline, latency = item.pipeline, item.pipeline.latency_ms
    indent = "  " if prefix else ""
    details = [f"{indent}note: {note}" for note in item.notes] + [indent + item.fidelity.line()]
    result = (
        f"{prefix}{printable_name(item.identity.output)}: {pipeline.frames.written} frames in {pipeline.seconds:.1f} s, "
        f"{pipeline.fps:.1f} fps; latency p50 {latency.p50:.0f} ms, p99 {latency.p99:.0f} ms; "
        f"limited by {pipeline.bottleneck}"
    )
    return [result, *details] if prefix else [*details, result]
