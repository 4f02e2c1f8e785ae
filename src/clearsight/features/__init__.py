"""Seeing inside a network, one method per file: feature(inside, *, options) -> Iterator[Page].

The verb has the name of this folder, and importing a folder puts it in the place of whatever the package above calls by
that name.  So the folder can be called: ``cs.features(model, pictures)`` works before and after this import.
"""

from __future__ import annotations

import sys
import types
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clearsight.seeing import Atlas


class _Verb(types.ModuleType):
    def __call__(self, *args: Any, **options: Any) -> Atlas:
        """See ``clearsight.seeing.features``."""
        from clearsight import seeing

        return seeing.features(*args, **options)


sys.modules[__name__].__class__ = _Verb
