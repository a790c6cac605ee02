"""Code for a process of its own: a tensor that is not there before another Python thread ran.

Whoever waits for it with the GIL waits for good; `run_forked` tells.
"""

from __future__ import annotations

GATED = """
import sys, threading
from tensorflow.python.eager import context, executor
# Kept: its end waits for everything that it runs.
background = executor.new_executor(enable_async=True)
opened, returned = threading.Event(), threading.Event()
def gated(value):
    def produce():
        opened.wait()
        return tf.constant(value)
    dtype = tf.constant(value).dtype
    with context.executor_scope(background):
        return tf.py_function(produce, [], dtype)
def open_when_let_in():
    # A thread keeps the GIL until it waits: this one runs once the caller does.
    sys.setswitchinterval(600)
    def let_in():
        assert not returned.is_set()
        opened.set()
    threading.Thread(target=let_in, daemon=True).start()
"""
