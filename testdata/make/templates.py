"""Goldens of chat templates: what transformers 5 renders.

`python3 testdata/make/templates.py` writes two files into testdata/chat, a case per line:

functions.json   what templates may call and use, one small template per case: {source, rendered}
published.json   published templates over conversations with history, system prompt, calls and tools:
                 {template, name, messages, tools, gen, think, rendered}

`python3 testdata/make/templates.py FOLDER` prints the second for all templates (*.jinja) of a folder instead, failures
of transformers included: {..., rendered: null}. crates/text/examples/render.rs reads it and counts what differs.
"""

import copy
import json
import pathlib
import sys

from transformers.utils.chat_template_utils import _normalize_chat_messages, render_jinja_template

CHAT = pathlib.Path(__file__).resolve().parent.parent / "chat"
TOKENS = dict(bos_token="<|bos|>", eos_token="<|eos|>", unk_token="<unk>", pad_token="<|pad|>")
PUBLISHED = ["smollm2", "qwen2.5-coder", "v3.1", "tools"]

FUNCTIONS = {
    "generation": [
        "{% generation %}{{ messages[0].content }}{% endgeneration %}",
        "a\n  {%- generation -%}  b {% set x = 1 %}{{ x }}{%- endgeneration %}\nc{{ x is defined }}",
        "{% for m in messages %}{% generation %}\n{{ m.role }}\n{% endgeneration %}\n{% endfor %}",
    ],
    "none": [
        "{% if tools is not none %}TOOLS{% else %}no tools{% endif %}",
        "{{ documents is none }} {{ tools is defined }} {{ tools is iterable }}",
        "a{{ tools.x }}b{% if tools %}c{% endif %}",
        "{% if tools is iterable and tools | length > 0 %}x{% endif %}y",
    ],
    "namespace": [
        "{% macro f(n) %}{{ n.a }}{% endmacro %}{% set ns = namespace(a=1) %}{{ f(ns) }}",
        "{% set ns = namespace(x=1) %}{{ ns['x'] }}",
        "{% set ns = namespace(items=[]) %}{% for m in messages %}{% set ns.items = ns.items + [m.role] %}{% endfor %}{{ ns['items'] | join(',') }}",
        "{% set ns = namespace(role='x', content='y') %}{% set all = [ns] + messages %}{% for m in all %}{{ m.role }}{{ m['content'] }};{% endfor %}",
        "{% set ns = namespace({'a': 1}, b=2) %}{{ ns.a }}{{ ns.b }}",
    ],
    "methods": [
        "{{ 'a</think>b'.rsplit('</think>', 1)[-1] }}|{{ 'a b  c'.rsplit() }}|{{ ' a b c '.rsplit(None, 1) }}|{{ 'a,b,c'.rsplit(',', maxsplit=1) }}",
        "{{ 'abc'.removeprefix('a') }}|{{ 'abc'.removeprefix('b') }}|{{ 'abc'.removesuffix('c') }}|{{ 'abc'.removesuffix('') }}",
        "{{ 'a=b=c'.partition('=')[2] }}|{{ 'a=b=c'.rpartition('=')[2] }}|{{ 'abc'.partition('=') }}|{{ 'abc'.rpartition('=') }}",
        "{{ 'abcb'.index('b') }}|{{ 'abcb'.rindex('b') }}|{{ 'abcb'.find('b', 2) }}|{{ 'äbc'.find('c') }}|{{ 'abc'.find('x') }}",
        "{{ 'abc'.startswith('b', 1) }}|{{ 'abc'.endswith('b', 0, 2) }}|{{ 'abc'.startswith(('x', 'a')) }}|{{ 'abc'.endswith('b', 0, -1) }}",
        "{{ '7'.zfill(3) }}|{{ '-7'.zfill(4) }}|{{ 'a'.ljust(3) }}|{{ 'a'.rjust(3, '.') }}|{{ 'ab'.center(7, '*') }}|{{ 'abc'.center(6) }}",
        "{{ 'aBc'.swapcase() }}|{{ 'ABC'.casefold() }}|{{ 'a,b'.split(',') }}|{{ ' x '.strip() }}|{{ 'x\ny'.splitlines() }}",
    ],
    "percent": [
        "{{ '%s' % 'x' }}",
        "{{ '%s and %d' % ('x', 3) }}|{{ '%05.2f%%' % 3.14159 }}",
        "{{ 'a' ~ '%s' % messages[0].role | upper ~ 'b' }}|{{ 7 % 4 }}",
        "{% for m in messages %}{{ '%02d: %s\n' % (loop.index, m['content']) }}{% endfor %}",
    ],
    "tojson": [
        "{{ messages[0]|tojson }}",
        "{{ {'a': 1, 'b': [1, {'c': none}]}|tojson(separators=(',', ':')) }}",
        "{{ {'b': 1, 'a': {'d': 1, 'c': 2}}|tojson(sort_keys=True) }}|{{ {'b': 1, 'a': 2}|tojson }}",
        "{{ 'é🙂<&\"\\\\' | tojson(ensure_ascii=True) }}|{{ 'é🙂<&\"' | tojson }}|{{ 'é' | tojson(true) }}",
        "{{ {'a': [1, 2], 'b': {}, 'c': []} | tojson(indent=2) }}|{{ [1, [2]] | tojson(indent='--') }}",
        "{{ [1.0, 1e20, 0.00001, 1.5e-7, -0.0, 12345678901234567890, true] | tojson }}|{{ {1: 2, none: 3, true: 4} | tojson }}",
        "{{ {'a': [1]} | tojson(indent=1, separators=(';', '=')) }}|{{ ('x', 1) | tojson }}|{{ [] | tojson(indent=4) }}",
    ],
    "line ends": [
        "a\r\n{% if true %}\r\nb\r\n{% endif %}\r\nc",
        "a\r{{ 'x' }}\r\r\n{# c #}\r\nb\r\n",
        "{% set x %}\r\ntext\r\n{% endset %}[{{ x }}]",
    ],
    "tests": [
        "{{ 'a' is sequence }}{{ {} is sequence }}{{ [] is sequence }}{{ 1 is sequence }}{{ none is sequence }}",
        "{{ none is iterable }}{{ 'a' is iterable }}{{ {} is iterable }}{{ 5 is iterable }}{{ nothing is iterable }}",
        "{{ messages is sequence and messages is not string }}{{ messages[0].content is sequence }}{{ messages[0] is mapping }}",
    ],
    "scopes": [
        "{% for i in range(3) %}{% set x = (x or '') ~ 'a' %}{{ x }} {% endfor %}{{ x is defined }}",
        "{%- set a, b = 1, [2, messages[0].role] %}{{ a }}{{ b }}{% set t = (a, b) %}{{ t[1][0] }}",
        "{% macro f(a, b=[messages[0].role]) %}{{ a }}{{ b }}{% endmacro %}{{ f((1, messages[0].role)) }}{{ f(1, b={'x': messages[0].role}) }}",
        "{% for k, v in messages[0].items() %}{{ k }}={{ v }};{% endfor %}{% for (k, v) in [(1, messages[0].role)] %}{{ k }}{{ v }}{% endfor %}",
        "{% set d = dict(a=1, b=[messages[0].role]) %}{{ d.a }}{{ d['b'] }}{{ 'user' in [messages[0].role] }}{{ messages[0]['role'] in ('user', messages[0].content) }}",
    ],
}

