"""`opusagent.voiceprint` is `voiceprint`: the same modules, so that the same classes, under a second name."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # type checkers do not run the finder below; the .pyi files do the same for the modules
    from voiceprint import *

_ALIAS = __name__
_REAL = "voiceprint"


class _AliasFinder(MetaPathFinder):
    """Answers the import of `opusagent.voiceprint.X` with the module `voiceprint.X`."""

    def find_spec(
        self, fullname: str, _path: Sequence[str] | None = None, _target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if not fullname.startswith(f"{_ALIAS}."):
            return None
        real = _REAL + fullname[len(_ALIAS) :]
        if importlib.util.find_spec(real) is None:
            return None
        return ModuleSpec(fullname, _AliasLoader(real))


class _AliasLoader(Loader):
    def __init__(self, real: str) -> None:
        self._real = real
        self._spec: ModuleSpec | None = None

    def create_module(self, _spec: ModuleSpec) -> ModuleType:
        module = importlib.import_module(self._real)
        self._spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        # The module has run already. The import system has just put the alias's spec on it: put its
        # own back, without which it could not be reloaded or asked for its resources.
        module.__spec__ = self._spec


# First in the list: the alias package has the real one's __path__, from which the ordinary finder
# would load every submodule a second time.
sys.meta_path.insert(0, _AliasFinder())
sys.modules[_ALIAS] = importlib.import_module(_REAL)
