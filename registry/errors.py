"""The one exception that means: the user can mend this."""


class UserError(Exception):
    """A mistake in what the user typed or supplied (a gin file, a path, an image, a plugin).

    Command lines print its message as one line on stderr and exit with code 2; the message says what is
    wrong and what to do about it. Unexpected faults must NOT be turned into this: they keep their traceback.
    """
