"""What can go wrong with a push."""


class PushError(Exception):
    """A push that cannot begin, or cannot go on. Pushing again later doubles nothing."""