TOOLS = [
    {"type": "function", "function": {
        "name": "get_weather", "description": "Weather of a city, <b>now</b> & \"later\".\nTwo lines.",
        "parameters": {"type": "object", "properties": {
            "city": {"type": "string", "description": "城市"}, "unit": {"type": "string", "enum": ["°C", "°F"]},
            "days": {"type": "array", "items": {"type": "integer", "minimum": 0}}}, "required": ["city"]}}},
    {"type": "function", "function": {
        "name": "add", "description": "Adds.", "parameters": {"type": "object", "properties": {
            "b": {"type": "number", "minimum": -1.5}, "a": {"type": "number"},
            "exact": {"type": "boolean", "description": "or not"}}, "required": ["a", "b"]}}},
]


def call(id, name, **arguments):
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


def user(content):
    return {"role": "user", "content": content}


def assistant(content, **more):
    return {"role": "assistant", "content": content, **more}


def system(content):
    return {"role": "system", "content": content}


def result(content, id):
    return {"role": "tool", "content": content, "tool_call_id": id}


CONVERSATIONS = {
    "one question": [user("Hi")],
    "system": [system("Be brief."), user("What is 2+2?\n")],
    "history": [user("Hi"), assistant("Hello!"), user(" Bye  ")],
    "system and history": [system("You are a pirate.\n"), user("Hi <b>"), assistant("Arr!\n"), user("é 城 🙂"),
                           assistant("two\nlines"), user("more?")],
    "ends with the assistant": [user("Hi"), assistant("Hello!")],
    "thought in history": [user("Hi"), assistant("<think>\na greeting\n</think>\n\nHello!"), user("Bye")],
    "reasoning in history": [user("Hi"), assistant("Hello!", reasoning_content="a greeting"), user("Bye")],
    "one call": [user("Weather in 北京?"),
                 assistant(None, tool_calls=[call("abcdefghi", "get_weather", city="北京", unit="°C")]),
                 result('{"temperature": 3}', "abcdefghi")],
    "call with text": [system("Use tools."), user("Weather?"),
                       assistant("Let me see.", tool_calls=[call("abcdefghi", "get_weather", city="a'<b>&\"\\\n")]),
                       result("mild", "abcdefghi"), assistant("It is mild."), user("And tomorrow?")],
    "two calls": [system("Be brief."), user("Both?"),
                  assistant("", tool_calls=[call("abcdefghi", "add", b=2, a=1.5, exact=True, note=None),
                                            call("jklmnopqr", "get_weather", city="Rome", days=[1, 2])]),
                  result("3.5", "abcdefghi"), result("mild", "jklmnopqr"), assistant("3.5 and mild."), user("And 1+1?")],
}


