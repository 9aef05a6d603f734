"""`opusagent.voiceprint` is `voiceprint`: the same modules, and so the same classes, under a second name."""

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
    """Resolves the import of `opusagent.voiceprint.X` to the module `voiceprint.X`."""

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
        # The module has run already, and the import system has set the alias's spec on it. Its own spec is
        # needed to reload it and to find its resources.
        module.__spec__ = self._spec


# First in the list: the alias package has the real one's __path__, and the ordinary finder would load every
# submodule from there a second time.
sys.meta_path.insert(0, _AliasFinder())
sys.modules[_ALIAS] = importlib.import_module(_REAL)
