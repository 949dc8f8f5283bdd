"""Where a token stands: what every position scheme and every scaling of the rotary frequencies must hold."""

import math
from types import SimpleNamespace

import numpy as np
import pytest

from minillama import backend
from minillama.gradcheck import relative_error
from minillama.ops.positions import POSITIONS
from minillama.ops.positions.alibi import alibi_slopes
from minillama.ops.positions.rope import (
    ROPE_LAYOUTS,
    rope_angles,
    rope_frequencies,
    rope_tables,
    rope_turns,
    swap_rope_layout,
)
from minillama.ops.positions.sinusoidal import sinusoidal_table
from minillama.ops.rope_scaling import ROPE_SCALINGS, scale_frequencies

DTYPES = [np.float32, np.float64]
PAIRS_APART = ["llama3", "yarn"]  # fast pairs are left alone, slow ones interpolated


def make(scaling="none", factor=4.0, **fields):
    """The fields of a Config that positions read; pairs turn from 326 times down to 0.03 over the original context."""
    shape = dict(dim=64, heads=2, head_dim=32, context=8192, rope_theta=10000.0)
    scaled = dict(rope_scaling=scaling, rope_factor=factor, rope_original_context=2048, rope_low=None, rope_high=None)
    return SimpleNamespace(**(shape | scaled | fields))


def frequencies_of(config, length=8192):
    return scale_frequencies(rope_frequencies(config.head_dim, config.rope_theta), config, length)


def turns_of(config):
    """How often each pair turns over the original context, before scaling."""
    return 2048 * rope_frequencies(config.head_dim, config.rope_theta) / (2 * np.pi)


