"""What the graph of a foreign ONNX network shows that is no semantic segmentation, though an output has a map's shape."""

from __future__ import annotations

import numpy as np

from rtseg.models.onnx_trace import TWO_VALUED, Trace

NO_CLASS = 255
"""What class maps from elsewhere hold where a pixel has no class; rtseg gives each pixel one."""


def scaled_indices(trace: Trace, name: str) -> str:
    """Why an output of one value a pixel holds classes that are no class indices, and what to do; empty: it does not."""
    only = trace.meant(name).only
    if only is None or len(only) < 3 or not _from_argmax(trace, name):
        return ""
    whole = sorted(only)
    if all(abs(value - round(value)) < 1e-3 and -0.5 < value < NO_CLASS - 0.5 for value in whole):
        return ""
    if np.allclose(whole, [*range(len(whole) - 1), NO_CLASS]):
        return (
            f"it gives {NO_CLASS} where a pixel has no class, by the graph, and rtseg gives each pixel a class; export it "
            "without that step, so that each pixel has the index of a class"
        )
    told = ", ".join(f"{value:.4g}" for value in whole[:4]) + (", …" if len(whole) > 4 else "")
    return (
        f"by the graph it holds one of {len(whole)} values a pixel, {told}: class indices that were scaled or moved; export it "
        "without the step behind its ArgMax, so that it gives 0, 1, 2 and so on"
    )


def _from_argmax(trace: Trace, name: str) -> bool:
    """Whether values are made of the index of one of three or more classes, not of comparisons alone."""
    seen: set[str] = set()
    level = [name]
    while level:
        given = level.pop()
        node = trace.producer(given)
        if node is None or given in seen:
            continue
        seen.add(given)
        if node.op_type in ("ArgMax", "ArgMin"):
            only = trace.values(given).only
            if only is None or len(only) > 2:
                return True
        elif node.op_type not in TWO_VALUED:
            level.extend(node.input[1:] if node.op_type == "Where" else node.input)
    return False
