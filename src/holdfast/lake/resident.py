"""How much memory this process has in use: what a projector is started anew for, and what maintenance tells of."""

from __future__ import annotations

import os
import resource
from pathlib import Path


def resident_bytes() -> int:
    """The memory that this process has in use now; its peak where the system does not tell."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return pages * os.sysconf("SC_PAGE_SIZE")
