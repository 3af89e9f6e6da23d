"""What a model or a tool wrote, for people to see: untrusted text that can steer no terminal."""


def visible(untrusted: str) -> str:
    """The text with every unprintable character (control, escape, bidirectional override) written out as its code."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in untrusted)
