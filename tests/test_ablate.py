"""Ablations: variants on equal terms; intervals and verdicts; results that survive kills; tables and figures."""

import json
import random
from dataclasses import replace
from itertools import islice, permutations
from math import inf, isnan
from pathlib import Path

import numpy as np
import pytest

from minillama import Config, Model, __main__
from minillama.catalogue.sizes import match_parameters, parameter_count, training_flops_per_token
from minillama.config import BIASES, SWITCHES
from minillama.data.corpora import encode_corpus
from minillama.experiments import jobs, scheduler
from minillama.experiments.extrapolation import losses_by_position
from minillama.experiments.jobs import (
    RUN,
    TIME,
    TUNING,
    TUNING_SEED,
    Job,
    Protocol,
    best_rate,
    compute,
    due,
    next_rates,
)
from minillama.experiments.plots import by_position, close_up, curve_styles, draw, forest
from minillama.experiments.report import adjusted_for_all, compared, outcomes, report
from minillama.experiments.results import Results, of, read
from minillama.experiments.statistics import estimate, holm, p_value, paired, t_quantile, verdict
from minillama.experiments.variants import CLOSE_UPS, NOT_COMPARED, STUDIES, config_of, name_of, variants
from minillama.files import InUse
from minillama.training.trainer import Settings

TINY = Protocol(8, 1, 2, 8, Settings(steps=4, batch_size=2, lr=0.01, warmup=1))
BASE = Protocol().base(512)


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "words.txt"
    path.write_text(" ".join(random.Random(0).choices(["red", "green", "blue"], k=600)))
    return path


@pytest.fixture
def two_variants(monkeypatch):
    """The leave-one-out with LLaMA and one other variant."""
    rows = [
        STUDIES["leave-one-out"].rows(BASE)[0],
        *(r for r in STUDIES["leave-one-out"].rows(BASE) if r.changes == {"tied": True}),
    ]
    monkeypatch.setitem(STUDIES, "leave-one-out", STUDIES["leave-one-out"]._replace(rows=lambda base: rows))


def made_up(changes=(), corpus="a", seed=0, loss=1.0, kind=RUN, lr=0.003, protocol=TINY, **fields):
    """A result as `compute` gives it."""
    changes = dict(changes)
    config, steps = protocol.plan(changes, 30)
    result = {
        "kind": kind, "variant": name_of(changes), "corpus": corpus, "seed": seed, "lr": lr, "loss": loss,
        "curve": [[2, 2 * (loss or 1)], [4, loss]], "step_seconds": {"min": 0.01, "median": 0.02}, "steps": steps,
        "parameters": parameter_count(config)["total"], "training_flops_per_token": training_flops_per_token(config),
        "config": config.to_dict(), "unit": "token", "floor": None, "data": "0", "protocol": protocol.to_dict(),
        **fields,
    }  # fmt: skip
    return json.loads(json.dumps(result))


def by_key(results):
    return {jobs.key_of(result): result for result in results}


# Variants


@pytest.mark.parametrize("study", STUDIES)
def test_every_row_is_a_valid_causal_model_that_differs_in_what_it_says(study):
    for row in STUDIES[study].rows(BASE):
        config = config_of(row.changes, BASE)
        assert config.causal and row.label and row.words
        for field, value in row.changes.items():
            assert getattr(config, field) == value != getattr(BASE, field)
        different = {name for name, value in config.to_dict().items() if value != getattr(BASE, name)}
        assert different - {"ffn"} == set(row.changes)
        assert parameter_count(match_parameters(config, parameter_count(BASE)["total"]))["total"] > 0


def test_every_choice_of_every_switch_is_compared_or_has_a_reason_not_to_be():
    compared = [row.changes for row in STUDIES["leave-one-out"].rows(BASE)]
    for switch, table in SWITCHES.items():
        for name in table:
            expected = switch not in NOT_COMPARED and name != getattr(BASE, switch)
            assert ({switch: name} in compared) == expected, (switch, name)


def test_a_ladder_takes_one_step_at_a_time_and_ends_at_llama():
    rows = STUDIES["ladder"].rows(BASE)
    assert rows[0].against is None and rows[-2].changes == {} == rows[-1].changes
    for before, row in zip(rows, rows[1:-1], strict=False):
        assert row.against == before.changes and len(before.changes) - len(row.changes) == 1
    assert rows[-1].against == rows[0].changes
    gpt = config_of(rows[0].changes, BASE)
    assert gpt.ffn == 4 * gpt.dim and gpt.tied and gpt.norm == "layernorm" and gpt.position == "learned"


def test_variants_of_several_studies_are_trained_once():
    found = [name_of(changes) for changes in variants(STUDIES, BASE)]
    assert len(found) == len(set(found)) and "LLaMA" in found and "tied=True" in found
    sides = [changes for _, pair in CLOSE_UPS.values() for changes in pair.values()]
    assert {name_of(changes) for changes in sides} <= set(found)
    with pytest.raises(ValueError, match="no study 'stairs'; choose among ladder, leave-one-out, extrapolation"):
        variants(["stairs"], BASE)


def test_variants_of_some_fields_only():
    def found(study, *only):
        return [name_of(changes) for changes in variants([study], BASE, only)]

    activations = [f"feed_forward={name}" for name in SWITCHES["feed_forward"] if name != BASE.feed_forward]
    everywhere = [f"bias={'+'.join(BIASES)}"]
    assert found("leave-one-out", "feed_forward", "bias") == ["LLaMA", *activations, *everywhere]
    assert found("leave-one-out", "bias") == ["LLaMA", *everywhere]
    assert found("ladder", "tied") == ["tied=True", "LLaMA"]
    with pytest.raises(ValueError, match="no field that these studies change 'norms'; did you mean norm.*feed_forward"):
        found("leave-one-out", "bias", "norms")
    with pytest.raises(ValueError, match="changes norm without other fields; .*they change norm, position, feed_f"):
        found("ladder", "norm", "tied")


