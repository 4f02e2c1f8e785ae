#!/usr/bin/env bash
# openvino 2026.4.1: compiling a model for the CPU replaces the stack that the process had registered for its signals.
#
# Why it matters: Python's faulthandler registers such a stack to be able to say where a program was when it broke, and pytest turns
# faulthandler on for every test run. After the first model for the CPU another stack lies there, of 11 kB, which belongs to the library
# and goes when its plugin goes. Long test runs that we made ended without any message, until the earlier stack was put back.
# Expected: the Python reference says what a compiled model needs of memory and threads; nothing there says that
# the thread's way to handle signals is changed. sigaltstack(2) calls the stack a property of the thread, which its owner sets.
set -euo pipefail
d=$(mktemp -d)
trap 'rm -rf "$d"' EXIT
python3 -m venv "$d/venv"
"$d/venv/bin/pip" install -q "openvino==2026.4.1" "numpy==2.4.6"
cd "$d"
"$d/venv/bin/python" - <<'PY'
import ctypes
import faulthandler
import platform

import numpy
import openvino
from openvino import opset13


class Stack(ctypes.Structure):
    _fields_ = [("address", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t)]


def registered():
    stack = Stack()
    assert ctypes.CDLL(None).sigaltstack(None, ctypes.byref(stack)) == 0
    return stack.address, stack.size


print("openvino", openvino.__version__, "Python", platform.python_version(), platform.system())
faulthandler.enable()
of_faulthandler = registered()
print("registered by faulthandler:      ", of_faulthandler[1], "bytes")
picture = opset13.parameter([1, 3], numpy.float32)
model = openvino.Model([opset13.relu(picture)], [picture], "relu")
core = openvino.Core()
assert registered() == of_faulthandler
compiled = core.compile_model(model, "CPU")
assert compiled([numpy.array([[-1.0, 0.0, 2.0]], numpy.float32)])[0].tolist() == [[0.0, 0.0, 2.0]]
afterwards = registered()
print("registered after compile_model:  ", afterwards[1], "bytes, at another address:", afterwards[0] != of_faulthandler[0])
assert faulthandler.is_enabled()
assert afterwards[0] != of_faulthandler[0]
print("as found")
PY
