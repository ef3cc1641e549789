"""Which model is believed to be the one that was indexed, and whether it still is: weights, configuration, and what
lies beside them, code of classes, hooks and other attributes.

A look at the model takes microseconds while its stamp is the same; what is behind a stamp is hashed and read once.
Implements design section 4, "What exact means" (what differs: weights, buffers, hooks).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from neuralartifactdb.capture.configuration import Configuration
from neuralartifactdb.capture.fingerprint import describe_model, same_model
from neuralartifactdb.capture.model_stamp import ModelStamp, model_stamp
from neuralartifactdb.capture.model_state import one_at_a_time
from neuralartifactdb.capture.module_attributes import changed_places
from neuralartifactdb.capture.moving_attributes import MovingAttributes

__all__ = ["ModelWatch", "SeenModel"]


@dataclass(frozen=True)
class SeenModel:
    """A model at one moment: its stamp, what `describe_model` gives, its configuration."""

    stamp: ModelStamp
    weights: dict[str, Any]
    configuration: Configuration

    def agrees(self, weights: Mapping[str, Any], configuration: Mapping[str, Any]) -> bool:
        """Whether it is the model of these: a result of `describe_model` and a `Configuration.record`."""
        return same_model(self.weights, weights) and not self.configuration.differences(configuration)


class ModelWatch:
    """Looks at a model and remembers the one to be believed.

    Args:
        model: the whole model.
        moving: attributes that the source's passes change.
    """

    def __init__(self, model: nn.Module, moving: MovingAttributes) -> None:
        self._model = model
        self._moving = moving
        self._seen: SeenModel | None = None
        self._believed: SeenModel | None = None
        self._beside: dict[str, SeenModel] = {}

    def look(self) -> SeenModel:
        """The model as it is now: weights are hashed and flags read once for each stamp."""
        stamp, seen = model_stamp(self._model, self._moving), self._seen
        if seen is None or seen.stamp != stamp:
            with one_at_a_time():
                same_weights = seen is not None and (seen.stamp.places, seen.stamp.values) == stamp[:2]
                weights = seen.weights if seen is not None and same_weights else describe_model(self._model)
                seen = self._seen = SeenModel(stamp, weights, Configuration(self._model, self._moving))
        return seen

    def forget(self) -> None:
        """Hash the weights again at the next look: a write through `.data` of one weight leaves no other trace."""
        self._seen = None

    def believe(self, stored: Mapping[str, Any] | None, layers: Iterable[str]) -> None:
        """Believe the model last seen from here on, unless another is believed, or is that of the fingerprint `stored`.

        What lies beside weights and flags is then what `layers` have the values of the index with.
        """
        seen = self._seen
        if self._believed is not None or seen is None:
            return
        if stored is None or seen.agrees(stored.get("model", {}), stored.get("configuration", {})):
            self._believed = seen
            self._beside = dict.fromkeys(layers, seen)

    def changed(self) -> bool:
        """Whether the model is another than the believed one; stays true until that one is back."""
        believed = self._believed
        if believed is None:
            return False
        seen = self.look()
        if seen is believed:
            return False
        if not seen.agrees(believed.weights, believed.configuration.record()):
            return True
        self._believed = self._seen = SeenModel(seen.stamp, seen.weights, believed.configuration)
        return False

    def record(self, before: Mapping[str, Any]) -> Mapping[str, Any]:
        """The believed configuration's record, with all that is known by now to move; `before` if none is believed."""
        return before if self._believed is None else self._believed.configuration.record(before)

    def changes_beside(self, layer: str) -> list[str]:
        """What of classes' code, hooks, attributes that are no flags, and buffers that `state_dict` leaves out was
        another at the last look than with the values believed for the layer, in words."""
        before, now = self._beside.get(layer), self._seen
        if before is None or now is None or before is now:
            return []
        found = []
        if before.stamp.code != now.stamp.code:
            changed = set(before.stamp.code) ^ set(now.stamp.code)
            names = sorted({code.of.__qualname__ for code in changed})
            found.append(f"code of classes ({', '.join(names[:8])})")
        if before.stamp.hooks != now.stamp.hooks:
            found.append("hooks")
        names = sorted({name for _, name in changed_places(before.stamp.attributes, now.stamp.attributes)})
        if names or before.stamp.attribute_values != now.stamp.attribute_values:
            found.append(f"attributes of modules ({', '.join(names[:8]) or 'values of tensors'})")
        if before.weights["unsaved"] != now.weights["unsaved"]:
            found.append("buffers that state_dict leaves out")
        return found

    def believe_beside(self, layer: str) -> None:
        """The layer has the values of the index with all that the last look saw."""
        self._beside[layer] = self._seen or self.look()
