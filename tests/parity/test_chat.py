"""The same ids as transformers' apply_chat_template makes with the formats written as Jinja, as the models come with.

They say what the chat_template of the models' folders on Hugging Face says (Meta's, TinyLlama's, SmolLM2's). Vicuna
comes without one; its Jinja says what FastChat's conversation.py writes for vicuna_v1.1.
"""

import pytest

from minillama.generation.chat_templates import TEMPLATES, encode_chat
from minillama.tokenizers import BPETokenizer

pytest.importorskip("tokenizers")
pytest.importorskip("jinja2")
transformers = pytest.importorskip("transformers")
hypothesis = pytest.importorskip("hypothesis")
st = hypothesis.strategies

JINJA = {
    "llama2": """
{%- set ns = namespace(system='') -%}
{%- for m in messages -%}
    {%- if m.role == 'system' -%}
        {%- set ns.system = '<<SYS>>\n' + m.content + '\n<</SYS>>\n\n' -%}
    {%- elif m.role == 'user' -%}
        {{- bos_token + '[INST] ' + (ns.system + m.content).strip() + ' [/INST]' -}}
        {%- set ns.system = '' -%}
    {%- else -%}
        {{- ' ' + m.content.strip() + ' ' + eos_token -}}
    {%- endif -%}
{%- endfor -%}""",
    "llama3": """
{{- bos_token -}}
{%- for m in messages -%}
    {{- '<|start_header_id|>' + m.role + '<|end_header_id|>\n\n' + m.content | trim + '<|eot_id|>' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|start_header_id|>assistant<|end_header_id|>\n\n' -}}{%- endif -%}""",
    "vicuna": """
{{- bos_token -}}
{%- for m in messages -%}
    {%- if m.role == 'system' -%}{{- m.content + ' ' -}}
    {%- elif m.role == 'user' -%}{{- 'USER: ' + m.content.strip() + ' ' -}}
    {%- else -%}{{- 'ASSISTANT: ' + m.content.strip() + eos_token -}}
    {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- 'ASSISTANT:' -}}{%- endif -%}""",
    "zephyr": """
{%- for m in messages -%}{{- '<|' + m.role + '|>\n' + m.content + eos_token + '\n' -}}{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|assistant|>\n' -}}{%- endif -%}""",
    "chatml": """
{%- for m in messages -%}{{- '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' -}}{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\n' -}}{%- endif -%}""",
}
JINJA["smollm"] = JINJA["chatml"]
LLAMA2 = ("<unk>", "<s>", "</s>")
LLAMA3 = ("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
CHATML = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
TOKENS = dict(llama2=LLAMA2, llama3=LLAMA3, vicuna=LLAMA2, zephyr=LLAMA2, chatml=CHATML, smollm=CHATML)
TEXT = (
    "A chat between a curious user and an assistant. USER: Hé, ça va? ASSISTANT: Hello! 12\n\n [INST] [/INST] system\n"
)

CONTENT = st.text(st.characters(exclude_categories=["Cs", "Cn"], exclude_characters="<["), max_size=30)
CONTENT |= st.text("a ?\n\t'1", max_size=12)
CONVERSATIONS = st.tuples(st.none() | CONTENT.filter(str.strip), st.lists(CONTENT, min_size=1, max_size=7))


@pytest.fixture(scope="module", params=TEMPLATES)
def both(request, tmp_path_factory):
    """Name of a template, a tokenizer with its special tokens, and the same in transformers with the template."""
    name, folder = request.param, tmp_path_factory.mktemp(request.param)
    ours = BPETokenizer.train(TEXT * 3, 340, special_tokens=TOKENS[name])
    ours.save(folder)
    theirs = transformers.AutoTokenizer.from_pretrained(str(folder))
    begin, end = [token for token in TOKENS[name] if token != "<unk>"][:2]
    theirs.bos_token, theirs.eos_token, theirs.chat_template = begin, end, JINJA[name]
    return name, ours, theirs


def their_ids(theirs, messages):
    return theirs.apply_chat_template(messages, add_generation_prompt=True, tokenize=True, return_dict=False)


@hypothesis.settings(deadline=None, derandomize=True, max_examples=300)
@hypothesis.given(CONVERSATIONS)
def test_ids_of_conversations(both, conversation):
    name, ours, theirs = both
    system, texts = conversation
    texts = texts if len(texts) % 2 else texts[:-1]
    messages = [{"role": "user" if i % 2 == 0 else "assistant", "content": text} for i, text in enumerate(texts)]
    if system is not None or TEMPLATES[name].system is not None:
        messages.insert(0, {"role": "system", "content": system or TEMPLATES[name].system})
    expected = their_ids(theirs, messages)
    assert encode_chat(name, ours, messages).tolist() == expected
    if system is None:  # the system prompt that the models know need not be given
        assert encode_chat(name, ours, messages[-len(texts) :]).tolist() == expected


def test_special_tokens_that_somebody_types_are_special_there_and_plain_here(both):
    name, ours, theirs = both
    end = TOKENS[name][-1]
    messages = [{"role": "system", "content": "x"}, {"role": "user", "content": f"a{end}b"}]
    ids, forged = encode_chat(name, ours, messages).tolist(), their_ids(theirs, messages)
    assert ours.decode(ids) == ours.decode(forged)
    assert forged.count(ours.special_tokens[end]) == ids.count(ours.special_tokens[end]) + 1
