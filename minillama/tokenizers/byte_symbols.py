"""GPT-2's printable character for each byte, in which files show the tokens of byte-level tokenizers."""


def _byte_symbols() -> dict[str, int]:
    """GPT-2's character for each byte: its own if printable Latin-1, else the next one from U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(0x100 + i): byte for i, byte in enumerate(others)}


# character -> byte, in the order of the characters' code points; files show bytes in this way
BYTE_SYMBOLS = _byte_symbols()
_SYMBOL_OF_BYTE = {byte: symbol for symbol, byte in BYTE_SYMBOLS.items()}


def to_symbols(token: bytes) -> str:
    return "".join(map(_SYMBOL_OF_BYTE.__getitem__, token))


def to_bytes(symbols: str) -> bytes:
    try:
        return bytes(map(BYTE_SYMBOLS.__getitem__, symbols))
    except KeyError as error:
        character = error.args[0]
        raise ValueError(f"model.vocab has {symbols!r}, but {character!r} stands for no byte") from None
