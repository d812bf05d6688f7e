"""Find the guilty one of a refused bundle by halving, so that one bad item costs only itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

Item = TypeVar("Item")


def isolate(
    items: Sequence[Item],
    operation: Callable[[Sequence[Item]], None],
    is_about_everything: Callable[[Exception], bool],
) -> list[tuple[Item, Exception]]:
    """Run *operation* on all *items* at once, and on ever smaller halves where it is refused.

    Costs one call where nothing is wrong, and about ``2 * log2(len(items))`` more for each guilty item.

    Args:
        items: What to work on; none of them is tried again once a call with it succeeded.
        operation: Raises if it refuses what it got, as a whole.
        is_about_everything: Whether an error concerns no item in particular (the server is down): then nothing is
            split and every item of that call gets that error.

    Returns:
        The items that did not get through, each with the error that says why.
    """
    if not items:
        return []
    try:
        operation(items)
    except Exception as error:
        if len(items) == 1 or is_about_everything(error):
            return [(item, error) for item in items]
        middle = len(items) // 2
        return [
            failure
            for half in (items[:middle], items[middle:])
            for failure in isolate(half, operation, is_about_everything)
        ]
    return []
