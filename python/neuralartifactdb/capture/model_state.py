"""Running a user's model without leaving a trace: training flags, hooks, RNG, grad mode, numeric switches are as
before on every exit.

Entered for each call that runs the model, never held between calls, so that nothing is altered while user code runs.
Implements design section 4, "Capture" ("leaves the model as it was").
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import numpy as np
import torch
from torch import nn

from neuralartifactdb.capture.module_attributes import modules_of
from neuralartifactdb.errors import InvalidValueError

__all__ = ["interrupts_deferred", "model_device", "one_at_a_time", "quiet", "rng_kept"]

#: one for the process: hooks and flags belong to models that several sources may share, RNG and switches to everybody
_lock = threading.RLock()


def _renew_lock() -> None:
    global _lock
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):  # the thread that holds it does not live on in the child
    os.register_at_fork(after_in_child=_renew_lock)


@contextlib.contextmanager
def one_at_a_time() -> Iterator[None]:
    """Keep other threads of the process, whatever their source, from running or describing a model; re-entrant."""
    with _lock:
        yield


@contextlib.contextmanager
def interrupts_deferred() -> Iterator[Callable[[], bool]]:
    """Hold back Ctrl-C until a model's state is as before; a second Ctrl-C is delivered at once.

    Otherwise an interrupt could arrive between two of the statements that restore it. Gives a function that tells
    whether one is held back: whoever works long leaves soon after.
    """
    previous = signal.getsignal(signal.SIGINT) if threading.current_thread() is threading.main_thread() else None
    if not callable(previous):  # only the main thread is interrupted; an ignored or default signal raises nothing
        yield lambda: False
        return
    deliver = previous
    arrived: list[tuple[int, FrameType | None]] = []

    def hold(number: int, frame: FrameType | None) -> None:
        arrived.append((number, frame))
        if len(arrived) > 1:
            deliver(number, frame)

    signal.signal(signal.SIGINT, hold)
    try:
        yield lambda: bool(arrived)
    finally:
        signal.signal(signal.SIGINT, previous)
        if len(arrived) == 1:
            deliver(*arrived[0])


@contextlib.contextmanager
def rng_kept() -> Iterator[None]:
    """Every random state that a dataset or model may draw from (torch, NumPy, Python) is put back."""
    with one_at_a_time():  # states that two threads restore out of order are not as before
        restore = _random_states()
        try:
            yield
        finally:
            with interrupts_deferred():
                restore()


def _random_states() -> Callable[[], None]:
    cpu = torch.get_rng_state()
    cuda_in_use: bool = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    cuda = torch.cuda.get_rng_state_all() if cuda_in_use else None
    mps = torch.mps.get_rng_state() if torch.backends.mps.is_available() else None
    # NumPy's global generator is what users' transforms draw from
    numpy_state, python_state = np.random.get_state(), random.getstate()  # noqa: NPY002

    def restore() -> None:
        torch.set_rng_state(cpu)
        if cuda is not None:
            torch.cuda.set_rng_state_all(cuda)
        if mps is not None:
            torch.mps.set_rng_state(mps)
        np.random.set_state(numpy_state)  # noqa: NPY002
        random.setstate(python_state)

    return restore


def model_device(model: nn.Module, wanted: Any) -> torch.device:
    """Where batches go: the device of the model's first parameter or buffer, or `wanted` where the model has several
    or none.

    Raises:
        ValueError: `wanted` is not where the model is. The model is never moved.
    """
    places = {tensor.device for tensors in (model.parameters(), model.buffers()) for tensor in tensors}
    places.discard(torch.device("meta"))
    first = next((p.device for p in model.parameters() if p.device.type != "meta"), None)
    own = first or next(iter(places), torch.device("cpu"))
    if wanted is None:
        return own
    asked = torch.device(wanted)
    same = [place for place in places if place.type == asked.type and asked.index in (None, place.index)]
    if places and not same:
        raise InvalidValueError(
            f"Capture.device is {str(asked)!r} but the model is on {', '.join(sorted(map(str, places)))}, and it is "
            f"never moved for you; call model.to({str(asked)!r}) first, or leave out device"
        )
    return same[0] if same else asked


@contextlib.contextmanager
def quiet(model: nn.Module, device: torch.device) -> Iterator[Callable[[], bool]]:
    """Evaluation mode in every module, no grad, eager, no fused attention; all of it and the RNG as before on exit.

    `no_grad` rather than `inference_mode`: tensors that a model caches must still work in its next training step. The
    fused path of torch's transformer layers never calls its submodules, so it is off. Autotuned convolutions could
    change bits between runs. Other threads wait meanwhile, and they can be interrupted while they do.

    Gives a function that tells whether a Ctrl-C waits for the exit.
    """
    cudnn = torch.backends.cudnn
    with one_at_a_time(), interrupts_deferred() as interrupted, contextlib.ExitStack() as stack:
        stack.enter_context(rng_kept())
        stack.enter_context(torch.no_grad())
        if "torch._dynamo" in sys.modules:  # nothing can have been compiled otherwise
            stack.enter_context(_eager())
        if device.type == "cuda":
            stack.callback(setattr, cudnn, "benchmark", cudnn.benchmark)
            stack.callback(setattr, cudnn, "deterministic", cudnn.deterministic)
            cudnn.benchmark, cudnn.deterministic = False, True
        stack.callback(torch.backends.mha.set_fastpath_enabled, torch.backends.mha.get_fastpath_enabled())
        torch.backends.mha.set_fastpath_enabled(False)
        training = [module for module in modules_of(model) if module.training]
        stack.callback(_set_training, training)
        for module in training:
            module.training = False
        yield interrupted


def _set_training(modules: list[nn.Module]) -> None:
    for module in modules:
        module.training = True


def _eager() -> Any:
    set_stance = getattr(torch.compiler, "set_stance", None)
    if set_stance is None:
        raise InvalidValueError(
            f"hooks do not fire in compiled modules under torch {torch.__version__}; update to torch>=2.6, or index "
            "the model before compiling it"
        )
    return set_stance("force_eager")
