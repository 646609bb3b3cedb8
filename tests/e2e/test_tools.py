"""Tool calls and reasoning, over a demo model whose chat template has been taught tools: calls that are forced are
bound by the tools' schemas, so that even this model makes them."""

import json
import os
import shutil

import grpc
import openai
import pytest

from conftest import ROOT
from test_requests import GOOD, post

TEMPLATE = """{{ bos_token }}{% if tools %}<|start_header_id|>system<|end_header_id|>

You may call functions within <tool_call></tool_call>:
{% for tool in tools %}{{ tool | tojson }}
{% endfor %}<|eot_id|>{% endif %}{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>

{% if m.content %}{{ m.content | trim }}{% endif %}{% for c in m.tool_calls or [] %}<tool_call>
{"name": "{{ c.function.name }}", "arguments": {{ c.function.arguments | tojson }}}
</tool_call>{% endfor %}<|eot_id|>{% endfor %}{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>

{% if enable_thinking %}<think>
{% endif %}{% endif %}{# reasoning ends with </think> #}"""

MESSAGES = [{"role": "user", "content": "What is the weather in Paris?"}]
TOOLS = [{"type": "function", "function": {"name": "get_weather", "description": "Looks out of the window.", "parameters": {
    "type": "object", "properties": {"city": {"type": "string", "maxLength": 10}, "unit": {"enum": ["C", "F"]}},
    "required": ["city", "unit"], "additionalProperties": False}}},
    {"type": "function", "function": {"name": "stop_rain", "parameters": {
        "type": "object", "properties": {"sure": {"type": "boolean"}}, "required": ["sure"], "additionalProperties": False}}}]


@pytest.fixture(scope="module")
def tool_model(tmp_path_factory):
    out = tmp_path_factory.mktemp("tools") / "demo"
    shutil.copytree(os.path.join(ROOT, "models", "demo"), out)
    config = json.loads((out / "tokenizer_config.json").read_text())
    config["chat_template"] = TEMPLATE
    (out / "tokenizer_config.json").write_text(json.dumps(config))
    return str(out)


@pytest.fixture(scope="module")
def tagged_model(tool_model, tmp_path_factory):
    """The same, taught to write calls in tags, and to reason between special tokens."""
    out = tmp_path_factory.mktemp("tagged") / "demo"
    shutil.copytree(tool_model, out)
    template = TEMPLATE.replace("<tool_call></tool_call>", "<tool_call><function=name></function></tool_call>")
    template = template.replace("<think>\n", "[THINK]").replace("</think>", "[/THINK]")
    config = json.loads((out / "tokenizer_config.json").read_text())
    config["chat_template"] = template
    (out / "tokenizer_config.json").write_text(json.dumps(config))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        text = (out / name).read_text()
        (out / name).write_text(text.replace("<|reserved_special_token_0|>", "[THINK]").replace("<|reserved_special_token_1|>", "[/THINK]"))
    return str(out)


@pytest.fixture(scope="module")
def tool_fleet(make_fleet, tool_model):
    return make_fleet(1, 1, model=tool_model)


@pytest.fixture()
def api(tool_fleet):
    return openai.OpenAI(base_url=f"http://{tool_fleet.routers[0]['rest']}/v1", api_key=tool_fleet.api_key, max_retries=0)


def ask(api, **kwargs):
    kwargs = {"max_tokens": 120, "temperature": 1.0, "tools": TOOLS, "messages": MESSAGES, **kwargs}
    return api.chat.completions.create(model="demo", **kwargs)


def check_call(name, arguments):
    value = json.loads(arguments)
    if name == "get_weather":
        assert list(value) == ["city", "unit"] and len(value["city"]) <= 10 and value["unit"] in ("C", "F")
    else:
        assert name == "stop_rain" and isinstance(value["sure"], bool)


@pytest.mark.parametrize("choice", ["required", "any", {"type": "function", "function": {"name": "get_weather"}}])
def test_a_forced_call(api, choice):
    answers = [ask(api, tool_choice=choice, seed=seed).choices[0] for seed in range(3)]
    for answer in answers:
        assert answer.finish_reason == "tool_calls" and answer.message.content is None
        assert len(answer.message.tool_calls) == 1 and answer.message.tool_calls[0].type == "function"
        function = answer.message.tool_calls[0].function
        check_call(function.name, function.arguments)
        assert isinstance(choice, str) or function.name == "get_weather"
    assert len({a.message.tool_calls[0].id for a in answers}) == 3


