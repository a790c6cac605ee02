"""Code for a separate process: a tensor that is ready only after another Python thread has run.

Waiting for it with the GIL never ends; `run_forked` reports that.
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
