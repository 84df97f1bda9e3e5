"""What PyTorch does in an update, seen tensor by tensor, also of tensors that have a size and no content."""

import weakref

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry


class Live(TorchDispatchMode):
    """In here the bytes of all that is made on a device and still there are added up: `now`, and their `peak`.

    Where the value of a tensor without content is asked for, as Adafactor does of norms, it is 1.
    """

    def __init__(self, device: torch.device):
        super().__init__()
        self.device, self.now, self.peak, self._there = device, 0, 0, {}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function is torch.ops.aten._local_scalar_dense.default and args[0].is_meta:
            return 1.0
        found = function(*args, **(kwargs or {}))
        for value in tree_leaves(found):
            if isinstance(value, Tensor) and value.device.type == self.device.type:
                self._see(value.untyped_storage())
        return found

    def _see(self, storage):
        key, size = storage._cdata, storage.nbytes()
        if key in self._there:
            return

        def gone(_):
            del self._there[key]
            self.now -= size

        self._there[key] = weakref.ref(storage, gone)
        self.now += size
        self.peak = max(self.peak, self.now)


class Flop(TorchDispatchMode):
    """In here the floating-point operations of products and convolutions are added up, by PyTorch's own formulas.

    Its FlopCounterMode also tells them apart by module, and takes five times as long for that.
    """

    def __init__(self):
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        found = function(*args, **(kwargs or {}))
        if formula := flop_registry.get(function._overloadpacket):
            self.total += formula(*args, **(kwargs or {}), out_val=found)
        return found
