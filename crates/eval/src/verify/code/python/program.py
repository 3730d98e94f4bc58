# The end with the program that is judged. It sees the program and, call by call, what its functions are called with;
# tests and expected values never enter this process. Nothing here is safe from the program, and nothing has to be: all it
# can do is to answer with other data.
REQUESTS, REPLIES = 3, 4


def failure(error):
    """Name, message and line of an exception; the line is the last one of the program on the way to it."""
    line, trace = None, error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == "<program>":
            line = trace.tb_lineno
        trace = trace.tb_next
    try:
        message = str(error)[:300]
        if isinstance(error, SyntaxError) and error.filename == "<program>":
            line, message = error.lineno, error.msg
    except BaseException:
        message = ""
    return ["error", type(error).__name__, message, line]


def main():
    source = decode(whole(0), plain_only)
    module = type(sys)("program")
    sys.modules["program"] = module
    objects = []

    def keep(value):
        objects.append(value)
        return len(objects) - 1

    def do(what, *rest):
        if what == "global":
            return getattr(module, rest[0])
        if what == "call":
            target, arguments, named = rest
            return target(*arguments, **named)
        if what == "get":
            return getattr(*rest)
        if what == "set":
            return setattr(*rest)
        return list(rest[0])

    def answer(act):
        try:
            reply = encode(["ok", act()], keep)
            if sum(map(len, reply)) > MESSAGE_BYTES:
                raise NotPlain("takes more than %d bytes" % MESSAGE_BYTES)
        except BaseException as error:
            reply = encode(failure(error), plain_only)
        send(REPLIES, reply)

    def load():
        seed_random(source)
        exec(compile(source, "<program>", "exec", dont_inherit=True), module.__dict__)

    answer(load)
    while True:
        request = decode(receive(REQUESTS), objects.__getitem__)
        answer(lambda: do(*request))


try:
    main()
except Gone:
    pass
