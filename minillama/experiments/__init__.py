"""What each choice of an architecture is worth: variants of a LLaMA, trained on equal terms and compared by seeds.

`variants` says what is compared, `jobs` on which terms: sizes, data, the learning rate of each variant; `scheduler`
runs the jobs on all processors and `results` keeps them. `statistics`, `report` and `figures` show what came out, and
`extrapolation` how far a model reads beyond the context that it was trained with.
"""