@pytest.mark.parametrize("name", POSITIONS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_scheme_acts_in_one_place_with_the_shapes_that_it_promises(name, dtype):
    row, config = POSITIONS[name], make(context=20)
    assert sum(map(bool, row)) == (name != "none")
    if row.rotation:
        assert [(x.shape, x.dtype) for x in row.rotation(config, 7, dtype)] == [((7, 16), dtype)] * 2
    if row.table:
        table = row.table(config, dtype)
        assert table.shape == (20, 64) and table.dtype == dtype
    if row.slopes:
        slopes = row.slopes(config, dtype)
        assert slopes.shape == (2,) and slopes.dtype == dtype


@pytest.mark.parametrize("C", [1, 2, 7, 64])
def test_sinusoids_are_those_of_the_paper(C):
    table = sinusoidal_table(make(dim=C, context=50), np.float64)
    scale = C**-0.5  # in the place of the paper's factor of the embedding
    for t in (0, 1, 49):
        for c in range(C):
            wave = scale * (math.cos if c % 2 else math.sin)(t / 10000 ** (2 * (c // 2) / C))
            assert abs(table[t, c] - wave) < 1e-13
    np.testing.assert_array_equal(sinusoidal_table(make(dim=C, context=50)), table.astype(np.float32))


@pytest.mark.parametrize("C", [2, 7, 64])
def test_sinusoids_differ_between_any_two_positions(C):
    table = sinusoidal_table(make(dim=C, context=300))
    distances = np.linalg.norm(table[:, None] - table, axis=-1)
    assert distances[~np.eye(300, dtype=bool)].min() > 1e-3


def test_the_sinusoid_of_a_later_position_is_a_rotation_that_depends_on_the_distance_only():
    sines, cosines = (sinusoidal_table(make(dim=10, context=200), np.float64)[:, i::2] for i in (0, 1))
    for k in (1, 30):
        turn = k * 10000.0 ** (-np.arange(0, 10, 2) / 10)
        np.testing.assert_allclose(sines[k:], sines[:-k] * np.cos(turn) + cosines[:-k] * np.sin(turn), atol=1e-13)
        np.testing.assert_allclose(cosines[k:], cosines[:-k] * np.cos(turn) - sines[:-k] * np.sin(turn), atol=1e-13)


def test_alibi_slopes_are_the_published_ones():
    eight = [1 / 2, 1 / 4, 1 / 8, 1 / 16, 1 / 32, 1 / 64, 1 / 128, 1 / 256]  # arXiv 2108.12409, section 3
    twelve = [*eight, 2**-0.5, 2**-1.5, 2**-2.5, 2**-3.5]
    for heads, slopes in [(1, [1 / 256]), (2, [1 / 16, 1 / 256]), (8, eight), (12, twelve)]:
        np.testing.assert_allclose(alibi_slopes(make(heads=heads), np.float64), slopes, rtol=1e-15)
    sixteen = alibi_slopes(make(heads=16), np.float64)
    np.testing.assert_allclose(sixteen[1:] / sixteen[:-1], 2**-0.5, rtol=1e-14)


def test_every_head_has_an_alibi_slope_of_its_own():
    for heads in range(1, 70):
        slopes = alibi_slopes(make(heads=heads))
        assert len(np.unique(slopes)) == heads and slopes.min() > 0 and slopes.max() < 1


@pytest.mark.parametrize("dtype, tolerance", [(np.float32, 1e-6), (np.float64, 1e-14)])
@pytest.mark.parametrize("scaling", ROPE_SCALINGS)
@pytest.mark.parametrize("layout", ROPE_LAYOUTS)
def test_rotation_preserves_length_but_for_the_attention_factor(layout, scaling, dtype, tolerance, each_backend, rng):
    config = make(scaling)
    x = rng.standard_normal((2, 50, 3, 32)).astype(dtype)
    turned = backend.active().rope(x.copy(), *rope_tables(config, 50, dtype), layout)
    assert turned.dtype == dtype and not np.allclose(turned[:, 1:], x[:, 1:])
    lengths = [np.linalg.norm(y.astype(np.float64), axis=-1) for y in (x, turned)]
    np.testing.assert_allclose(lengths[1], frequencies_of(config)[1] * lengths[0], rtol=tolerance)


@pytest.mark.parametrize("scaling", ROPE_SCALINGS)
@pytest.mark.parametrize("layout", ROPE_LAYOUTS)
def test_rope_scores_depend_on_the_distance_only(layout, scaling, each_backend, rng):
    op, config = backend.active(), make(scaling)
    cos, sin = rope_tables(config, 3000, np.float64)
    q, k = rng.standard_normal((2, 1, 1, 1, 32))

    def score(i, j):
        turned = [op.rope(x.copy(), cos[[p]], sin[[p]], layout) for x, p in ((q, i), (k, j))]
        return float(np.sum(turned[0] * turned[1]))

    assert abs(score(5, 2) - score(2905, 2902)) < 1e-11
    assert abs(score(5, 2) - score(5, 3)) > 1e-3


@pytest.mark.parametrize("source, other", [("interleaved", "rotate_half"), ("rotate_half", "interleaved")])
def test_swapped_rows_give_the_same_scores_in_the_other_layout(source, other, rng):
    op, H, D = backend.active(), 3, 6
    x, w_q, w_k = rng.standard_normal((4, 5)), rng.standard_normal((H * D, 5)), rng.standard_normal((H * D, 5))
    angles = rope_angles(np.arange(4), D, 100.0, np.float64)

    def scores(w_q, w_k, layout):
        q, k = (op.rope((x @ w.T).reshape(1, 4, H, D).copy(), *angles, layout) for w in (w_q, w_k))
        return np.einsum("bthd,bshd->hts", q, k)

    expected = scores(w_q, w_k, source)
    assert relative_error(scores(*(swap_rope_layout(w, H, source) for w in (w_q, w_k)), other), expected) < 1e-13
    assert relative_error(scores(w_q, w_k, other), expected) > 0.1
    np.testing.assert_array_equal(swap_rope_layout(swap_rope_layout(w_q, H, source), H, other), w_q)


@pytest.mark.parametrize("dtype", DTYPES)
def test_tables_without_scaling_are_the_angles_of_roformer(dtype):
    config = make()
    received, expected = rope_tables(config, 9, dtype), rope_angles(range(9), 32, 10000.0, dtype)
    np.testing.assert_array_equal(received, expected)
    assert received[0].dtype == dtype
    angle = 8 * 10000 ** (-2 * 5 / 32)
    np.testing.assert_allclose([received[0][8, 5], received[1][8, 5]], [math.cos(angle), math.sin(angle)], rtol=1e-6)


@pytest.mark.parametrize("scaling", ROPE_SCALINGS)
def test_a_scaling_slows_pairs_by_no_more_than_the_factor_and_keeps_their_order(scaling):
    config = make(scaling)
    plain, (scaled, attention_factor) = rope_frequencies(32, 10000.0), frequencies_of(config, length=2048)
    assert scaled.shape == (16,) and scaled.dtype == np.float64 and isinstance(attention_factor, float)
    assert np.all(np.diff(scaled) < 0)
    assert np.all(scaled <= plain * (1 + 1e-15)) and np.all(scaled >= plain / 4 * (1 - 1e-15))
    np.testing.assert_array_equal(plain, rope_frequencies(32, 10000.0), "the frequencies passed in are not changed")


@pytest.mark.parametrize("scaling", ROPE_SCALINGS)
@pytest.mark.parametrize("head_width", [2, 4, 6])
def test_factor_1_within_the_original_context_changes_nothing(scaling, head_width):
    config = make(scaling, factor=1.0, head_dim=head_width)
    scaled, attention_factor = frequencies_of(config, length=2048)
    np.testing.assert_allclose(scaled, rope_frequencies(head_width, 10000.0), rtol=1e-15)
    assert attention_factor == 1.0


def test_linear_position_by_the_factor_has_the_angles_of_the_position():
    plain, scaled = rope_tables(make(), 100, np.float64), rope_tables(make("linear"), 400, np.float64)
    for a, b in zip(plain, scaled, strict=True):
        np.testing.assert_allclose(b[::4], a, atol=1e-14)


def test_ntk_leaves_the_fastest_pair_alone_and_slows_the_slowest_by_the_factor():
    slowed = rope_frequencies(32, 10000.0) / frequencies_of(make("ntk"))[0]
    assert slowed[0] == 1 and slowed[-1] == pytest.approx(4, rel=1e-14)
    assert np.all(np.diff(slowed) > 0)
    raised = rope_frequencies(32, 10000.0 * 4 ** (32 / 30))
    np.testing.assert_allclose(frequencies_of(make("ntk"))[0], raised, rtol=1e-13)


def test_dynamic_equals_none_up_to_the_original_context_and_stretches_with_the_length_beyond():
    plain = rope_frequencies(32, 10000.0)
    for length in (1, 100, 2048):
        np.testing.assert_array_equal(frequencies_of(make("dynamic"), length)[0], plain)
    last = [frequencies_of(make("dynamic"), length)[0][-1] for length in (2048, 2049, 4096, 8192)]
    np.testing.assert_allclose(plain[-1] / last, [1, 1 + 4 / 2048, 5, 13], rtol=1e-13)
    np.testing.assert_allclose(  # with factor 1 as much as the sequence is longer, as in the paper
        frequencies_of(make("dynamic", factor=1.0), 6144)[0], frequencies_of(make("ntk", factor=3.0))[0], rtol=1e-13
    )


def test_only_dynamic_depends_on_the_length():
    for scaling, row in ROPE_SCALINGS.items():
        short, long = (frequencies_of(make(scaling), length)[0] for length in (100, 8000))
        assert np.array_equal(short, long) != row.by_length, scaling
    assert [name for name, row in ROPE_SCALINGS.items() if row.by_length] == ["dynamic"]


@pytest.mark.parametrize("scaling", PAIRS_APART)
@pytest.mark.parametrize("bounds", [(None, None), (2.0, 20.0)])
def test_slow_pairs_are_interpolated_and_fast_ones_left_alone(scaling, bounds):
    config = make(scaling, rope_low=bounds[0], rope_high=bounds[1])
    low, high = bounds if bounds[0] else ROPE_SCALINGS[scaling][2:]
    slowed, turns = rope_frequencies(32, 10000.0) / frequencies_of(config)[0], turns_of(config)
    between = (turns > low) & (turns < high)
    assert between.any() and (turns < low).sum() > 3 and (turns > high).sum() > 3
    np.testing.assert_allclose(slowed[turns < low], 4, rtol=1e-14)
    np.testing.assert_allclose(slowed[turns > high], 1, rtol=1e-14)
    assert np.all((slowed[between] > 1) & (slowed[between] < 4))


def test_ramps_are_those_that_were_published():
    """llama3's runs by turns, from 1 to 4; yarn's by pairs, from the last above 32 turns to the first below 1."""
    frequencies = np.array([10.0, 4.0, 2.5, 1.0, 0.1]) * 2 * np.pi / 2048  # of as many turns
    for bounds in ((None, None), (1.0, 4.0)):
        config = make("llama3", rope_low=bounds[0], rope_high=bounds[1])
        np.testing.assert_allclose(
            scale_frequencies(frequencies, config, 8192)[0] / frequencies, [1, 1, 1 / 2 + 1 / 8, 1 / 4, 1 / 4]
        )
    turns = turns_of(make())
    first, last = np.flatnonzero(turns > 32)[-1], np.flatnonzero(turns < 1)[0]
    kept = (last - np.arange(first, last + 1)) / (last - first)
    slowed = rope_frequencies(32, 10000.0) / frequencies_of(make("yarn"))[0]
    np.testing.assert_allclose(1 / slowed[first : last + 1], kept + (1 - kept) / 4, rtol=1e-14)


@pytest.mark.parametrize("scaling", PAIRS_APART)
def test_pairs_that_are_all_fast_or_all_slow(scaling):
    """Then the ramp lies outside of the pairs."""
    fast = make(scaling, rope_theta=2.0, rope_original_context=10**6)
    np.testing.assert_allclose(frequencies_of(fast)[0], rope_frequencies(32, 2.0), rtol=1e-14)
    slow = make(scaling, rope_low=1000.0, rope_high=2000.0)
    np.testing.assert_allclose(frequencies_of(slow)[0][1:], rope_frequencies(32, 10000.0)[1:] / 4, rtol=1e-14)


def test_the_context_is_the_original_one_where_no_other_is_named():
    for scaling in ROPE_SCALINGS:
        named, unnamed = make(scaling), make(scaling, rope_original_context=None, context=2048)
        np.testing.assert_array_equal(frequencies_of(named)[0], frequencies_of(unnamed)[0])


def test_yarn_sharpens_attention():
    for scaling in ROPE_SCALINGS:
        expected = 0.1 * math.log(4) + 1 if scaling == "yarn" else 1.0
        assert frequencies_of(make(scaling))[1] == pytest.approx(expected, rel=1e-15)
    cos, sin = rope_tables(make("yarn"), 30, np.float64)
    np.testing.assert_allclose(cos**2 + sin**2, (0.1 * math.log(4) + 1) ** 2, rtol=1e-14)
    expected = rope_turns(range(30), frequencies_of(make("yarn"))[0], np.float64)
    np.testing.assert_allclose(cos, (0.1 * math.log(4) + 1) * expected[0], rtol=1e-14)


def test_no_operation_hides_another_of_the_same_name():
    names = [name for operations in backend.operations().values() for name in operations]
    assert len(set(names)) == len(names)