# Equal terms


@pytest.mark.parametrize("changes", variants(STUDIES, BASE), ids=name_of)
def test_parameters_are_as_equal_as_a_column_of_the_feed_forward_allows(changes):
    count = parameter_count(BASE)["total"]
    config, steps = Protocol().plan(changes, 512)
    one_more = parameter_count(replace(config, ffn=config.ffn + 1))["total"] - parameter_count(config)["total"]
    assert abs(parameter_count(config)["total"] - count) <= one_more / 2 and steps == 400
    assert replace(config, ffn=1) == replace(config_of(changes, BASE), ffn=1)


def test_too_few_parameters_are_refused_with_a_reason():
    with pytest.raises(
        ValueError, match="1,000 parameters are too few for this model: it has [0-9,]+ without its feed"
    ):
        match_parameters(BASE, 1000)


def test_equal_compute_changes_the_steps_and_leaves_the_width():
    protocol = Protocol(equal="compute")
    config, steps = protocol.plan({"kv_heads": 1}, 512)
    assert config.ffn == BASE.ffn and steps > 400
    assert steps * training_flops_per_token(config) == pytest.approx(400 * training_flops_per_token(BASE), rel=1 / 400)
    assert protocol.plan({}, 512) == (BASE, 400)
    with pytest.raises(ValueError, match="equal must be one of parameters, compute; received 'time'"):
        Protocol(equal="time")


def test_a_warm_up_that_takes_all_steps_of_a_variant_is_refused_where_it_is_planned():
    protocol = replace(TINY, equal="compute", settings=replace(TINY.settings, steps=400, warmup=399))
    assert protocol.plan({}, 30)[1] == 400
    with pytest.raises(ValueError, match="warmup must be less than steps"):
        protocol.plan({"bias": BIASES, "kv_heads": 2, "ffn": 64}, 30)


def test_the_grid_of_learning_rates_is_extended_at_most_twice():
    assert next_rates(4, {}) == [2, 4, 8]
    assert next_rates(4, {2: 1.0, 8: 1.0}) == [4]
    assert next_rates(4, {2: 1.2, 4: 1.0, 8: 1.1}) == []
    assert next_rates(4, {2: 1.0, 4: 1.1, 8: inf}) == [1]
    assert next_rates(4, {1: 0.9, 2: 1.0, 4: 1.1, 8: 1.2}) == [0.5]
    assert next_rates(4, {1: 1.1, 2: 1.0, 4: 1.1, 8: 1.2}) == []
    assert next_rates(4, {2: 1.2, 4: 1.1, 8: 1.0, 16: 0.9}) == [32]
    assert next_rates(4, {0.5: 0.8, 1: 0.9, 2: 1.0, 4: 1.1, 8: 1.2}) == []


def test_the_order_in_which_learning_rates_were_done_decides_nothing():
    for losses in ({2: inf, 4: inf, 8: inf}, {2: 1.0, 4: 1.0, 8: 1.1}):
        for order in permutations(losses):
            tried = {rate: losses[rate] for rate in order}
            assert best_rate(tried) == 2 and next_rates(4, tried) == [1]
    for order in permutations((0.0025, 0.005, 0.00125, 0.01, 0.02)):
        tried = by_key([made_up(kind=TUNING, seed=TUNING_SEED, lr=rate, loss=None) for rate in order])
        assert due(TINY, {}, "a", [0], tried) == [Job(RUN, {}, "a", 0, 0.00125)]


def test_seeds_follow_when_the_learning_rate_is_known_and_what_is_done_is_left_out():
    def tuned(rate, loss):
        return made_up(kind=TUNING, seed=TUNING_SEED, lr=rate, loss=loss)

    results = by_key([tuned(0.005, 1.2), tuned(0.02, None)])
    assert due(TINY, {}, "a", range(3), results) == [Job(TUNING, {}, "a", TUNING_SEED, 0.01)]
    results |= by_key([tuned(0.01, 1.1), made_up(seed=1, lr=0.01)])
    assert due(TINY, {}, "a", range(3), results) == [Job(RUN, {}, "a", seed, 0.01) for seed in (0, 2)]
    assert due(TINY, {}, "b", range(3), results)[0].kind == TUNING
    assert TUNING_SEED not in range(100)


def test_a_seed_gives_variants_the_same_data_and_the_same_weights_where_shapes_agree(text, monkeypatch):
    seen = {}

    class Watched(jobs.Trainer):
        def step(self):
            weights = {name: array.copy() for name, array in self.model.parameters.items()}
            seen.setdefault((self.model.config.position, self.settings.seed), (weights, self.batches[0]))
            return super().step()

    monkeypatch.setattr(jobs, "Trainer", Watched)
    source = {"data": str(text), "tokenizer": "char", "vocab_size": 0}
    for changes in ({}, {"position": "learned"}):  # it has one parameter more, before the blocks
        for seed in (0, 1):
            compute(TINY, source, Job(RUN, changes, "words", seed, 0.01))
    (weights, batch), (others, other_batch) = seen["rope", 0], seen["learned", 0]
    np.testing.assert_array_equal(batch, other_batch)
    alike = [name for name in weights.keys() & others.keys() if weights[name].shape == others[name].shape]
    assert {"embedding", "blocks.0.w_q", "blocks.0.w_o"} <= set(alike)
    for name in alike:
        np.testing.assert_array_equal(weights[name], others[name])
    assert not np.array_equal(seen["rope", 1][0]["embedding"], weights["embedding"])
    assert not np.array_equal(seen["rope", 1][1], batch)
    assert weights["embedding"].std() == pytest.approx(TINY.settings.init_std, rel=0.2)


