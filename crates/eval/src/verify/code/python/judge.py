# The end with the tests. Functions of the program are stand-ins that send their arguments to the other process and give
# back what arrives: built-in values, so that `==` is Python's own. What the tests name and nothing here defines is asked
# of the program, as some tests make objects of its classes.
REPLIES, REQUESTS, VERDICT = 3, 4, 5
# What ends a loop or a process is passed on under another name, or a program could end the tests with it.
NOT_PASSED_ON = ("StopIteration", "StopAsyncIteration")


class Raised(Exception):
    """What the program raised and has no name here."""


class Stand:
    """Something of the program that is not plain. It can be used as a test uses it, but never compared: the program would
    be asked whether it is right."""

    __slots__ = ("number",)

    def __init__(self, number):
        object.__setattr__(self, "number", number)

    def __call__(self, *arguments, **named):
        return judge.call(self, list(arguments), named)

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return judge.ask("get", self, name)

    def __setattr__(self, name, value):
        judge.ask("set", self, name, value)

    def __iter__(self):
        return iter(judge.ask("items", self))

    def __len__(self):
        return len(judge.ask("items", self))

    def refuse(self, *_):
        raise NotPlain("is an object of the program, which cannot be compared")

    __bool__ = __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = __hash__ = __str__ = refuse

    def __repr__(self):
        return "<object of the program>"


class Judge:
    def __init__(self):
        self.calls = 0
        self.case = None
        self.last = None

    def shown(self):
        """The last call and what came back."""
        if self.last is None:
            return ""
        arguments, named, value = self.last
        try:
            parts = [repr(argument) for argument in arguments] + ["%s=%r" % pair for pair in named.items()]
            return ("(%s) gave %r" % (", ".join(parts), value))[:300]
        except Exception:
            return ""

    def reply(self):
        reply = decode(receive(REPLIES), Stand)
        if type(reply) is list and len(reply) == 2 and reply[0] == "ok":
            return reply[1]
        if type(reply) is not list or len(reply) != 4 or reply[0] != "error":
            raise Malformed("neither a value nor an error")
        name, message, line = reply[1:]
        if type(name) is not str or type(message) is not str or type(line) not in (int, type(None)):
            raise Malformed("an error without name or message")
        kind = getattr(builtins, name, None) if name not in NOT_PASSED_ON else None
        known = isinstance(kind, type) and issubclass(kind, Exception)
        try:
            error = (kind if known else Raised)(message)
        except TypeError:
            error = Raised(message)
        error.of_program = [name, message, line]
        raise error

    def ask(self, *request):
        def number(value):
            if type(value) is not Stand:
                raise NotPlain("is an argument that cannot be passed: %s" % type(value).__name__)
            return object.__getattribute__(value, "number")

        send(REQUESTS, encode(list(request), number))
        return self.reply()

    def call(self, target, arguments, named):
        self.calls += 1
        value = self.ask("call", target, arguments, named)
        self.last = arguments, named, value
        return value

    def bind(self, code, names):
        """Asks the program for what the code names and nothing defines."""
        for name in code.co_names:
            if name not in names and not hasattr(builtins, name):
                try:
                    names[name] = self.ask("global", name)
                except AttributeError:
                    pass
        for constant in code.co_consts:
            if type(constant) is type(code):
                self.bind(constant, names)

    def run(self, setup, cases, entry_point):
        """What becomes of the tests: a word, and what there is to say."""
        try:
            self.reply()
            target = self.ask("global", entry_point)
            self.case = 0
            names = {"__name__": "tests"}
            for source in [setup] + cases:
                code = compile(source, "<tests>", "exec", dont_inherit=True)
                seed_random(source)
                self.bind(code, names)
                exec(code, names)
                names[entry_point] = target
                self.case += 1
        except BaseException as error:
            return self.reason(error, entry_point)
        return ["right", self.calls] if self.calls else ["unusable", "the tests call nothing"]

    def reason(self, error, entry_point):
        # Of one test that makes many calls, the call; of many tests, the test.
        case = self.case and (self.calls if self.counts_calls else self.case)
        if isinstance(error, Gone):
            return ["gone", case]
        if isinstance(error, (NotPlain, Malformed)):
            return ["reply", case, str(error)]
        if hasattr(error, "of_program"):
            undefined = self.case is None and error.of_program[0] == "AttributeError" and error.of_program[2] is None
            return ["missing", entry_point] if undefined else ["raised", case] + error.of_program
        if isinstance(error, NameError):
            return ["missing", getattr(error, "name", None) or str(error)]
        if isinstance(error, AssertionError):
            return ["wrong", case, self.shown()]
        text = "%s: %s" % (type(error).__name__, str(error)[:200])
        if self.calls == 0 or isinstance(error, SyntaxError):
            return ["unusable", text]
        return ["wrong", case, "%s; the test ends with %s" % (self.shown(), text)]


import builtins

judge = Judge()
nonce, judge.counts_calls, *tests = decode(whole(0), plain_only)
verdict = judge.run(*tests)
send(VERDICT, encode([nonce] + verdict, plain_only))
