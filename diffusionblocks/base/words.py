"""How a time reads in a terminal. Standard library only."""


def clock(seconds: float) -> str:
    """Hours, minutes and seconds that have passed, or that are left: `1:04:09`."""
    return f"{int(seconds) // 3600}:{int(seconds) // 60 % 60:02d}:{int(seconds) % 60:02d}"
