"""Goldens of chat templates with tools and a switch for thinking: what transformers renders.

`python3 testdata/make/chat.py` renders the conversations below with the templates of testdata/chat and writes
testdata/chat/renderings.json: a list of {template, name, messages, tools, thinking, rendered}. transformers is given the
arguments of calls as objects, as templates that write JSON themselves want them; all of these do. r1-tools.jinja wants tools in
a form that transformers does not have: it is rendered without.
"""

import copy
import json
import pathlib

from transformers.utils.chat_template_utils import render_jinja_template

CHAT = pathlib.Path(__file__).resolve().parent.parent / "chat"
TOKENS = dict(bos_token="<｜begin▁of▁sentence｜>", eos_token="<｜end▁of▁sentence｜>")

TOOLS = [
    {"type": "function", "function": {
        "name": "get_weather", "description": "Weather of a city, <b>now</b> & \"later\".",
        "parameters": {"type": "object", "properties": {
            "city": {"type": "string", "description": "城市"}, "unit": {"type": "string", "enum": ["°C", "°F"]}},
            "required": ["city"]}}},
    {"type": "function", "function": {
        "name": "add", "description": "", "parameters": {"type": "object", "properties": {
            "b": {"type": "number", "minimum": -1.5}, "a": {"type": "number"}, "exact": {"type": "boolean"}}}}},
]


def call(name, **arguments):
    return {"type": "function", "function": {"name": name, "arguments": arguments}}


def turn(role, content, **more):
    return {"role": role, "content": content, **more}


CONVERSATIONS = {
    "one call": [
        turn("user", "Weather in 北京?"),
        turn("assistant", None, tool_calls=[call("get_weather", city="北京", unit="°C")]),
        turn("tool", '{"temperature": 3}')],
    "parallel calls and an answer": [
        turn("system", "Be brief."),
        turn("user", "Both?"),
        turn("assistant", None, tool_calls=[call("add", b=2, a=1.5, exact=True, note=None), call("get_weather", city="a'<b>&\"\\\n")]),
        turn("tool", "3.5"),
        turn("tool", "mild"),
        turn("assistant", "3.5 and mild."),
        turn("user", "And 1+1?")],
    "thought of an earlier turn": [
        turn("user", "Hi"),
        turn("assistant", "<think>\na greeting\n</think>\n\nHello!"),
        turn("user", "Bye")],
}


def as_text(messages):
    """The arguments as the API has them: JSON in a text."""
    messages = copy.deepcopy(messages)
    for message in messages:
        for each in message.get("tool_calls", []):
            each["function"]["arguments"] = json.dumps(each["function"]["arguments"], ensure_ascii=False)
    return messages


def main():
    out = []
    for template in ("v3.1", "r1-tools", "tools"):
        source = (CHAT / f"{template}.jinja").read_text()
        for name, messages in CONVERSATIONS.items():
            for tools in (None, TOOLS) if template == "tools" else (None,):
                for thinking in (None, True, False):
                    more = {} if thinking is None else dict(thinking=thinking, enable_thinking=thinking)
                    rendered, _ = render_jinja_template(
                        [messages], chat_template=source, tools=tools, add_generation_prompt=True, **TOKENS, **more)
                    out.append(dict(template=template, name=name, messages=as_text(messages), tools=tools,
                                    thinking=thinking, rendered=rendered[0]))
    lines = ",\n".join(json.dumps(case, ensure_ascii=False) for case in out)
    (CHAT / "renderings.json").write_text(f"[\n{lines}\n]\n")


main()