def test_streamed_calls_are_the_same(api):
    whole = ask(api, tool_choice="required", seed=4, n=2)
    parts = [{"name": "", "arguments": "", "id": None, "content": "", "finish": None} for _ in range(2)]
    n_chunks = 0
    for chunk in ask(api, tool_choice="required", seed=4, n=2, stream=True):
        choice = chunk.choices[0]
        part = parts[choice.index]
        part["content"] += choice.delta.content or ""
        part["finish"] = choice.finish_reason or part["finish"]
        for call in choice.delta.tool_calls or []:
            n_chunks += 1
            assert call.index == 0
            part["id"] = part["id"] or call.id
            part["name"] += call.function.name or ""
            part["arguments"] += call.function.arguments or ""
    assert n_chunks > 4  # the arguments came as they were made
    for part, choice in zip(parts, whole.choices):
        call = choice.message.tool_calls[0]
        assert (part["name"], part["arguments"]) == (call.function.name, call.function.arguments)
        assert part["id"] and part["content"] == "" and part["finish"] == "tool_calls"


@pytest.mark.parametrize("style", ["llama3", "mistral", "deepseek"])
def test_every_way_to_write_calls(own_fleet, tool_model, style):
    fleet = own_fleet(1, 1, model=tool_model, replica_args=["--tool-format", style])
    api = openai.OpenAI(base_url=f"http://{fleet.routers[0]['rest']}/v1", api_key=fleet.api_key, max_retries=0)
    named = {"type": "function", "function": {"name": "get_weather"}}
    for choice in (named, "required"):
        if (style, choice) == ("deepseek", "required"):  # the name comes before what a schema can bind
            with pytest.raises(openai.BadRequestError) as caught:
                ask(api, tool_choice=choice)
            assert caught.value.param == "tool_choice"
            continue
        for parallel in (True, False):
            answer = ask(api, tool_choice=choice, seed=3, max_tokens=400, parallel_tool_calls=parallel).choices[0]
            if answer.finish_reason == "length":  # a list of calls may go on
                assert style == "mistral" and parallel
                continue
            assert answer.finish_reason == "tool_calls" and answer.message.content is None
            calls = answer.message.tool_calls
            assert len(calls) == 1 or parallel
            for call in calls:
                check_call(call.function.name, call.function.arguments)
            assert len({c.id for c in calls}) == len(calls)
            assert all(len(c.id) == 9 for c in calls) == (style == "mistral")


def test_tags_and_brackets(own_fleet, tagged_model):
    fleet = own_fleet(1, 1, model=tagged_model)
    api = openai.OpenAI(base_url=f"http://{fleet.routers[0]['rest']}/v1", api_key=fleet.api_key, max_retries=0)
    named = {"type": "function", "function": {"name": "get_weather"}}
    for choice in ("required", named):
        answer = ask(api, tool_choice=choice, seed=3, max_tokens=200, extra_body={"raw_output": True}).choices[0]
        assert answer.finish_reason == "tool_calls" and answer.message.content is None
        function = answer.message.tool_calls[0].function
        check_call(function.name, function.arguments)
        assert answer.raw_output["completion"].startswith(f"<function={function.name}>\n<parameter=")
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"enum": ["yes", "no"]}}}
    answers = []
    for stream in (False, True):
        reply = ask(api, tools=openai.NOT_GIVEN, response_format=form, max_tokens=60, seed=2, stream=stream,
                    extra_body={"reasoning_effort": 12})
        parts = [c.choices[0].delta for c in reply if c.choices] if stream else [reply.choices[0].message]
        thought = "".join(getattr(p, "reasoning_content", None) or "" for p in parts)
        said = "".join(p.content or "" for p in parts)
        assert thought and "THINK]" not in thought and json.loads(said) in ("yes", "no")
        answers.append((thought, said))
    assert answers[0] == answers[1]


def test_turns_with_calls_and_results(api):
    call = ask(api, tool_choice="required", seed=1).choices[0].message
    turns = MESSAGES + [call.model_dump(exclude_none=True),
                        {"role": "tool", "tool_call_id": call.tool_calls[0].id, "content": "21 degrees"}]
    answer = ask(api, messages=turns, max_tokens=8, temperature=0, extra_body={"raw_output": True}).choices[0]
    prompt = answer.raw_output["prompt_fragments"][0]
    assert '<tool_call>\n{"name": "' + call.tool_calls[0].function.name in prompt and "21 degrees" in prompt
    assert json.dumps(TOOLS[0]["function"]["parameters"]) in prompt
    none = ask(api, tool_choice="none", max_tokens=1, extra_body={"raw_output": True}).choices[0]
    assert "get_weather" not in none.raw_output["prompt_fragments"][0]