def test_the_learning_rate_is_chosen_without_the_validation_split(text, monkeypatch):
    corpora = []
    monkeypatch.setattr(jobs, "Trainer", lambda model, corpus, settings: corpora.append(corpus) or 1 / 0)
    source = {"data": str(text), "tokenizer": "char", "vocab_size": 0}
    for kind in (TUNING, RUN):
        with pytest.raises(ZeroDivisionError):
            compute(TINY, source, Job(kind, {}, "words", 0, 0.01))
    whole = encode_corpus(**source)
    tuning, reported = corpora
    np.testing.assert_array_equal(np.concatenate([tuning.train, tuning.validation]), whole.train)
    assert len(tuning.validation) == pytest.approx(len(whole.train) / 10, abs=1)
    np.testing.assert_array_equal(reported.train, whole.train)
    np.testing.assert_array_equal(reported.validation, whole.validation)


def test_a_training_that_diverges_is_a_result(text):
    source = {"data": str(text), "tokenizer": "char", "vocab_size": 0}
    wild = replace(TINY, settings=replace(TINY.settings, clip=1e30, warmup=0, steps=30))
    result = compute(wild, source, Job(RUN, {"norm": "none"}, "words", 0, 1e20))
    assert result["loss"] is None and "by_position" not in result
    json.dumps(result, allow_nan=False)


# Statistics


def test_quantiles_of_student():
    known = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 9: 2.262, 30: 2.042, 100: 1.984}
    for freedom, value in known.items():
        assert t_quantile(freedom) == pytest.approx(value, abs=5e-4)
    assert t_quantile(4, 0.99) == pytest.approx(4.604, abs=5e-4)


def test_p_values_of_student():
    # tables of the t distribution: two-sided 5 % and 1 % points
    for freedom, t, p in ((4, 2.776445, 0.05), (4, 4.604095, 0.01), (2, 4.302653, 0.05), (9, 3.249836, 0.01)):
        deviation = np.linspace(-1, 1, freedom + 1)
        values = deviation / np.std(deviation, ddof=1) * np.sqrt(freedom + 1) + t
        assert p_value(estimate(values.tolist())) == pytest.approx(p, rel=1e-5)
        assert p_value(estimate((-values).tolist())) == pytest.approx(p, rel=1e-5)
    assert p_value(estimate([-1.0, 1.0])) == 1 and p_value(estimate([0.0, 0.0])) == 1
    assert p_value(estimate([2.0, 2.0])) == 0 and isnan(p_value(estimate([1.0])))


def test_holms_adjustment():
    # 0.01 x 4, 0.02 x 3, 0.03 x 2 and 0.04, and none smaller than the one before
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.6, 0.5]) == [1, 1] and holm([]) == [] and holm([0.2]) == [0.2]
    assert holm([0.001, 0.9, 0.001]) == pytest.approx([0.003, 0.9, 0.003])


@pytest.mark.parametrize("correlation", [0, 0.9])
def test_holm_keeps_the_rate_of_any_false_difference(correlation):
    """2,000 times 20 comparisons without a difference: one in twenty of the families says one, not most of them"""
    rng, families = np.random.default_rng(0), 2000
    shared = rng.standard_normal((families, 1, 5))
    noise = np.sqrt(correlation) * shared + np.sqrt(1 - correlation) * rng.standard_normal((families, 20, 5))
    p = np.array([[p_value(estimate(values.tolist())) for values in family] for family in noise[:300]])
    unadjusted = np.mean(p.min(axis=1) < 0.05)
    adjusted = np.mean([min(holm(row.tolist())) < 0.05 for row in p])
    assert adjusted <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 300) < unadjusted


def test_intervals_and_verdicts():
    found = estimate([1.0, 2.0, 3.0, 4.0, 5.0])  # deviation sqrt(2.5)
    assert found.mean == 3 and found.high - 3 == pytest.approx(2.7764 * (2.5 / 5) ** 0.5, rel=1e-4)
    assert found.low + found.high == pytest.approx(6) and found.count == 5
    assert verdict(found) == "worse" and verdict(estimate([-1.0, -1.1, -1.2])) == "better"
    assert verdict(estimate([-1.0, 1.1, 0.2])) == "no difference shown at this size"
    assert verdict(estimate([-1.0, 0.5, 0.2])) == "no difference shown at this size"
    assert verdict(estimate([0.0, 0.0])) == "no difference shown at this size"
    assert isnan(estimate([1.0]).low) and verdict(estimate([1.0])) == "one seed shows no interval"


def test_differences_are_paired_by_seed():
    assert paired({0: 1.0, 2: 3.0, 1: 2.0}, {1: 1.5, 0: 1.0, 7: 9.0}) == [0.0, 0.5]
    # A seed moves both sides by far more than the variant does: paired, the difference is clear.
    llama = [made_up(seed=s, loss=1.0 + s) for s in range(4)]
    tied = [made_up({"tied": True}, seed=s, loss=1.1 + s + 0.001 * s) for s in range(4)]
    found = {o.row.label: o for o in outcomes(by_key(llama + tied), "leave-one-out", "a")}
    assert found["tied"].verdict == "worse" and found["tied"].difference.mean == pytest.approx(0.1015)
    assert found["LLaMA"].difference is None


