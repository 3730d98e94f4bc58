"""Drives a server with the official Python clients: streaming, thoughts, tools, schemas, errors, cancelling.

python official.py http://127.0.0.1:PORT NAME [openai|anthropic|ollama|litellm|instructor ...]

NAME is the model's. The server serves a scripted model (the example scripted_model), so what is checked is the protocol: that each
client takes what comes, that whole and streamed answers agree, that counts and ends are right.
"""

import json
import sys
import time

QUESTION = "make 24 from 3 8 1"
ADD = {
    "type": "object",
    "properties": {name: {"type": "integer", "minimum": 0, "maximum": 99} for name in "ab"},
    "required": ["a", "b"],
    "additionalProperties": False,
}
POINT = {
    "type": "object",
    "properties": {"x": {"type": "integer", "minimum": 0, "maximum": 99}, "ok": {"type": "boolean"}},
    "required": ["x", "ok"],
    "additionalProperties": False,
}


def check(what, condition, *shown):
    if not condition:
        raise AssertionError(f"{what}: {shown}")


def openai_client(base, model):
    import openai
    from pydantic import BaseModel, ConfigDict, Field

    client = openai.OpenAI(base_url=f"{base}/v1", api_key="none", max_retries=0)
    names = [entry.id for entry in client.models.list()]
    check("models", names == [model], names)
    check("model", client.models.retrieve(model).id == model)

    # Whole and streamed.
    ask = {"model": model, "messages": [{"role": "user", "content": QUESTION}], "seed": 3, "max_tokens": 300}
    whole = client.chat.completions.create(**ask)
    message = whole.choices[0].message
    check("reasoning", message.reasoning_content, message)
    usage = whole.usage
    check("usage", usage.total_tokens == usage.prompt_tokens + usage.completion_tokens, usage)
    check("reasoning tokens", 0 < usage.completion_tokens_details.reasoning_tokens < usage.completion_tokens, usage)
    reasoning, content, finish, counts = "", "", None, None
    for chunk in client.chat.completions.create(**ask, stream=True, stream_options={"include_usage": True}):
        counts = chunk.usage or counts
        for choice in chunk.choices:
            reasoning += getattr(choice.delta, "reasoning_content", None) or ""
            content += choice.delta.content or ""
            finish = choice.finish_reason or finish
    check("stream", (reasoning, content) == (message.reasoning_content, message.content), reasoning, content, message)
    check("finish", finish == whole.choices[0].finish_reason, finish)
    check("streamed usage", counts.completion_tokens == usage.completion_tokens, counts)

    # Several answers, log-probabilities, stop strings, limits.
    several = client.chat.completions.create(**ask, n=3, logprobs=True, top_logprobs=2)
    check("n", [choice.index for choice in several.choices] == [0, 1, 2])
    for choice in several.choices:
        spelled = "".join(entry.token for entry in choice.logprobs.content)
        check("logprobs", spelled == choice.message.content, spelled, choice.message.content)
    short = client.chat.completions.create(**{**ask, "max_tokens": 2})
    check("length", (short.choices[0].finish_reason, short.choices[0].message.content) == ("length", ""), short)
    stopped = client.chat.completions.create(**ask, stop=["*"])
    check("stop", "*" not in stopped.choices[0].message.content, stopped)

    # A schema, by hand and by the client's parser.
    class Point(BaseModel):
        # Other keys could go on for ever: the model takes what is most likely.
        model_config = ConfigDict(extra="forbid")
        x: int = Field(ge=0, le=99)
        ok: bool

    schema = {"type": "json_schema", "json_schema": {"name": "point", "schema": POINT, "strict": True}}
    formatted = client.chat.completions.create(**ask, response_format=schema)
    value = json.loads(formatted.choices[0].message.content)
    check("schema", isinstance(value["ok"], bool) and 0 <= value["x"] <= 99, value)
    anything = client.chat.completions.create(**{**ask, "max_tokens": 450}, response_format={"type": "json_object"})
    if anything.choices[0].finish_reason == "stop":
        check("json object", isinstance(json.loads(anything.choices[0].message.content), dict), anything)
    parsed = client.chat.completions.parse(**ask, response_format=Point)
    check("parse", isinstance(parsed.choices[0].message.parsed, Point), parsed)

    # Tools: required, named, streamed, none; and what they returned.
    tools = [
        {"type": "function", "function": {"name": name, "description": "adds", "parameters": ADD, "strict": True}}
        for name in ("add", "sum")
    ]
    for choice, names in (
        ("required", {"add", "sum"}),
        ({"type": "function", "function": {"name": "sum"}}, {"sum"}),
    ):
        called = client.chat.completions.create(**ask, tools=tools, tool_choice=choice, parallel_tool_calls=False)
        calls = called.choices[0].message.tool_calls
        check("finish of calls", called.choices[0].finish_reason in ("tool_calls", "length"), called)
        if called.choices[0].finish_reason == "tool_calls":
            check("one call", len(calls) == 1 and calls[0].function.name in names, calls)
            arguments = json.loads(calls[0].function.arguments)
            check("arguments", sorted(arguments) == ["a", "b"], arguments)
    with client.chat.completions.stream(**ask, tools=tools, tool_choice="required") as stream:
        final = stream.get_final_completion()
    check("streamed calls", final.choices[0].message.tool_calls, final)
    none = client.chat.completions.create(**ask, tools=tools, tool_choice="none")
    check("no calls", not none.choices[0].message.tool_calls, none)
    history = [
        {"role": "user", "content": "add"},
        {"role": "assistant", "content": None, "reasoning_content": "well", "tool_calls": [
            {"id": "call_1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1, "b": '}}]},
        {"role": "tool", "tool_call_id": "call_1", "content": [{"type": "text", "text": "3"}]},
        {"role": "developer", "content": "be brief"},
        {"role": "user", "content": [{"type": "text", "text": QUESTION}]},
    ]
    check("history", client.chat.completions.create(model=model, messages=history, max_tokens=3).choices)

    # Responses.
    answer = client.responses.create(model=model, input=QUESTION, max_output_tokens=300, extra_body={"seed": 3})
    check("response", answer.output_text == message.content, answer.output_text, message.content)
    kinds = [item.type for item in answer.output]
    check("items", kinds == ["reasoning", "message"], kinds)
    events = list(client.responses.create(model=model, input=QUESTION, stream=True, extra_body={"seed": 3}))
    check("first event", events[0].type == "response.created", events[0])
    check("last event", events[-1].type == "response.completed", events[-1])
    check("numbers", [event.sequence_number for event in events] == list(range(len(events))))
    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    check("streamed response", text == answer.output_text, text)
    followed = client.responses.create(model=model, input="again", previous_response_id=answer.id, max_output_tokens=3)
    check("previous", followed.usage.input_tokens > answer.usage.input_tokens, followed.usage)
    strict = client.responses.parse(model=model, input=QUESTION, text_format=Point)
    check("parsed response", isinstance(strict.output_parsed, Point), strict)
    function = {"type": "function", "name": "add", "parameters": ADD, "strict": True}
    called = client.responses.create(model=model, input=QUESTION, tools=[function, {"type": "web_search"}],
                                     tool_choice="required")
    check("function call", any(item.type == "function_call" for item in called.output), called.output)
    check("retrieve", client.responses.retrieve(answer.id).output_text == answer.output_text)
    client.responses.delete(answer.id)

    # Texts, errors, cancelling.
    plain = client.completions.create(model=model, prompt=[QUESTION, "hello"], max_tokens=4, n=2, echo=True)
    check("texts", len(plain.choices) == 4 and plain.choices[0].text.startswith(QUESTION), plain)
    for error, call in (
        (openai.NotFoundError, lambda: client.chat.completions.create(**{**ask, "model": "other"})),
        (openai.BadRequestError, lambda: client.chat.completions.create(**ask, temperature=-1)),
        (openai.BadRequestError, lambda: client.chat.completions.create(
            model=model, messages=[{"role": "user", "content": "x " * 50000}])),
        (openai.NotFoundError, lambda: client.responses.retrieve("resp_0")),
    ):
        try:
            call()
        except error as told:
            check("error", told.body["message"], told.body)
        else:
            raise AssertionError(f"no {error.__name__}")
    stream = client.chat.completions.create(**{**ask, "max_tokens": 400, "temperature": 2.0}, stream=True)
    next(iter(stream))
    stream.close()


def anthropic_client(base, model):
    import anthropic

    client = anthropic.Anthropic(base_url=base, api_key="none", max_retries=0)
    ask = {"model": model, "max_tokens": 300, "messages": [{"role": "user", "content": QUESTION}],
           "extra_body": {"temperature": 0.0}}
    whole = client.messages.create(**ask)
    kinds = [block.type for block in whole.content]
    check("blocks", kinds == ["thinking", "text"], kinds)
    check("stop reason", whole.stop_reason == "end_turn", whole)
    with client.messages.stream(**ask) as stream:
        events = list(stream)
        final = stream.get_final_message()
    shown = [(block.type, getattr(block, "text", None) or getattr(block, "thinking", None)) for block in whole.content]
    streamed = [(block.type, getattr(block, "text", None) or getattr(block, "thinking", None)) for block in final.content]
    check("stream", streamed == shown, streamed, shown)
    check("signature", final.content[0].signature, final)
    check("usage", final.usage.output_tokens == whole.usage.output_tokens, final.usage)
    check("events", any(event.type == "thinking" for event in events))
    # A thought goes back with its signature.
    again = client.messages.create(model=model, max_tokens=9, messages=[
        *ask["messages"], {"role": "assistant", "content": [block.model_dump() for block in final.content]},
        {"role": "user", "content": "again"}])
    check("round trip", again.usage.input_tokens + again.usage.cache_read_input_tokens > whole.usage.input_tokens)
    counted = client.messages.count_tokens(model=model, messages=ask["messages"])
    used = whole.usage.input_tokens + whole.usage.cache_read_input_tokens
    check("count", counted.input_tokens == used, counted, whole.usage)
    tools = [{"name": "add", "description": "adds", "input_schema": ADD}]
    called = client.messages.create(**ask, tools=tools, tool_choice={"type": "tool", "name": "add"})
    blocks = [block for block in called.content if block.type == "tool_use"]
    check("tool", blocks and blocks[0].name == "add", called)
    with client.messages.stream(**ask, tools=tools, tool_choice={"type": "any"}) as stream:
        final = stream.get_final_message()
    check("streamed tool", any(block.type == "tool_use" for block in final.content), final)
    result = client.messages.create(model=model, max_tokens=3, tools=tools, system=[{"type": "text", "text": "be brief"}],
                                    messages=[*ask["messages"],
        {"role": "assistant", "content": [{"type": "tool_use", "id": "toolu_1", "name": "add", "input": {"a": 1, "b": 2}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "content": [
            {"type": "text", "text": "3"}]}, {"type": "text", "text": "go on"}]}])
    check("result of a tool", result.stop_reason == "max_tokens", result)
    long = [{"role": "user", "content": "x " * 50000}]
    for error, extra in ((anthropic.NotFoundError, {"model": "other"}), (anthropic.BadRequestError, {"messages": long}),
                         (anthropic.BadRequestError, {"extra_body": {"temperature": -1}})):
        try:
            client.messages.create(**{**ask, **extra})
        except error as told:
            check("error", told.body["error"]["message"], told.body)
        else:
            raise AssertionError(f"no {error.__name__}")


def ollama_client(base, model):
    import ollama

    client = ollama.Client(host=base)
    check("list", [entry.model for entry in client.list().models] == [model])
    shown = client.show(model)
    check("show", "thinking" in shown.capabilities, shown)
    check("ps", client.ps().models[0].model == model)
    ask = {"model": model, "messages": [{"role": "user", "content": QUESTION}], "options": {"temperature": 0}}
    whole = client.chat(**ask)
    check("done", whole.done and whole.done_reason == "stop" and whole.eval_count > 0, whole)
    check("thinking", whole.message.thinking, whole)
    thinking, content = "", ""
    for part in client.chat(**ask, stream=True, think=True):
        thinking += part.message.thinking or ""
        content += part.message.content or ""
    check("stream", (thinking, content) == (whole.message.thinking, whole.message.content), thinking, content)
    formatted = client.chat(**ask, format=POINT)
    check("format", isinstance(json.loads(formatted.message.content)["ok"], bool), formatted)
    generated = client.generate(model=model, prompt=QUESTION, options={"temperature": 0})
    check("generate", generated.response == whole.message.content, generated)
    raw = client.generate(model=model, prompt="1+1=", raw=True, options={"num_predict": 3})
    check("raw", raw.done_reason == "length", raw)
    try:
        client.chat(model="other", messages=ask["messages"])
    except ollama.ResponseError as told:
        check("error", told.status_code == 404 and "other" in told.error, told)
    else:
        raise AssertionError("no error")


def litellm_client(base, model):
    import litellm

    litellm.telemetry, litellm.suppress_debug_info = False, True
    ask = {"messages": [{"role": "user", "content": QUESTION}], "max_tokens": 300}
    for name, place in ((f"openai/{model}", f"{base}/v1"), (f"ollama_chat/{model}", base), (f"anthropic/{model}", base)):
        whole = litellm.completion(model=name, api_base=place, api_key="none", **ask)
        content = whole.choices[0].message.content
        check(name, content, whole)
        pieces = litellm.completion(model=name, api_base=place, api_key="none", stream=True, **ask)
        text = "".join(piece.choices[0].delta.content or "" for piece in pieces)
        check(f"{name} stream", text == content, text, content)


def instructor_client(base, model):
    import instructor
    import openai
    from pydantic import BaseModel, ConfigDict, Field

    class Point(BaseModel):
        # Other keys could go on for ever: the model takes what is most likely.
        model_config = ConfigDict(extra="forbid")
        x: int = Field(ge=0, le=99)
        ok: bool

    for mode in (instructor.Mode.TOOLS, instructor.Mode.JSON_SCHEMA):
        client = instructor.from_openai(openai.OpenAI(base_url=f"{base}/v1", api_key="none", max_retries=0), mode=mode)
        point = client.chat.completions.create(model=model, response_model=Point, max_retries=0, max_tokens=400,
                                               messages=[{"role": "user", "content": QUESTION}])
        check(str(mode), isinstance(point, Point), point)


CLIENTS = {
    "openai": openai_client,
    "anthropic": anthropic_client,
    "ollama": ollama_client,
    "litellm": litellm_client,
    "instructor": instructor_client,
}

if __name__ == "__main__":
    base, model, *names = sys.argv[1:]
    for name in names or CLIENTS:
        begin = time.monotonic()
        CLIENTS[name](base, model)
        print(f"{name}: ok, {time.monotonic() - begin:.1f} s", flush=True)
