"""A property computed once and kept: `functools.cached_property` without the lock that Python 3.11's has.

That lock is one for all objects of a class, held while a value is computed. A child forked at that moment would wait
for it for ever, and threads would wait for each other across databases. Here two threads may compute a value twice;
both get the same one. Implements the "safe under fork" of design section 6.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar, overload

__all__ = ["lazy_property"]

T = TypeVar("T")


class lazy_property(Generic[T]):
    """Calls `compute` at the first access and keeps what it gives in the object's `__dict__`.

    Args:
        compute: from the object to the value; it may run in several threads at once.
    """

    def __init__(self, compute: Callable[[Any], T]) -> None:
        self._compute = compute
        self.__doc__ = compute.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, instance: None, owner: type) -> lazy_property[T]: ...
    @overload
    def __get__(self, instance: object, owner: type) -> T: ...
    def __get__(self, instance: object | None, owner: type) -> lazy_property[T] | T:
        if instance is None:
            return self
        value: T = instance.__dict__.setdefault(self._name, self._compute(instance))
        return value
