"""The operations of `minillama.ops` again, as compiled schedules: the same names, arguments and results.

Outputs and scratch come from the arena of the calling thread (`minillama.runtime.memory.empty`), no kernel starts a
thread, and all release the interpreter's lock, so that worker threads run them side by side on their shards of a batch.
"""
