"""minillama chat: talk with a model that was taught to answer."""

from ..generation.chat import CHAT_COMMANDS, CONTEXT
from ..generation.chat_templates import TEMPLATES
from . import streams
from .options import MODEL
from .values import named
from .writing import IDLE as IDLE
from .writing import add_writing, load_writer, published_settings


def add_arguments(parser):
    parser.epilog = f"In the conversation: {'; '.join(map(' '.join, CHAT_COMMANDS.items()))}."
    parser.surplus = "A question is typed when chat has begun, or comes in on standard input"
    parser.add_positional("model", also=("run", "path", "checkpoint"), metavar="MODEL", help=MODEL)
    text = f"how a conversation is written down for the model (default: what its files tell): {', '.join(TEMPLATES)}"
    parser.add_argument("--template", type=named("chat format", TEMPLATES), metavar="NAME", help=text)
    parser.add_argument("--system", metavar="TEXT", help="system prompt (default: the one of the template, if any)")
    text = f"tokens of the conversation that are kept, at most (default: the model's context, at most {CONTEXT})"
    parser.add_argument("--context", type=int, metavar="N", help=text)
    add_writing(parser, "tokens of an answer, at most")


def run(options):
    from ..checkpoint.open import read_template
    from ..generation.chat import Conversation, converse
    from ..generation.chat_templates import recognise

    if options.context is not None and options.context < 1:
        raise ValueError(f"--context must be at least 1; received {options.context}")
    streams.standard_input()
    model, tokenizer = load_writer(options)
    template = options.template or recognise(options.model, tokenizer, read_template(options.model))
    settings, ends = published_settings(options, model)
    conversation = Conversation(
        model, tokenizer, template, options.system, options.max_tokens, **settings, seed=options.seed,
        context=options.context, stop=ends,
    )  # fmt: skip
    try:
        converse(conversation)
    except KeyboardInterrupt:
        print()
        return 130