def test_a_seed_that_diverged_is_left_out_on_both_sides_and_counted():
    def row_of(label, llama, tied):
        sides = [made_up(seed=s, loss=x) for s, x in enumerate(llama)]
        sides += [made_up({"tied": True}, seed=s, loss=x) for s, x in enumerate(tied)]
        outcome = next(o for o in outcomes(by_key(sides), "leave-one-out", "a") if o.row.label == label)
        lines = report(by_key(sides)).split("\n")
        return outcome, [cell.strip() for line in lines if line.startswith(f"| {label} ") for cell in line.split("|")]

    outcome, cells = row_of("tied", [1.0, 2.0, 3.0, 9.0], [None, 2.1, 3.101, 9.102])
    assert outcome.difference.count == 3 and outcome.losses == [2.1, 3.101, 9.102]
    assert cells[9:12] == ["3", "4.7677", "+0.1010"] and cells[14] == "worse; diverged with 1 of 4 seeds"
    outcome, cells = row_of("tied", [1.0, 2.0, None, None], [1.1, 2.1, 3.1, 9.0])
    assert outcome.difference.count == 2 and outcome.losses == [1.1, 2.1]
    assert cells[9:12] == ["2", "1.6000", "+0.1000"] and cells[14] == "worse; the other diverged with 2 of 4 seeds"
    outcome, cells = row_of("LLaMA", [1.0, 2.0, None, None], [1.1, 2.1, 3.1, 9.0])
    assert outcome.difference is None and cells[9:11] == ["2", "1.5000"] and cells[14] == "diverged with 2 of 4 seeds"
    outcome, _ = row_of("LLaMA", [1.0, 2.0], [None, 2.1])
    assert outcome.losses == [1.0, 2.0] and outcome.diverged == ""
    everywhere = by_key([made_up(), made_up({"tied": True}, loss=None)])
    outcome = outcomes(everywhere, "leave-one-out", "a")[-1]
    assert (outcome.losses, outcome.difference, outcome.verdict) == ([], None, "")
    assert outcome.diverged == "diverged with 1 of 1 seeds"


# Results


def test_results_survive_a_line_that_was_cut_off(tmp_path):
    first, second = made_up(seed=0), made_up(seed=1)
    results = Results(tmp_path, "results.jsonl", TINY.to_dict())
    results.add(first)
    with open(results.path, "a") as file:
        file.write(json.dumps(second)[:50])
    assert list(read([tmp_path]).values()) == [first]
    results = Results(tmp_path, "results.jsonl", TINY.to_dict())
    assert list(results.by_key.values()) == [first]
    with results.adding():
        results.add(second)
    assert list(read([tmp_path]).values()) == [first, second]
    assert results.path.read_text() == json.dumps(first) + "\n" + json.dumps(second) + "\n"


def test_what_is_no_result_is_refused_and_left_as_it_is(tmp_path):
    for content in (
        b"one line",
        b"{",
        b'{"kind": "Pod"}',
        b'{"note": 1}\n',
        b"\xff\xfe\n",
        json.dumps(made_up()).encode() + b"\nmy remark",
    ):
        (tmp_path / "results.jsonl").write_bytes(content)
        with pytest.raises(ValueError, match="results.jsonl"):
            Results(tmp_path, "results.jsonl", TINY.to_dict())
        assert (tmp_path / "results.jsonl").read_bytes() == content


def test_two_processes_do_not_add_to_one_file(tmp_path):
    one, other = (Results(tmp_path, "results.jsonl", TINY.to_dict()) for _ in range(2))
    with one.adding():
        with pytest.raises(InUse, match="another process is adding results"), other.adding():
            pass
        one.add(made_up())
    with pytest.raises(InUse, match="has added results .*give the same command again"), other.adding():
        pass


def test_files_merge_and_the_first_of_two_results_counts(tmp_path):
    for name, losses in (("a.jsonl", (1.0, 2.0)), ("b.jsonl", (9.0,))):
        (tmp_path / name).write_text("".join(json.dumps(made_up(seed=s, loss=x)) + "\n" for s, x in enumerate(losses)))
    assert [r["loss"] for r in read([tmp_path]).values()] == [1.0, 2.0]
    assert [r["loss"] for r in read([tmp_path / "b.jsonl", tmp_path / "a.jsonl"]).values()] == [9.0, 2.0]
    with pytest.raises(FileNotFoundError, match="no file or folder"):
        read([tmp_path / "missing"])


@pytest.mark.parametrize(
    "other, words",
    [
        (made_up(protocol=replace(TINY, dim=16)), "line 2 of .* was made with dim 16, not 8"),
        (made_up(protocol=replace(TINY, equal="compute")), "equal compute, not parameters"),
        (made_up(protocol=replace(TINY, settings=replace(TINY.settings, steps=5))), "steps 5, not 4"),
        (made_up(data="1"), "another text called a"),
        ({"kind": RUN}, "line 2 of .* is not a result .*remove that line"),
    ],
)
def test_results_that_cannot_be_compared_are_refused_with_a_reason(tmp_path, other, words):
    (tmp_path / "a.jsonl").write_text(json.dumps(made_up()) + "\n" + json.dumps(other) + "\n")
    with pytest.raises(ValueError, match=words):
        read([tmp_path])


