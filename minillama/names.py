"""What to say of a name that is not among those that there are."""

from difflib import get_close_matches


def near(name, known):
    """Those of the known names that may have been meant by this one, whatever its case."""
    spelled, wanted = {each.lower(): each for each in known}, name.lower()
    if wanted in spelled:
        return [spelled[wanted]]
    begun = [each for lower, each in spelled.items() if wanted and lower.startswith(wanted)]
    return begun or [spelled[each] for each in get_close_matches(wanted, spelled, 1, cutoff=0.5)]


def unknown(kind, name, known):
    """The message of an error: there is no such thing of this kind, what was meant perhaps, and what there is."""
    meant = near(name, known)
    rest = f"did you mean {', '.join(meant)}? There are" if meant else "choose among"
    return f"there is no {kind} {name!r}; {rest} {', '.join(known)}"
