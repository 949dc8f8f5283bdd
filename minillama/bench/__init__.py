"""How fast everything is on this machine, in turn with PyTorch, and beside what the machine can do at all.

`shapes` says what is measured, `parts` who takes part, `ours` and `torch_llama` what each of them does; `contestants`
lets them take turns, `limits` measures the machine; `report` and `figures` show the result.
"""
