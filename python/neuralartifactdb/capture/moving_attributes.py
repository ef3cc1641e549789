"""Which attributes of modules forward passes change by themselves: a glance before a pass and one after tell these from
what users change.

Each source knows what its own passes change, for another `forward=` sets other attributes. Implements design section 4,
"Fingerprint".
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from weakref import WeakKeyDictionary

from torch import nn

from neuralartifactdb.capture.module_attributes import RESTLESS, changed_places, glance, modules_of
from neuralartifactdb.storage.mutex import Mutex

__all__ = ["MovingAttributes"]

_Counts = WeakKeyDictionary[nn.Module, dict[str, int]]

#: by model, what passes of its own forward changed, whichever source ran them; each counts once
_changed_once: WeakKeyDictionary[nn.Module, _Counts] = WeakKeyDictionary()
#: sources share what is in there, and threads ask while others run the model
_mutex = Mutex()


class MovingAttributes:
    """Attributes that passes of one source were seen to change, by module, and how many of them did; up to 2 are
    counted.

    One that a single pass changed was set then (a cache, a constant that is made when it is first needed). It is no
    flag, but a change between passes is somebody else's. One that passes change again (a counter, the last shape) says
    nothing.

    Args:
        own_forward: the model, where its own forward is all that runs. What this changed in other sources' passes
            counts once. Where users give `forward=`, what it sets is theirs, and other sources must notice it.
    """

    def __init__(self, own_forward: nn.Module | None = None) -> None:
        self._counts: _Counts = WeakKeyDictionary()
        self._once: _Counts = WeakKeyDictionary()
        if own_forward is not None:
            with _mutex.lock:
                self._once = _changed_once.setdefault(own_forward, self._once)

    def __bool__(self) -> bool:
        return bool(self._counts) or bool(self._once)

    def get(self, module: nn.Module) -> Mapping[str, int] | None:
        """Those of a module, by name; None if none is known."""
        own, once = self._counts.get(module), self._once.get(module)
        return {**once, **own} if own and once else own or once

    @contextlib.contextmanager
    def watched(self, model: nn.Module) -> Iterator[None]:
        """Notice which attributes differ after what is done inside: a pass, or some."""
        modules = modules_of(model)
        before = glance(modules, self)
        try:
            yield
        finally:
            after = glance(modules, self)
            was, now = (one.flags + one.attributes for one in (before, after))
            if was != now:
                by_id = {id(module): module for module in modules}
                with _mutex.lock:
                    for place, name in changed_places(was, now):
                        counts = self._counts.setdefault(by_id[place], {})
                        counts[name] = min(counts.get(name, 0) + 1, RESTLESS)
                        self._once.setdefault(by_id[place], {})[name] = 1

    def restless(self) -> set[str]:
        """Names of attributes that passes keep changing, in any module."""
        with _mutex.lock:
            return {name for counts in self._counts.values() for name, times in counts.items() if times >= RESTLESS}