def test_calls_over_grpc_are_the_same(tool_fleet, api, stubs):
    pb, pb_grpc = stubs
    request = pb.GenerateRequest(
        model="demo", max_tokens=120, seed=4, temperature=1.0, tool_choice=pb.TOOL_CHOICE_NAMED, tool_name="get_weather",
        chat=pb.Chat(messages=[pb.Message(**MESSAGES[0])]),
        tools=[pb.Tool(name=f["name"], description=f.get("description", ""), parameters=json.dumps(f["parameters"]))
               for f in (t["function"] for t in TOOLS)])
    key = (("authorization", f"Bearer {tool_fleet.api_key}"),)
    with grpc.insecure_channel(tool_fleet.routers[0]["grpc"]) as channel:
        events = list(pb_grpc.InferenceStub(channel).Generate(request, metadata=key, timeout=30))
    pieces = [c for e in events if e.WhichOneof("event") == "delta" for c in e.delta.tool_calls]
    assert pieces[0].id and pieces[0].name == "get_weather" and not any(c.id or c.name for c in pieces[1:])
    assert [e.finished.reason for e in events if e.WhichOneof("event") == "finished"] == [pb.FINISH_TOOL_CALLS]
    rest = ask(api, tool_choice={"type": "function", "function": {"name": "get_weather"}}, seed=4).choices[0]
    assert "".join(c.arguments for c in pieces) == rest.message.tool_calls[0].function.arguments


def test_the_older_shape(tool_fleet):
    body = {**GOOD, "messages": MESSAGES, "max_tokens": 120, "functions": [t["function"] for t in TOOLS],
            "function_call": {"name": "stop_rain"}}
    status, answer, _ = post(tool_fleet, tool_fleet.routers[0], body)
    choice = answer["choices"][0]
    assert status == 200 and choice["finish_reason"] == "function_call" and "tool_calls" not in choice["message"]
    check_call("stop_rain", choice["message"]["function_call"]["arguments"])


def test_reasoning_is_split_off(api):
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"enum": ["yes", "no"]}}}
    answer = ask(api, tools=openai.NOT_GIVEN, response_format=form, max_tokens=600, seed=1,
                 extra_body={"chat_template_kwargs": {"enable_thinking": True}, "raw_output": True})
    message = answer.choices[0].message
    # Everything before </think> is reasoning; if the model never gets there, all of it is.
    assert message.reasoning_content
    assert "</think>" not in message.reasoning_content and "</think>" not in (message.content or "")
    if answer.choices[0].finish_reason == "stop":
        assert json.loads(message.content) in ("yes", "no")
    off = ask(api, tools=openai.NOT_GIVEN, response_format=form, max_tokens=40, seed=1,
              extra_body={"reasoning_effort": "none"}).choices[0].message
    assert json.loads(off.content) in ("yes", "no") and not getattr(off, "reasoning_content", None)


def test_a_bound_of_reasoning(api):
    for n in (1, 20):
        choice = ask(api, tools=openai.NOT_GIVEN, max_tokens=60, seed=2, temperature=0,
                     extra_body={"reasoning_effort": n, "ignore_eos": True, "return_token_ids": True, "raw_output": True}).choices[0]
        assert choice.message.reasoning_content and choice.message.content
        head, _ = choice.raw_output["completion"].split("</think>", 1)
        assert head == choice.message.reasoning_content
        free = ask(api, tools=openai.NOT_GIVEN, max_tokens=n, seed=2, temperature=0, extra_body={
            "chat_template_kwargs": {"enable_thinking": True}, "return_token_ids": True}).choices[0]
        assert choice.token_ids[:n] == free.token_ids  # what it thinks is its own until the bound


def test_bad_counts_of_reasoning(tool_fleet, fleet):
    status, answer, _ = post(fleet, fleet.routers[0], {**GOOD, "reasoning_effort": 5})
    assert status == 400 and answer["error"]["param"] == "reasoning_effort"  # this model does not reason
    assert post(tool_fleet, tool_fleet.routers[0], {**GOOD, "reasoning_effort": 0})[0] == 400


def test_a_model_without_tools_says_so(fleet, router):
    status, answer, _ = post(fleet, router, {**GOOD, "tools": TOOLS})
    assert status == 400 and answer["error"]["param"] == "tools"
    assert post(fleet, router, {**GOOD, "tools": TOOLS, "tool_choice": "none"})[0] == 200