def as_text(messages):
    """The arguments as the API has them: JSON in a text."""
    messages = copy.deepcopy(messages)
    for message in messages:
        for each in message.get("tool_calls", []):
            each["function"]["arguments"] = json.dumps(each["function"]["arguments"], ensure_ascii=False)
    return messages


def render(source, messages, tools=None, gen=False, **more):
    messages = _normalize_chat_messages(copy.deepcopy(messages))
    rendered, _ = render_jinja_template([messages], chat_template=source, tools=tools, add_generation_prompt=gen, **TOKENS, **more)
    return rendered[0]


def cases(name, source):
    for title, messages in CONVERSATIONS.items():
        # A template that knows no tools drops them in transformers; here they stand in the system message.
        for tools in (None, TOOLS) if "tools" in source else (None,):
            for gen in (True, False):
                for think in (None, True, False) if "think" in source else (None,):
                    more = {} if think is None else dict(thinking=think, enable_thinking=think)
                    try:
                        rendered = render(source, messages, tools, gen, **more)
                    except Exception:
                        rendered = None
                    yield dict(template=name, name=title, messages=as_text(messages), tools=tools, gen=gen, think=think,
                               rendered=rendered)


def write(name, lines):
    lines = ",\n".join(json.dumps(line, ensure_ascii=False) for line in lines)
    (CHAT / name).write_text(f"[\n{lines}\n]\n")


def main():
    if len(sys.argv) > 1:
        for path in sorted(pathlib.Path(sys.argv[1]).glob("*.jinja")):
            for case in cases(path.name, path.read_bytes().decode()):
                print(json.dumps(case, ensure_ascii=False))
        return
    messages = [user("Hi"), assistant("Yo\n")]
    write("functions.json", [dict(kind=kind, source=source, rendered=render(source, messages))
                             for kind, sources in FUNCTIONS.items() for source in sources])
    write("published.json", [case for name in PUBLISHED
                             for case in cases(name, (CHAT / f"{name}.jinja").read_text())
                             if case["rendered"] is not None and case["gen"] != case["name"].startswith("ends")])


main()
