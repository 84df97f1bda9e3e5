"""How many processor cores there are for this process. No torch."""

import os


def cores() -> int:
    """Those that it may use, or all of the machine where that cannot be asked, as on macOS."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
