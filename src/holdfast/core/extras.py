"""Where the libraries come from that only some need.

holdfast is installed from its checkout, not from a registry: a package of that name there is somebody else's.
"""


def how_to_install(*extras: str) -> str:
    """What to type for the libraries of *extras*, the names in pyproject.toml."""
    return f"in the checkout of holdfast: pip install -e '.[{','.join(extras)}]'"