def test_settings_that_older_results_lack_have_their_defaults(tmp_path):
    new = ("optimizer", "schedule", "momentum", "decay_share")
    older = made_up(seed=1)
    older["protocol"] = {
        **older["protocol"],
        "settings": {name: value for name, value in older["protocol"]["settings"].items() if name not in new},
    }
    assert set(made_up()["protocol"]["settings"]) - set(older["protocol"]["settings"]) == set(new)
    for lines in ([older, made_up()], [made_up(), older]):
        (tmp_path / "a.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        assert len(read([tmp_path])) == 2
    other = made_up(protocol=replace(TINY, settings=replace(TINY.settings, schedule="wsd")))
    (tmp_path / "a.jsonl").write_text(json.dumps(older) + "\n" + json.dumps(other) + "\n")
    with pytest.raises(ValueError, match="line 2 of .* was made with schedule wsd, not cosine"):
        read([tmp_path])


def test_the_folder_of_another_protocol_is_refused(tmp_path):
    Results(tmp_path, "results.jsonl", TINY.to_dict()).add(made_up())
    with pytest.raises(ValueError, match="was made with layers 1, not 2"):
        Results(tmp_path, "results.jsonl", replace(TINY, layers=2).to_dict())
    with pytest.raises(ValueError, match="has results on a that were made with another text"):
        Results(tmp_path, "results.jsonl", TINY.to_dict()).check_data("a", "1")


# From end to end


def test_an_ablation_from_end_to_end_and_a_second_time(text, tmp_path, two_variants, monkeypatch):
    done = []
    monkeypatch.setattr(scheduler, "compute", lambda *job: done.append(job) or compute(*job))
    sources = scheduler.sources([text])
    assert sources == {"words": {"data": str(text), "tokenizer": "char", "vocab_size": 512}}
    results = scheduler.run(TINY, ["leave-one-out"], sources, 2, tmp_path, quiet=True).by_key
    runs = [key for key in results if key[0] == RUN]
    assert runs == [(RUN, variant, "words", seed, None) for variant in ("LLaMA", "tied=True") for seed in (0, 1)]
    assert len(done) == len(results) >= 4 + 2 * 3
    assert results == read([tmp_path])
    for key in runs:
        result = results[key]
        assert [step for step, _ in result["curve"]] == [1, 2, 3, 4] and 0 < result["loss"] < 4
        rates = {r["lr"]: r["loss"] for r in results.values() if r["kind"] == TUNING and r["variant"] == key[1]}
        assert result["lr"] == min(rates, key=lambda rate: (rates[rate], rate))

    count = len(done)
    (tmp_path / "results.jsonl").write_text("".join(json.dumps(r) + "\n" for r in list(results.values())[:-2]))
    again = scheduler.run(TINY, ["leave-one-out"], sources, 2, tmp_path, quiet=True).by_key
    assert len(done) == count + 2 and again.keys() == results.keys()
    assert [r["loss"] for r in again.values()] == [r["loss"] for r in results.values()]
    scheduler.run(TINY, ["leave-one-out"], sources, 3, tmp_path, quiet=True)
    assert len(done) == count + 4  # a third seed of each


def test_parts_share_the_jobs(text, tmp_path, two_variants):
    sources = scheduler.sources([text, "stories"]) | {"again": scheduler.sources([text])["words"]}
    del sources["stories"]
    whole = scheduler.run(TINY, ["leave-one-out"], sources, 1, tmp_path / "whole", quiet=True).by_key
    parts = []
    for i in (1, 2, 3):
        folder = tmp_path / str(i)  # on a cluster they may share one
        parts.append(scheduler.run(TINY, ["leave-one-out"], sources, 1, folder, part=(i, 3), quiet=True).by_key)
        assert visible(folder) == {f"results-{i}-of-3.jsonl"}
    assert sum(map(len, parts)) == len(whole)
    merged = read([tmp_path / "1", tmp_path / "2", tmp_path / "3"])
    assert {key: r["loss"] for key, r in merged.items()} == {key: r["loss"] for key, r in whole.items()}
    with pytest.raises(ValueError, match="a part is i/n, i from 1 to n; received 4/3"):
        scheduler.run(TINY, ["leave-one-out"], sources, 1, tmp_path, part=(4, 3))


def test_processes_bring_the_same_results(text, tmp_path, two_variants):
    sources = scheduler.sources([text])
    one, two = (
        scheduler.run(TINY, ["leave-one-out"], sources, 2, tmp_path / str(n), n, quiet=True).by_key for n in (1, 2)
    )
    assert {key: r["loss"] for key, r in one.items()} == {key: r["loss"] for key, r in two.items()}


def test_the_close_ups_are_timed_in_turn_once(text, tmp_path, monkeypatch):
    rows = [row for row in STUDIES["leave-one-out"].rows(BASE) if row.changes in ({}, {"norm": "layernorm"})]
    monkeypatch.setitem(STUDIES, "leave-one-out", STUDIES["leave-one-out"]._replace(rows=lambda base: rows))
    monkeypatch.setattr(jobs, "TIMED_ROUNDS", 2)
    counts, summary = [], jobs._summary
    monkeypatch.setattr(jobs, "_summary", lambda seconds: counts.append(len(seconds)) or summary(seconds))
    for _ in range(2):
        results = scheduler.run(TINY, ["leave-one-out"], scheduler.sources([text]), 1, tmp_path, quiet=True).by_key
        times = [result for key, result in results.items() if key[0] == TIME]
        assert [result["variant"] for result in times] == ["LLaMA", "norm=layernorm"]
        assert all(0 < result["step_seconds"]["min"] <= result["step_seconds"]["median"] for result in times)
    assert (tmp_path / "results.jsonl").read_text().count('"kind": "time"') == 2
    assert counts[-2:] == [2 * jobs.TIMED_STEPS] * 2  # without the first round, which compiles
    assert "## Time of a step" in report(results)
    assert "ablation-norm.png" in {path.name for path in draw(results, tmp_path)}


def test_another_text_of_the_same_name_is_refused_before_anything_is_trained(text, tmp_path, two_variants, monkeypatch):
    scheduler.run(TINY, ["leave-one-out"], scheduler.sources([text]), 1, tmp_path / "results", quiet=True)
    (tmp_path / text.name).write_text("red and green " * 100)
    monkeypatch.setattr(scheduler, "compute", None)
    with pytest.raises(ValueError, match="has results on words that were made with another text"):
        sources = scheduler.sources([tmp_path / text.name])
        scheduler.run(TINY, ["leave-one-out"], sources, 2, tmp_path / "results", quiet=True)


def test_corpora_of_the_same_name_are_refused(text):
    with pytest.raises(ValueError, match="two corpora are called 'words'"):
        scheduler.sources([text, "words"])


# Reports


@pytest.fixture
def made_up_results():
    rng = random.Random(0)
    found = []
    for corpus in ("a", "b"):
        for i, changes in enumerate(variants(STUDIES, TINY.base(30))):
            for seed in range(3):
                loss = 1.5 + 0.01 * i + rng.gauss(0, 0.01)
                scalings = SWITCHES["rope_scaling"] if not changes else ["none"]
                bins = 4 if changes == {"position": "learned"} else 16
                positions = {name: [loss + 0.01 * b for b in range(bins)] for name in scalings}
                more = {"by_position": positions} if changes.keys() <= {"position"} else {}
                found.append(made_up(changes, corpus, seed, loss, floor=1.2 if corpus == "a" else None, **more))
    return by_key(found)


def test_a_report_has_every_row_and_says_what_was_found(made_up_results):
    text = report(made_up_results)
    for study in ("ladder", "leave-one-out"):
        for row in STUDIES[study].rows(TINY.base(30)):
            assert f"| {row.label} " in text and f"| {row.words} " in text
    for title in ("## From GPT to LLaMA, one switch at a time: a", "## Reading beyond the trained context: b"):
        assert title in text
    assert " worse |" in text and "there are no vectors beyond 8" in text
    assert "| position: rope, scaling yarn, stretched by 4 " in text and "| position: alibi " in text
    assert "| position: rope, scaling dynamic, stretched by the length read " in text
    rows = [line for line in text.split("\n") if line.startswith("| tied ")]
    assert len(rows) == 2 and rows[0].count("|") == 15
    assert "at equal parameters" in text
    # On each corpus: all rows of both studies but their first, and the scalings and schemes that read on.
    tables = [STUDIES[study].rows(TINY.base(30)) for study in ("ladder", "leave-one-out")]
    rows = sum(row.against is not None for table in tables for row in table)
    beyond = len(SWITCHES["rope_scaling"]) + len(SWITCHES["position"]) - 1 - 1
    assert f"Of {2 * (rows + beyond)} comparisons without any" in text
    # Adjusted for all of them: what is far below 0 noise stays, and the legend counts what does.
    found, adjusted = compared(made_up_results), adjusted_for_all(made_up_results)
    assert len(found) == 2 * (rows + beyond) and adjusted.keys() == set(found)
    assert all(p_value(e) <= adjusted[e] <= 1 for e in found)
    shown = [e for e in found if e.low > 0 or e.high < 0]
    kept = sum(adjusted[e] < 0.05 for e in shown)
    assert f"Of {len(shown)} comparisons called better or worse, {kept} are below 0.05" in text and 0 < kept
    one_seed = {key: result for key, result in made_up_results.items() if key[3] == 0}
    assert "Of 0 comparisons without any" in report(one_seed)


@pytest.mark.parametrize("asked", [["ladder"], ["leave-one-out"], ["extrapolation"], ["ladder", "extrapolation"]])
def test_a_study_is_reported_and_drawn_alone_though_the_results_have_others(asked, made_up_results, tmp_path):
    results = dict(made_up_results)
    for _, sides in CLOSE_UPS.values():
        for changes in sides.values():
            timed = made_up(changes, "a", 0, None, kind=TIME)
            results |= by_key([timed])
    whole, text = report(results), report(results, asked)
    for name, study in STUDIES.items():
        assert f"## {study.title}: a" in whole and (f"## {study.title}: a" in text) == (name in asked)
    close = {"ladder": [], "leave-one-out": ["norm", "position"], "extrapolation": ["position"]}
    drawn = {f"ablation-{name}.png" for study in asked for name in [study, *close[study]]}
    assert {path.name for path in draw(results, tmp_path, asked)} == drawn
    times = text.partition("## Time of a step")[2]
    assert ("norm=layernorm" in times) == ("leave-one-out" in asked) and (times == "") == (asked == ["ladder"])
    assert report(results, list(STUDIES)) == whole
    names = {"LLaMA", "norm=layernorm"}
    kept = {key for key in results if key[1] in names and key[2] == "a" and key[3] < 2}
    assert of(results, {"a": {}}, 2, names).keys() == kept and kept


def test_the_published_report_is_that_of_the_published_results():
    folder = Path(__file__).parents[1] / "figures" / "ablation"
    results = read([folder])
    assert (folder / "report.md").read_text(encoding="utf-8") == report(results)
    adjusted = adjusted_for_all(results)
    assert len(adjusted) == len(compared(results)) == 68
    shown = [e for e in adjusted if e.low > 0 or e.high < 0]
    assert (len(shown), sum(adjusted[e] < 0.05 for e in shown)) == (40, 19)


def test_a_learning_rate_at_an_end_of_those_that_were_tried_is_marked():
    def found(tried, rate):
        tuning = [made_up(kind=TUNING, seed=TUNING_SEED, lr=lr) for lr in tried]
        text = report(by_key([*tuning, made_up(lr=rate), made_up({"tied": True}, lr=rate, loss=1.1)]))
        return [line.split("|")[8].strip() for line in text.split("\n") if line[:7] in ("| LLaMA", "| tied ")], text

    for rate in (0.005, 0.04):
        cells, text = found((0.01, 0.04, 0.005, 0.02), rate)
        assert cells == [f"{rate} *", f"{rate}"] and "learning rate: * means that the best" in text
    cells, text = found((0.01, 0.04, 0.005, 0.02), 0.02)
    assert cells == ["0.02", "0.02"] and "learning rate: *" not in text


def test_figures_are_written(made_up_results, tmp_path):
    names = {path.name for path in draw(made_up_results, tmp_path)}
    assert names == {
        "ablation-ladder.png", "ablation-leave-one-out.png", "ablation-norm.png", "ablation-position.png",
        "ablation-extrapolation.png",
    }  # fmt: skip
    for name in names:
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")


def labels(axes):
    return [text.get_text() for text in axes.get_legend().get_texts()]


def test_every_scheme_and_scaling_has_a_curve_of_its_own(made_up_results, monkeypatch):
    for i in range(3):  # more than there are colours
        monkeypatch.setitem(SWITCHES["rope_scaling"], f"new{i}", SWITCHES["rope_scaling"]["linear"])
    for result in made_up_results.values():
        if "by_position" in result and result["variant"] == "LLaMA":
            result["by_position"] |= {f"new{i}": [1.0] * 16 for i in range(3)}
    panels = by_position(made_up_results).axes
    assert len(panels) == 4
    for schemes, scalings in (panels[:2], panels[2:]):
        assert labels(schemes) == [name + " (ends at 8)" * (name == "learned") for name in SWITCHES["position"]]
        words = {"none": "not stretched", "dynamic": "stretched by the length read"}
        expected = [f"{name}, {words.get(name, 'stretched by 4')}" for name in SWITCHES["rope_scaling"]]
        assert len(expected) == 9 and labels(scalings) == expected
        for axes, curves in ((schemes, 5), (scalings, 9)):
            drawn = [line for line in axes.lines if line.get_marker() != "None"]
            assert len(drawn) == len(axes.collections) == curves
            assert len({(line.get_color(), line.get_linestyle()) for line in drawn}) == curves
        drawn = scalings.lines[1]
        np.testing.assert_allclose(drawn.get_xdata(), 2 * np.arange(16) + 1)
        assert len(schemes.lines[1].get_xdata()) == 4
    assert len(set(islice(curve_styles(), 24))) == 24


def test_a_forest_has_every_row_of_the_table_and_says_what_diverged(made_up_results):
    for key, result in made_up_results.items():
        if key[1:3] == ("norm=none", "b") or key[1:4] == ("tied=True", "b", 0):
            result["loss"] = None
    figure = forest(made_up_results, "leave-one-out")
    expected = [row.label for row in STUDIES["leave-one-out"].rows(TINY.base(30))[1:]]
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == expected
    assert "each row against LLaMA" in figure.get_suptitle()
    for axes, missing, texts in (
        (figure.axes[0], [], []),
        (figure.axes[1], ["norm: none"], ["diverged with 3 of 3 seeds", "diverged with 1 of 3 seeds"]),
    ):
        points = [line.get_ydata()[0] for line in axes.lines if line.get_marker() != "None"]
        assert points == [i for i, label in enumerate(expected) if label not in missing]
        assert [text.get_text() for text in axes.texts] == texts
    ladder = forest(made_up_results, "ladder")
    assert "each row against the one above, the last against the first" in ladder.get_suptitle()


def test_a_close_up_says_which_tokens_its_curves_are_about(made_up_results):
    timed = [made_up(changes, "a", lr=None, kind=TIME) for changes in ({}, {"norm": "layernorm"})]
    curves, differences, times, *others = close_up(made_up_results | by_key(timed), "norm").axes
    assert labels(curves) == ["RMSNorm, 3 seeds", "LayerNorm, 3 seeds"] and len(curves.lines) == 2
    assert "first 4,096 tokens" in curves.get_ylabel()
    np.testing.assert_array_equal(curves.lines[0].get_xdata(), [0.5, 1.0])
    assert [bar.get_height() for bar in times.patches] == [20, 20] and len(others[2].patches) == 0
    sides = (
        {key[3]: result["loss"] for key, result in made_up_results.items() if key[1:3] == (variant, "a")}
        for variant in ("norm=layernorm", "LLaMA")
    )
    assert differences.get_title() == "LayerNorm less RMSNorm"
    assert differences.lines[0].get_ydata()[-1] == pytest.approx(np.mean(paired(*sides)))


def test_a_report_of_few_results_has_what_they_suffice_for(tmp_path):
    few = by_key([made_up(), made_up({"tied": True}, loss=None), made_up({"qk_norm": True}, loss=1.1)])
    text = report(few)
    assert "one seed shows no interval" in text and "diverged with 1 of 1 seeds" in text and "GPT" not in text
    assert [path.name for path in draw(few, tmp_path)] == ["ablation-leave-one-out.png"]
    assert draw(by_key([made_up()]), tmp_path) == []


# Beyond the context


TOKENS = np.random.default_rng(0).integers(0, 11, 200).astype(np.int32)
STARTS = 4 * np.arange((200 - 1 - 64) // 4 + 1)  # windows a quarter of the context apart


def expected_losses(model, config, ends):
    """The mean loss in bins of 4 positions that end at `ends`, each of the window up to there, by a model of config."""
    built = Model(config, threads=1)
    built.parameters.flat[:] = model.parameters.flat
    losses = []
    for end in ends:
        windows = TOKENS[STARTS[:, None] + np.arange(end + 1)]
        logits = built.logits(np.ascontiguousarray(windows[:, :-1])).astype(np.float64)
        targets = np.take_along_axis(logits, windows[:, 1:, None], -1)[..., 0]
        losses.append((np.log(np.exp(logits).sum(-1)) - targets)[:, -4:].mean())
    return losses


@pytest.mark.parametrize("position", SWITCHES["position"])
def test_loss_by_position_is_that_of_a_model_that_was_built_for_it(position):
    shape = {"dim": 16, "layers": 2, "heads": 2, "position": position}
    model = Model(Config(11, context=16, **shape), threads=1, init_std=0.5)
    losses = losses_by_position(model, TOKENS)
    rotated = SWITCHES["position"][position].rotation is not None
    assert losses.keys() == (SWITCHES["rope_scaling"].keys() if rotated else {"none"})
    context = 16 if position == "learned" else 64
    for scaling, values in losses.items():
        by_length = SWITCHES["rope_scaling"][scaling].by_length
        stretch = {"rope_scaling": scaling, "rope_factor": 1.0 if by_length else 4.0, "rope_original_context": 16}
        config = Config(11, context=context, **shape, **(stretch if scaling != "none" else {}))
        np.testing.assert_allclose(values, expected_losses(model, config, range(4, context + 1, 4)), rtol=1e-5)
        assert scaling == "none" or not np.allclose(values[4:], losses["none"][4:], rtol=1e-3)


def test_within_the_context_a_scaling_by_length_changes_nothing():
    model = Model(Config(11, dim=16, layers=2, heads=2, context=16), threads=1, init_std=0.5)
    losses = losses_by_position(model, TOKENS)
    for scaling, row in SWITCHES["rope_scaling"].items():
        alike = np.allclose(losses[scaling][:4], losses["none"][:4], rtol=1e-5)
        assert alike == (row.by_length or scaling == "none"), scaling


def test_a_text_that_is_too_short_has_no_loss_by_position():
    assert losses_by_position(Model(Config(11, dim=8, heads=2, context=8), threads=1), np.zeros(32, np.int32)) == {}


# The command


@pytest.fixture
def cli(capsys):
    def run(*arguments):
        code = __main__.main(["ablate", *map(str, arguments)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def visible(folder):
    return {path.name for path in folder.iterdir() if not path.name.startswith(".")}


def test_the_command_runs_reports_and_draws(cli, text, tmp_path, two_variants):
    options = "--dim 8 --layers 1 --heads 2 --context 8 --steps 3 --batch-size 2 --warmup 1 --seeds 2 --jobs 1".split()
    out = tmp_path / "results"
    code, printed, err = cli("leave-one-out", "--corpora", text, "--out", out, *options)
    assert code == 0 and "| tied " in printed, err
    assert visible(out) == {"results.jsonl", "report.md", "ablation-leave-one-out.png"}
    assert (out / "report.md").read_text() in printed
    figures = {f"ablation-{name}.png" for name in ("ladder", "leave-one-out", "extrapolation")}  # all that can be drawn
    code, again, _ = cli("report", out, "--figures", tmp_path / "figures")
    assert code == 0 and visible(tmp_path / "figures") == {"report.md", *figures}
    assert (tmp_path / "figures" / "report.md").read_text() in again and again != printed
    code, _, err = cli("leave-one-out", "--corpora", text, "--out", out, *options)
    assert code == 1 and "report.md" in err and "--overwrite" in err
    assert cli("leave-one-out", "--corpora", text, "--out", out, *options, "--overwrite")[1] == printed
    code, _, err = cli("leave-one-out", "--corpora", text, "--out", out, *options, "--lr", 0.5, "--overwrite")
    assert code == 1 and "was made with lr 0.008, not 0.5" in err
    code, printed, _ = cli("leave-one-out", "--corpora", text, "--out", tmp_path / "s", *options, "--part", "1/9")
    assert code == 0 and "report" in printed


def test_some_fields_only_are_trained_and_reported_and_are_no_other_protocol(cli, text, tmp_path, monkeypatch):
    options = "--dim 8 --layers 1 --heads 2 --context 8 --steps 3 --batch-size 2 --warmup 1 --seeds 2 --jobs 1".split()
    asked = ["leave-one-out", "--corpora", text, "--out", tmp_path, *options, "--overwrite"]
    assert cli(*asked, "--only", "tied", "bias")[0] == 0
    file = tmp_path / "results.jsonl"
    results = read([file])
    assert {result["variant"] for result in results.values()} == {"LLaMA", "tied=True", f"bias={'+'.join(BIASES)}"}
    before = file.read_bytes()
    monkeypatch.setattr(scheduler, "compute", None)  # nothing is left to be done
    code, printed, _ = cli(*asked, "--only", "bias")
    assert code == 0 and file.read_bytes() == before
    assert "| biases " in printed and "| tied " not in printed and "Of 1 comparisons without" in printed
    # On the terms of the whole study, which goes on from here.
    protocol = Protocol(8, 1, 2, 8, replace(Protocol.settings, steps=3, batch_size=2, warmup=1))
    assert all(result["protocol"] == protocol.to_dict() for result in results.values())


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["stairs"], "there is no study 'stairs'; choose among ladder, leave-one-out, extrapolation"),
        (["report", "nowhere"], "no file or folder nowhere"),
        (["ladder", "--seeds", "0"], "seeds must be at least 1; received 0"),
        (["ladder", "--heads", "3"], "heads must divide dim"),
        (["ladder", "--steps", "8", "--warmup", "8"], "warmup must be less than steps"),
        (["ladder", "--jobs", "0"], "--jobs must be"),
        (["leave-one-out", "--only", "norms"], "did you mean norm? There are norm, placement, position"),
    ],
)
def test_mistakes_are_explained(cli, text, tmp_path, arguments, words):
    more = [] if "report" in arguments else ["--corpora", text, "--out", tmp_path / "r"]
    code, _, err = cli(*arguments, *more)
    assert code == 1 and words in err and "Traceback" not in err, err
