"""Dynamic NTK-aware scaling: no more stretch than the sequence that is read needs."""

from .ntk import raise_base


def dynamic_ntk_scaling(frequencies, config, length, low, high):
    """ntk with the factor  s = factor length / original - (factor - 1),  at least 1

    Up to the original context (s = 1) nothing changes; beyond it, slow pairs are slowed more with every token, and fast
    ones hardly. Factor 1 stretches by length / original, as the paper has it; transformers' formula, which this is, can
    stretch by more, since theta alone falls short of what its factor promises. The frequencies change with every
    further token, so turned keys in a cache no longer fit; this package refuses that, transformers decodes with them.
    Source: the user emozilla of r/LocalLLaMA, June 2023, "Dynamically Scaled RoPE"; Peng et al. 2023 (arXiv
    2309.00071), section 3.3.
    """
    original = config.rope_original_context or config.context
    factor = config.rope_factor
    return raise_base(frequencies, max(1.0, factor * length / original - (factor - 1.0))), 1.0
