"""Every operation on tensors as it is run, without importing torch's compiler."""

from __future__ import annotations

from torch.utils._python_dispatch import TorchDispatchMode


class Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """To be derived from, with __torch_dispatch__ (see torch.utils._python_dispatch)."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # to hide a mode from the compiler torch would import it, which takes two seconds
