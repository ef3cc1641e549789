"""Hooks that see chosen outputs during one forward pass, and stop it after the last one wanted.

Every hook is removed on every exit. A value is handed over inside the hook, before anything downstream can rewrite it
in place. Implements design section 4, "Capture" (hooks, firings, early stop).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from neuralartifactdb.capture.layers import Target
from neuralartifactdb.errors import InvalidValueError

__all__ = ["ForwardPass", "OwnHook", "can_stop_early", "never_ran"]

#: wrappers that must see the end of a forward pass: they gather and free parameters around each module
_NEEDS_WHOLE_PASS = frozenset({"FullyShardedDataParallel", "FSDPModule", "DeepSpeedEngine", "FlattenParamsWrapper"})


class _Stop(BaseException):
    """Leaves a forward pass; not an Exception, so that a model's own `except Exception` does not swallow it."""


class OwnHook:
    """A hook of ours, told by its type from those of others, which may change what a model computes."""

    def __init__(self, call: Callable[..., None]) -> None:
        self._call = call

    def __call__(self, *args: Any) -> None:
        """What torch calls: (module, args, output), or (module, args, kwargs) before the module runs."""
        self._call(*args)


def can_stop_early(model: nn.Module) -> bool:
    """Whether a forward pass may be left before its end: not where foreign wrappers stand around modules."""
    for module in model.modules():
        if hasattr(module, "_hf_hook") or any(base.__name__ in _NEEDS_WHOLE_PASS for base in type(module).__mro__):
            return False
    return True


class ForwardPass:
    """One forward pass with hooks on the modules of some targets.

    Args:
        targets: what is captured.
        receive: called as (layer name, value) inside the hook, once per target.
        firings: for targets whose module runs several times, which one counts (from 0).
        stops_early: leave the pass when every target was received.
    """

    def __init__(
        self,
        targets: Sequence[Target],
        receive: Callable[[str, Any], None],
        *,
        firings: Mapping[str, int] | None = None,
        stops_early: bool = True,
    ) -> None:
        self._targets = targets
        self._receive = receive
        self._firings = firings or {}
        self._stops_early = stops_early
        self.counts = {target.name: 0 for target in targets}
        self._missing = set(self.counts)
        self._thread = threading.get_ident()

    def run(self, forward: Callable[[], Any]) -> None:
        """Call `forward` with the hooks in place. What it returns is dropped.

        Passes of the same modules in other threads, which are not ours, go on unseen.
        """
        self._thread = threading.get_ident()
        handles: list[torch.utils.hooks.RemovableHandle] = []
        try:
            for target in self._targets:
                try:
                    handles.append(self._register(target))
                except RuntimeError as error:
                    raise InvalidValueError(
                        f"layer {target.name!r} is a {type(target.module).__name__}, which takes no hooks ({error}); "
                        "index the model as it was before torch.jit.script"
                    ) from error
            forward()
        except _Stop:
            pass
        finally:
            for handle in handles:
                handle.remove()

    @property
    def missing(self) -> list[str]:
        """Targets that were not received."""
        return [name for name in self.counts if name in self._missing]

    def _register(self, target: Target) -> torch.utils.hooks.RemovableHandle:
        if target.takes_input:
            before = OwnHook(lambda module, args, kwargs: self._fired(target.name, _first_input(args, kwargs)))
            return target.module.register_forward_pre_hook(before, with_kwargs=True)
        return target.module.register_forward_hook(
            OwnHook(lambda module, args, output: self._fired(target.name, output))
        )

    def _fired(self, name: str, value: Any) -> None:
        if threading.get_ident() != self._thread:
            return
        number = self.counts[name]
        self.counts[name] = number + 1
        if number != self._firings.get(name, 0):
            return
        self._receive(name, value)
        self._missing.discard(name)
        if self._stops_early and not self._missing:
            raise _Stop


def _first_input(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if args:
        return args[0] if len(args) == 1 or isinstance(args[0], torch.Tensor) else args
    return next((value for value in kwargs.values() if isinstance(value, torch.Tensor)), kwargs)


def never_ran(names: Sequence[str], targets: Sequence[Target], where: str) -> InvalidValueError:
    """The error for modules that a forward pass did not call."""
    modules = {target.name: type(target.module).__name__ for target in targets}
    listed = ", ".join(f"{name!r} ({modules[name]})" for name in names)
    parent = names[0].removesuffix(":input").rpartition(".")[0]
    return InvalidValueError(
        f"the forward pass{where} never called {listed}: containers, the parts of fused attention and of scripted "
        "modules, unused heads and experts that no input reached do not run on their own. Name the module around it "
        "instead"
        + (f", for example {parent!r}" if parent else "")
        + ", or call the part that you want with Capture(forward=lambda model, batch: ...)"
    )
