"""Right and wrong answers to the exercises of lesson 08. Many wrong ones are a right one with a line changed."""

import inspect
from types import SimpleNamespace

import numpy as np

from minillama.lessons import reference_llama
from minillama.lessons.lesson_08 import BACKWARD_MISTAKES, FORWARD_MISTAKES
from minillama.lessons.own_functions import WORKING
from minillama.model import Model

RIGHT = {}  # exercise -> list of functions
WRONG = {}  # exercise -> list of (function, a part of the hint that it must get)
own = SimpleNamespace(**WORKING)


def changed(function, *changes, **others):
    """The function with old replaced by new in its source, for each pair in changes; others: names that it calls."""
    source = inspect.getsource(function)
    for old, new in changes:
        assert source.count(old) >= 1, f"{function.__name__} has no {old!r}"
        source = source.replace(old, new)
    names = {**globals(), **others}
    exec(source, names)
    return names[function.__name__]


def of_block(p, i):
    return {name.removeprefix(f"blocks.{i}."): p[name] for name in p if name.startswith(f"blocks.{i}.")}


# ---- llama_logits


def block(x, w, config):
    T, H, K, D, eps = len(x), config.heads, config.kv_heads, config.head_dim, config.norm_eps
    turn = np.arange(T), config.rope_theta, config.rope_layout
    h = own.rmsnorm_as_llama(x, w["attention_norm"], eps)
    q, k, v = ((h @ w[name].T).reshape(T, -1, D) for name in ("w_q", "w_k", "w_v"))
    q, k = own.rope_rotate(q, *turn), own.rope_rotate(k, *turn)
    o = [own.causal_weights(q[:, i], k[:, i * K // H]) @ v[:, i * K // H] for i in range(H)]
    x = x + np.concatenate(o, axis=1) @ w["w_o"].T
    h = own.rmsnorm_as_llama(x, w["ffn_norm"], eps)
    gate, up = h @ w["w_gate"].T, h @ w["w_up"].T
    return x + (gate / (1 + np.exp(-gate)) * up) @ w["w_down"].T


def text_by_text(p, ids, config):
    x = list(p["embedding"][ids])
    for i in range(config.layers):
        x = [block(one, of_block(p, i), config) for one in x]
    h = np.stack([own.rmsnorm_as_llama(one, p["final_norm"], config.norm_eps) for one in x])
    return h @ p["embedding" if config.tied else "output"].T


def token_by_token(p, ids, config):
    """With a cache of keys and values, as one decodes."""
    H, K, D = config.heads, config.kv_heads, config.head_dim
    logits = np.empty((*ids.shape, config.vocab_size))

    def norm(x, weight):
        return weight * x / np.sqrt(np.mean(x * x) + config.norm_eps)

    for b, text in enumerate(ids):
        cache = [([], []) for _ in range(config.layers)]
        for t, token in enumerate(text):
            x, turn = p["embedding"][token], (np.array([t]), config.rope_theta, config.rope_layout)
            for i, (keys, values) in enumerate(cache):
                w = of_block(p, i)
                h = norm(x, w["attention_norm"])
                q = own.rope_rotate((w["w_q"] @ h).reshape(1, H, D), *turn)[0]
                keys.append(own.rope_rotate((w["w_k"] @ h).reshape(1, K, D), *turn)[0])
                values.append((w["w_v"] @ h).reshape(K, D))
                k, v = (np.repeat(np.array(a), H // K, axis=1) for a in (keys, values))
                e = np.exp(np.einsum("hd,shd->sh", q, k) / np.sqrt(D))
                x = x + w["w_o"] @ np.einsum("sh,shd->hd", e / e.sum(axis=0), v).ravel()
                h = norm(x, w["ffn_norm"])
                gate = w["w_gate"] @ h
                x = x + w["w_down"] @ (gate / (1 + np.exp(-gate)) * (w["w_up"] @ h))
            logits[b, t] = p["embedding" if config.tied else "output"] @ norm(x, p["final_norm"])
    return logits


def _library(p, config):
    model = Model(config, dtype=np.float64, threads=1, init_std=None)
    for name, array in p.items():
        model.parameters[name][:] = array
    return model


def logits_of_library(p, ids, config):
    return _library(p, config).logits(ids)


def in_place(p, ids, config):
    p["final_norm"] *= 2
    return text_by_text(p, ids, config) / 2


def _block(*changes):
    return changed(text_by_text, block=changed(block, *changes))


RIGHT["llama_logits"] = [text_by_text, token_by_token, logits_of_library, reference_llama.logits]
WRONG["llama_logits"] = [
    (_block(("i * K // H", "i % K")), "h // (H / K)"),
    (_block(("x = x + np.c", "x = np.c")), "attention's result replaces"),
    (_block(("return x + ", "return ")), "feed-forward's result replaces"),
    (_block(("x = x + np.c", "x = h + np.c"), ("return x +", "return h +")), "to the normalised stream"),
    (_block(("h @ w[name].T", "h @ (w[name] if name == 'w_q' else w[name].T)")), "h @ w_q.T"),
    (_block(('w["ffn_norm"]', 'w["attention_norm"]')), "two norms"),
    (_block(("own.rmsnorm_as_llama(x, w[\"ffn_norm\"], eps)", "x"),
            ("own.rmsnorm_as_llama(x, w[\"attention_norm\"], eps)", "x")), "reads norm(x), not x"),
    (_block(("h @ w[\"w_gate\"].T, h @ w[\"w_up\"].T", "h @ w[\"w_up\"].T, h @ w[\"w_gate\"].T")), "exchanged"),
    (_block(("(gate / (1", "(1 / (1")), "silu(z) is z times"),
    (_block(("    q, k = own.rope_rotate(q, *turn), own.rope_rotate(k, *turn)\n", "")), "are not turned"),
    (_block(("    o = [", "    v = own.rope_rotate(v, *turn)\n    o = [")), "values are turned"),
    (_block(("config.rope_layout", "{'rotate_half': 'interleaved'}.get(config.rope_layout, 'rotate_half')")), "layout"),
    (_block(("config.rope_theta", "10000.0")), "config.rope_theta"),
    (_block(("own.causal_weights(q[:, i],", "own.causal_weights(q[:, i] * D**0.5,")), "not divided"),
    (_block(("own.causal_weights(q[:, i], k[:, i * K // H])", "own.softmax(q[:, i] @ k[:, i * K // H].T / D**0.5)")),
     "it stopped with AttributeError"),
    (_block(("axis=1)", "axis=0).reshape(T, -1)")), "merged in the wrong order"),
    (_block(("config.norm_eps", "0.0")), "first token, which reads only itself"),  # the final norm has its eps
    (changed(text_by_text, ("range(config.layers)", "range(config.layers - 1)")), "first token"),
    (changed(text_by_text, ("of_block(p, i)", "of_block(p, 0)")), "weights of its own"),
    (changed(text_by_text, ('"embedding" if config.tied else "output"', '"embedding"')), "where config.tied is False"),
    (changed(text_by_text, ('own.rmsnorm_as_llama(one, p["final_norm"], config.norm_eps)', "one")), "final norm"),
    (lambda p, ids, config: text_by_text(p, ids.reshape(1, -1), config).reshape(*ids.shape, -1), "one long text"),
    (lambda p, ids, config: text_by_text(p, ids[:1], config), "must have shape"),
    (in_place, "changed weights"),
    *((lambda p, ids, config, mistake=mistake: reference_llama.logits(p, ids, config, mistake), hint)
      for mistake, hint in FORWARD_MISTAKES.items()),
]  # fmt: skip


# ---- block_gradients


def backward_of_a_block(dy, x, w, config):
    T, H, K, eps, of = len(x), config.heads, config.kv_heads, config.norm_eps, {}
    turn, G = (config.rope_theta, config.rope_layout), H // K
    h1 = own.rmsnorm_as_llama(x, w["attention_norm"], eps)
    q, k, v = ((h1 @ w[name].T).reshape(T, -1, config.head_dim) for name in ("w_q", "w_k", "w_v"))
    q, k = own.rope_rotate(q, np.arange(T), *turn), own.rope_rotate(k, np.arange(T), *turn)
    o = np.concatenate([own.causal_weights(q[:, i], k[:, i // G]) @ v[:, i // G] for i in range(H)], axis=1)
    middle = x + o @ w["w_o"].T
    h2 = own.rmsnorm_as_llama(middle, w["ffn_norm"], eps)
    gate, up = h2 @ w["w_gate"].T, h2 @ w["w_up"].T

    def back(name, dy, x):
        of[name] = dy.T @ x
        return dy @ w[name]

    def back_to_stream(name, dh, x):
        dx, of[name] = own.partial_rmsnorm_backward(dh, x, w[name], eps, x.shape[1])
        return dx

    dhidden = back("w_down", dy, gate / (1 + np.exp(-gate)) * up)
    dgate, dup = own.swiglu_backward(dhidden, gate, up)
    dmiddle = dy + back_to_stream("ffn_norm", back("w_gate", dgate, h2) + back("w_up", dup, h2), middle)
    do = back("w_o", dmiddle, o).reshape(T, H, -1)
    heads = [own.causal_attention_backward(do[:, i], q[:, i], k[:, i // G], v[:, i // G]) for i in range(H)]
    dq, dk, dv = (np.stack(gradients, axis=1) for gradients in zip(*heads, strict=True))
    dk, dv = (own.shared_head_gradient(gradient[None], K)[0] for gradient in (dk, dv))
    dq, dk = own.rope_rotate(dq, -np.arange(T), *turn), own.rope_rotate(dk, -np.arange(T), *turn)
    parts = {"w_q": dq, "w_k": dk, "w_v": dv}
    dh1 = sum(back(name, gradient.reshape(T, -1), h1) for name, gradient in parts.items())
    return dmiddle + back_to_stream("attention_norm", dh1, x), of


def _back(*changes):
    return changed(backward_of_a_block, *changes)


_OF_A_BLOCK = (  # the mistakes that one block can make
    "straight path dropped", "straight path around attention dropped", "straight path around feed-forward dropped",
    "layers' path dropped", "path through attention dropped", "path through feed-forward dropped", "norms passed over",
    "turned forwards", "not turned back", "queries alone", "gate's path dropped", "group's mean", "group's first",
)  # fmt: skip
RIGHT["block_gradients"] = [backward_of_a_block, reference_llama.block_gradients]
WRONG["block_gradients"] = [
    (_back(("dmiddle = dy + back", "dmiddle = back")), "straight path around the feed-forward"),
    (_back(("return dmiddle + back", "return back")), "straight path around attention"),
    (_back(("-np.arange(T)", "np.arange(T)")), "turned forwards"),
    (_back(("-np.arange(T)", "0 * np.arange(T)")), "not turned back"),
    (_back(("gradient(gradient[None], K)[0]", "gradient(gradient[None], K)[0] / G")), "not their mean"),
    (_back(("own.shared_head_gradient(gradient[None], K)[0]", "gradient[:, ::G]")), "of the first"),
    (_back(("back(\"w_gate\", dgate, h2) + back", "0 * back(\"w_gate\", dgate, h2) + back")), "w_gate and w_up"),
    (_back(("own.swiglu_backward(dhidden, gate, up)", "own.swiglu_backward(dhidden, gate, up)[::-1]")), "w_up is"),
    (_back(("back(\"w_o\", dmiddle, o)", "back(\"w_o\", dy, o)")), "w_o is the first"),
    (_back(("of[name] = dy.T @ x", "of[name] = dy.T @ x / T")), "w_down is the first"),
    (_back(("        of[name] = dy.T @ x\n", "        of[name] = x.T @ dy\n")), "must have the shape of its weight"),
    (_back((", of\n", ", dict(list(of.items())[:-1])\n")), "missing: ['attention_norm']"),
    *((lambda *given, mistake=mistake: reference_llama.block_gradients(*given, mistake), BACKWARD_MISTAKES[mistake])
      for mistake in _OF_A_BLOCK),
]  # fmt: skip


# ---- llama_gradients


def whole_backward(p, ids, targets, config):
    of, loss, output = {name: np.zeros_like(p[name]) for name in p}, 0.0, "embedding" if config.tied else "output"
    for text, wanted in zip(ids, targets, strict=True):
        stream = [p["embedding"][text]]
        for i in range(config.layers):
            stream.append(block(stream[-1], of_block(p, i), config))
        h = own.rmsnorm_as_llama(stream[-1], p["final_norm"], config.norm_eps)
        of_text, dlogits = own.cross_entropy_gradients(h @ p[output].T, wanted)
        loss, dlogits = loss + of_text / len(ids), dlogits / len(ids)
        of[output] += dlogits.T @ h
        dx, dweight = own.partial_rmsnorm_backward(
            dlogits @ p[output], stream[-1], p["final_norm"], config.norm_eps, config.dim
        )
        of["final_norm"] += dweight
        for i in reversed(range(config.layers)):
            dx, gradients = backward_of_a_block(dx, stream[i], of_block(p, i), config)
            for name, gradient in gradients.items():
                of[f"blocks.{i}.{name}"] += gradient
        np.add.at(of["embedding"], text, dx)
    return loss, of


def whole_of_library(p, ids, targets, config):
    loss, gradients = _library(p, config).loss_and_gradients(ids, targets)
    return float(loss), dict(gradients)


def _whole(*changes, **others):
    return changed(whole_backward, *changes, **others)


RIGHT["llama_gradients"] = [whole_backward, whole_of_library, reference_llama.gradients]
WRONG["llama_gradients"] = [
    (_whole(("dlogits / len(ids)", "dlogits")), "divides by T alone"),
    (_whole(("dlogits / len(ids)", "dlogits / ids.size")), "on the way back"),  # 1 / T is there already
    (_whole(("of_text / len(ids)", "of_text")), "divide by B"),
    (_whole(("reversed(range(config.layers))", "range(config.layers)")), "in the order of the forward"),
    (_whole(("stream[i], of_block", "stream[i + 1], of_block")), "on the way back blocks."),
    (_whole(('"embedding" if config.tied else "output"', '"embedding"')), "the loss is wrong"),
    (_whole(("        of[output] += dlogits.T @ h\n", "        of[output] += 0 if config.tied else dlogits.T @ h\n")),
     "as output matrix"),
    (_whole(('        np.add.at(of["embedding"], text, dx)\n', "")), "looked up is missing"),
    (_whole(('np.add.at(of["embedding"], text, dx)', 'of["embedding"][text] += dx')), "on the way back embedding"),
    (_whole(('{name}"] += gradient', '{name}"] = gradient')), "on the way back blocks."),
    (_whole(('of["final_norm"] += dweight', 'of["final_norm"] = dweight')), "on the way back final_norm"),
    (_whole(backward_of_a_block=_back(("dmiddle = dy + back", "dmiddle = back"))), "straight path around"),
    (_whole(("return loss, of", "of.pop('final_norm')\n    return loss, of")), "missing: ['final_norm']"),
    (_whole(("return loss, of", "return loss, list(of.values())")), "must be of type dict"),
    (_whole(("return loss, of", "return of, loss")), "must be of type float"),
    *((lambda *given, mistake=mistake: reference_llama.gradients(*given, mistake), hint)
      for mistake, hint in BACKWARD_MISTAKES.items()),
]  # fmt: skip
