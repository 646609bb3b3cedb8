#!/usr/bin/env python3
"""Renders chat templates with jinja2, set up as transformers sets it, and writes templates, variables and texts to
tests/golden/templates.json. The templates are our own, in the manner of those that well-known families publish, and
one for each corner of the language. Needs `pip install jinja2`.

    python3 tests/golden/make_templates.py
"""
import datetime
import json
import os

import jinja2
from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

HERE = os.path.dirname(os.path.abspath(__file__))
NOW = datetime.datetime.fromtimestamp(1732152000, datetime.timezone.utc)


class Generation(Extension):
    """{% generation %}: the text is the body's; transformers only notes where it lies."""

    tags = {"generation"}

    def parse(self, parser):
        lineno = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_body"), [], [], body).set_lineno(lineno)

    def _body(self, caller):
        return caller()


def environment():
    def raise_exception(message):
        raise jinja2.exceptions.TemplateError(message)

    def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols])
    env.filters["tojson"] = tojson
    env.globals["raise_exception"] = raise_exception
    env.globals["strftime_now"] = NOW.strftime
    return env


def msg(role, content, **more):
    return dict(role=role, content=content, **more)


TOOL = {"type": "function", "function": {
    "name": "get_weather", "description": "Weather of a \"place\", now. <b>&amp;</b> caf\u00e9",
    "parameters": {"type": "object", "required": ["city"], "properties": {
        "city": {"type": "string", "description": "The city's name"},
        "unit": {"type": "string", "enum": ["c", "f"], "default": None},
        "days": {"type": ["integer", "null"], "minimum": 1, "maximum": 14.5}}}}}
TOOL2 = {"type": "function", "function": {"name": "noop", "description": "", "parameters": {"type": "object", "properties": {}}}}
CALL = {"id": "call12345", "type": "function", "function": {"name": "get_weather", "arguments": {"city": "Z\u00fcrich", "days": 2}}}

CONVERSATIONS = {
    "user": dict(messages=[msg("user", "Hello there!")]),
    "system": dict(messages=[msg("system", "  Be brief. \n"), msg("user", "  What's a weir?\n")]),
    "turns": dict(messages=[msg("user", "One"), msg("assistant", "1"), msg("user", "Two\n\nlines"), msg("assistant", " 2 "),
                            msg("user", "\u6c34\U0001f30a <|x|> & \"q\" 'a' \\ {{ no }} {% raw %}")]),
    "long": dict(messages=[msg("system", "S")] + [msg("user" if i % 2 == 0 else "assistant", "m%d" % i) for i in range(9)]),
    "think": dict(messages=[msg("user", "Why?"), msg("assistant", "<think>\nhmm\n</think>\n\nBecause.", reasoning_content=None),
                            msg("user", "Sure?"), msg("assistant", "Yes.", reasoning_content="let me see")]),
    "parts": dict(messages=[msg("user", [{"type": "text", "text": "a"}, {"type": "image"}, {"type": "text", "text": "b "}]),
                            msg("assistant", "c")]),
    "tools": dict(messages=[msg("system", "Use tools."), msg("user", "Weather?"),
                            msg("assistant", None, tool_calls=[CALL]),
                            msg("tool", "{\"t\": 21}", name="get_weather", tool_call_id="call12345"),
                            msg("assistant", "It's 21."), msg("user", "Thanks")], tools=[TOOL, TOOL2]),
    "tools_json": dict(messages=[msg("user", "Weather?"),
                                 msg("assistant", "", tool_calls=[{"type": "function", "id": "abcdefghi", "function": {
                                     "name": "get_weather", "arguments": "{\"city\": \"Bern\"}"}}]),
                                 msg("tool", {"t": 1.5, "ok": True, "none": None}, tool_call_id="abcdefghi"),
                                 msg("tool", "two", tool_call_id="abcdefghi")], tools=[TOOL]),
    "bad_order": dict(messages=[msg("assistant", "I begin"), msg("user", "no")]),
    "empty": dict(messages=[]),
}

FAMILIES = {
"chatml": """{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}""",

"llama2": """{% if messages and messages[0]['role'] == 'system' %}
{% set rest = messages[1:] %}
{% set system = messages[0]['content'] %}
{% else %}
{% set rest = messages %}
{% set system = false %}
{% endif %}
{% for message in rest %}
{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
{{ raise_exception('roles must alternate: user, assistant, user, ...') }}
{% endif %}
{% if loop.index0 == 0 and system != false %}
{% set content = '<<SYS>>\\n' + system + '\\n<</SYS>>\\n\\n' + message['content'] %}
{% else %}
{% set content = message['content'] %}
{% endif %}
{% if message['role'] == 'user' %}
{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}
{% elif message['role'] == 'assistant' %}
{{ ' ' + content.strip() + ' ' + eos_token }}
{% endif %}
{% endfor %}""",

"llama3": """{% set loop_messages = messages %}{% for message in loop_messages %}{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' + message['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}""",

"llama31": """{{- bos_token }}
{%- if custom_tools is defined %}
    {%- set tools = custom_tools %}
{%- endif %}
{%- if not tools_in_user_message is defined %}
    {%- set tools_in_user_message = true %}
{%- endif %}
{%- if not date_string is defined %}
    {%- if strftime_now is defined %}
        {%- set date_string = strftime_now("%d %b %Y") %}
    {%- else %}
        {%- set date_string = "26 Jul 2024" %}
    {%- endif %}
{%- endif %}
{%- if not tools is defined %}
    {%- set tools = none %}
{%- endif %}

{#- The system message comes first, where there is one. -#}
{%- if messages and messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}

{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}
{%- if builtin_tools is defined or tools is not none %}
    {{- "Environment: ipython\\n" }}
{%- endif %}
{%- if builtin_tools is defined %}
    {{- "Tools: " + builtin_tools | reject('equalto', 'code_interpreter') | join(", ") + "\\n\\n"}}
{%- endif %}
{{- "Today: " + date_string + "\\n\\n" }}
{%- if tools is not none and not tools_in_user_message %}
    {{- "Functions:\\n\\n" }}
    {%- for t in tools %}
        {{- t | tojson(indent=4) }}
        {{- "\\n\\n" }}
    {%- endfor %}
{%- endif %}
{{- system_message }}
{{- "<|eot_id|>" }}
{%- if tools_in_user_message and not tools is none %}
    {%- if messages | length != 0 %}
        {%- set first_user_message = messages[0]['content']|trim %}
        {%- set messages = messages[1:] %}
    {%- else %}
        {{- raise_exception("Cannot put tools in the first user message when there's no first user message!") }}
    {%- endif %}
    {{- '<|start_header_id|>user<|end_header_id|>\\n\\n' -}}
    {{- "Answer with a JSON for a function call.\\n" }}
    {%- for t in tools %}
        {{- t | tojson(indent=4) }}
        {{- "\\n\\n" }}
    {%- endfor %}
    {{- first_user_message + "<|eot_id|>"}}
{%- endif %}
{%- for message in messages %}
    {%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}
        {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'+ message['content'] | trim + '<|eot_id|>' }}
    {%- elif 'tool_calls' in message %}
        {%- if not message.tool_calls|length == 1 %}
            {{- raise_exception("One tool call at a time!") }}
        {%- endif %}
        {%- set tool_call = message.tool_calls[0].function %}
        {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' -}}
        {{- '{"name": "' + tool_call.name + '", ' }}
        {{- '"parameters": ' }}
        {{- tool_call.arguments | tojson }}
        {{- "}" }}
        {{- "<|eot_id|>" }}
    {%- elif message.role == "tool" or message.role == "ipython" %}
        {{- "<|start_header_id|>ipython<|end_header_id|>\\n\\n" }}
        {%- if message.content is mapping or message.content is iterable %}
            {{- message.content | tojson }}
        {%- else %}
            {{- message.content }}
        {%- endif %}
        {{- "<|eot_id|>" }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
""",

"qwen25": """{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- if messages[0]['role'] == 'system' %}
        {{- messages[0]['content'] }}
    {%- else %}
        {{- 'You are a helpful assistant.' }}
    {%- endif %}
    {{- "\\n\\n# Tools\\n\\n<tools>" }}
    {%- for tool in tools or [] %}
        {{- "\\n" }}
        {{- tool | tojson }}
    {%- endfor %}
    {{- "\\n</tools><|im_end|>\\n" }}
{%- else %}
    {%- if messages[0]['role'] == 'system' %}
        {{- '<|im_start|>system\\n' + messages[0]['content'] + '<|im_end|>\\n' }}
    {%- else %}
        {{- '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' }}
    {%- endif %}
{%- endif %}
{%- for message in messages %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) or (message.role == "assistant" and not message.tool_calls) %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
    {%- elif message.role == "assistant" %}
        {{- '<|im_start|>' + message.role }}
        {%- if message.content %}
            {{- '\\n' + message.content }}
        {%- endif %}
        {%- for tool_call in message.tool_calls %}
            {%- if tool_call.function is defined %}
                {%- set tool_call = tool_call.function %}
            {%- endif %}
            {{- '\\n<tool_call>\\n{"name": "' }}
            {{- tool_call.name }}
            {{- '", "arguments": ' }}
            {{- tool_call.arguments | tojson }}
            {{- '}\\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\\n' }}
    {%- elif message.role == "tool" %}
        {%- if (loop.index0 == 0) or (messages[loop.index0 - 1].role != "tool") %}
            {{- '<|im_start|>user' }}
        {%- endif %}
        {{- '\\n<tool_response>\\n' }}
        {{- message.content }}
        {{- '\\n</tool_response>' }}
        {%- if loop.last or (messages[loop.index0 + 1].role != "tool") %}
            {{- '<|im_end|>\\n' }}
        {%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
""",

"qwen3": """{%- set ns = namespace(multi_step_tool=true, last_query_index=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.multi_step_tool and message.role == "user" and message.content is string and not(message.content.startswith('<tool_response>') and message.content.endswith('</tool_response>')) %}
        {%- set ns.multi_step_tool = false %}
        {%- set ns.last_query_index = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if message.content is string %}
        {%- set content = message.content %}
    {%- else %}
        {%- set content = '' %}
    {%- endif %}
    {%- if message.role == "assistant" %}
        {%- set reasoning_content = '' %}
        {%- if message.reasoning_content is string %}
            {%- set reasoning_content = message.reasoning_content %}
        {%- else %}
            {%- if '</think>' in content %}
                {%- set reasoning_content = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
                {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
            {%- endif %}
        {%- endif %}
        {%- if loop.index0 > ns.last_query_index %}
            {%- if loop.last or (not loop.last and reasoning_content) %}
                {{- '<|im_start|>' + message.role + '\\n<think>\\n' + reasoning_content.strip('\\n') + '\\n</think>\\n\\n' + content.lstrip('\\n') }}
            {%- else %}
                {{- '<|im_start|>' + message.role + '\\n' + content }}
            {%- endif %}
        {%- else %}
            {{- '<|im_start|>' + message.role + '\\n' + content }}
        {%- endif %}
        {%- if message.tool_calls %}
            {%- for tool_call in message.tool_calls %}
                {%- if (loop.first and content) or (not loop.first) %}
                    {{- '\\n' }}
                {%- endif %}
                {%- if tool_call.function %}
                    {%- set tool_call = tool_call.function %}
                {%- endif %}
                {{- '<tool_call>\\n{"name": "' }}{{- tool_call.name }}{{- '", "arguments": ' }}
                {%- if tool_call.arguments is string %}
                    {{- tool_call.arguments }}
                {%- else %}
                    {{- tool_call.arguments | tojson }}
                {%- endif %}
                {{- '}\\n</tool_call>' }}
            {%- endfor %}
        {%- endif %}
        {{- '<|im_end|>\\n' }}
    {%- else %}
        {{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>' + '\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}""",

"mistral": """{%- if messages and messages[0]["role"] == "system" %}
    {%- set system_message = messages[0]["content"] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set loop_messages = messages %}
{%- endif %}
{%- if not tools is defined %}
    {%- set tools = none %}
{%- endif %}
{%- set user_messages = loop_messages | selectattr("role", "equalto", "user") | list %}
{#- After the system message, roles alternate; tool messages don't count. #}
{%- set ns = namespace() %}
{%- set ns.index = 0 %}
{%- for message in loop_messages %}
    {%- if not (message.role == "tool" or message.role == "tool_results" or (message.tool_calls is defined and message.tool_calls is not none)) %}
        {%- if (message["role"] == "user") != (ns.index % 2 == 0) %}
            {{- raise_exception("After the optional system message, roles must alternate user/assistant/user/assistant/...") }}
        {%- endif %}
        {%- set ns.index = ns.index + 1 %}
    {%- endif %}
{%- endfor %}
{{- bos_token }}
{%- for message in loop_messages %}
    {%- if message["role"] == "user" %}
        {%- if tools is not none and (message == user_messages[-1]) %}
            {{- "[AVAILABLE_TOOLS][" }}
            {%- for tool in tools or [] %}
                {%- set tool = tool.function %}
                {{- '{"type": "function", "function": {' }}
                {%- for key, val in tool.items() if key != "return" %}
                    {%- if val is string %}
                        {{- '"' + key + '": "' + val + '"' }}
                    {%- else %}
                        {{- '"' + key + '": ' + val|tojson }}
                    {%- endif %}
                    {%- if not loop.last %}
                        {{- ", " }}
                    {%- endif %}
                {%- endfor %}
                {{- "}}" }}
                {%- if not loop.last %}
                    {{- ", " }}
                {%- else %}
                    {{- "]" }}
                {%- endif %}
            {%- endfor %}
            {{- "[/AVAILABLE_TOOLS]" }}
        {%- endif %}
        {%- if loop.last and system_message is defined %}
            {{- "[INST]" + system_message + "\\n\\n" + message["content"] + "[/INST]" }}
        {%- else %}
            {{- "[INST]" + message["content"] + "[/INST]" }}
        {%- endif %}
    {%- elif message.tool_calls is defined and message.tool_calls is not none %}
        {{- "[TOOL_CALLS][" }}
        {%- for tool_call in message.tool_calls %}
            {%- set out = tool_call.function|tojson %}
            {{- out[:-1] }}
            {%- if not tool_call.id is defined or tool_call.id|length != 9 %}
                {{- raise_exception("Tool call IDs should be alphanumeric strings with length 9!") }}
            {%- endif %}
            {{- ', "id": "' + tool_call.id + '"}' }}
            {%- if not loop.last %}
                {{- ", " }}
            {%- else %}
                {{- "]" + eos_token }}
            {%- endif %}
        {%- endfor %}
    {%- elif message["role"] == "assistant" %}
        {{- message["content"] + eos_token}}
    {%- elif message["role"] == "tool_results" or message["role"] == "tool" %}
        {%- if message.content is defined and message.content.content is defined %}
            {%- set content = message.content.content %}
        {%- else %}
            {%- set content = message.content %}
        {%- endif %}
        {{- '[TOOL_RESULTS]{"content": ' + content|string + ", " }}
        {{- '"call_id": "' + message.tool_call_id + '"}[/TOOL_RESULTS]' }}
    {%- else %}
        {{- raise_exception("Only user and assistant roles are supported, with the exception of an initial optional system message!") }}
    {%- endif %}
{%- endfor %}
""",

"gemma": """{{ bos_token }}{% if messages and messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}{% if (message['role'] == 'assistant') %}{% set role = 'model' %}{% else %}{% set role = message['role'] %}{% endif %}{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}{% if add_generation_prompt %}{{'<start_of_turn>model\n'}}{% endif %}""",

"gemma3": """{{ bos_token }}
{%- if messages[0]['role'] == 'system' -%}
    {%- if messages[0]['content'] is string -%}
        {%- set first_user_prefix = messages[0]['content'] + '

' -%}
    {%- else -%}
        {%- set first_user_prefix = messages[0]['content'][0]['text'] + '

' -%}
    {%- endif -%}
    {%- set loop_messages = messages[1:] -%}
{%- else -%}
    {%- set first_user_prefix = "" -%}
    {%- set loop_messages = messages -%}
{%- endif -%}
{%- for message in loop_messages -%}
    {%- if (message['role'] == 'assistant') -%}
        {%- set role = "model" -%}
    {%- else -%}
        {%- set role = message['role'] -%}
    {%- endif -%}
    {{ '<start_of_turn>' + role + '
' + (first_user_prefix if loop.first else "") }}
    {%- if message['content'] is string -%}
        {{ message['content'] | trim }}
    {%- elif message['content'] is iterable -%}
        {%- for item in message['content'] -%}
            {%- if item['type'] == 'image' -%}
                {{ '<start_of_image>' }}
            {%- elif item['type'] == 'text' -%}
                {{ item['text'] | trim }}
            {%- endif -%}
        {%- endfor -%}
    {%- else -%}
        {{ raise_exception("Invalid content type") }}
    {%- endif -%}
    {{ '<end_of_turn>
' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{'<start_of_turn>model
'}}
{%- endif -%}
""",

"deepseek": """{% if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}{% endif %}{% set ns = namespace(is_first=false, is_tool=false, is_output_first=true, system_prompt='', is_first_sp=true) %}{%- for message in messages %}{%- if message['role'] == 'system' %}{%- if ns.is_first_sp %}{% set ns.system_prompt = ns.system_prompt + message['content'] %}{% set ns.is_first_sp = false %}{%- else %}{% set ns.system_prompt = ns.system_prompt + '\\n\\n' + message['content'] %}{%- endif %}{%- endif %}{%- endfor %}{{ bos_token }}{{ ns.system_prompt }}{%- for message in messages %}{%- if message['role'] == 'user' %}{%- set ns.is_tool = false -%}{{'<\uff5cUser\uff5c>' + message['content']}}{%- endif %}{%- if message['role'] == 'assistant' and message['tool_calls'] is defined and message['tool_calls'] is not none %}{%- set ns.is_tool = false -%}{%- for tool in message['tool_calls'] %}{%- if not ns.is_first %}{{'<\uff5cAssistant\uff5c>' + tool['type'] + ':' + tool['function']['name'] + '\\n' + '```json' + '\\n' + tool['function']['arguments']|tojson + '\\n' + '```'}}{%- set ns.is_first = true -%}{%- else %}{{'\\n' + tool['type']}}{%- endif %}{%- endfor %}{%- elif message['role'] == 'assistant' and message['content'] is not none %}{% set content = message['content'] %}{% if '</think>' in content %}{% set content = content.split('</think>')[-1] %}{% endif %}{{'<\uff5cAssistant\uff5c>' + content + eos_token}}{%- endif %}{%- if message['role'] == 'tool' %}{%- set ns.is_tool = true -%}{%- if ns.is_output_first %}{{'<out>' ~ message['content'] ~ '</out>'}}{%- set ns.is_output_first = false %}{%- else %}{{'\\n<out>' ~ message['content'] ~ '</out>'}}{%- endif %}{%- endif %}{%- endfor -%}{% if ns.is_tool %}{{'<end>'}}{% endif %}{% if add_generation_prompt and not ns.is_tool %}{{'<\uff5cAssistant\uff5c><think>\\n'}}{% endif %}""",

"phi3": """{% for message in messages %}{% if message['role'] == 'system' and message['content'] %}{{'<|system|>\n' + message['content'] + '<|end|>\n'}}{% elif message['role'] == 'user' %}{{'<|user|>\n' + message['content'] + '<|end|>\n'}}{% elif message['role'] == 'assistant' %}{{'<|assistant|>\n' + message['content'] + '<|end|>\n'}}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}""",

"zephyr": """{% for message in messages %}
{% if message['role'] == 'user' %}
{{ '<|user|>
' + message['content'] + eos_token }}
{% elif message['role'] == 'system' %}
{{ '<|system|>
' + message['content'] + eos_token }}
{% elif message['role'] == 'assistant' %}
{{ '<|assistant|>
'  + message['content'] + eos_token }}
{% endif %}
{% if loop.last and add_generation_prompt %}
{{ '<|assistant|>' }}
{% endif %}
{% endfor %}""",

"vicuna": """{% if not add_generation_prompt is defined %}
{% set add_generation_prompt = false %}
{% endif %}
{% for message in messages -%}
    {% if message.role == 'system' -%}
        {{ message.content -}}
    {% elif message.role == 'user' %}
 USER: {{ message.content -}}
    {% else %}
 ASSISTANT: {{ message.content }}{{ eos_token -}}
    {% endif -%}
{% endfor -%}
{% if add_generation_prompt %}
 ASSISTANT:
{%- endif %}

""",

"alpaca": """{{ (messages|selectattr('role', 'equalto', 'system')|list|last).content|trim if (messages|selectattr('role', 'equalto', 'system')|list) else '' }}

{% for message in messages if message['role'] != 'system' %}
{% if message['role'] == 'user' %}
### Instruction:
{{ message['content']|trim -}}
{% if not loop.last %}


{% endif %}
{% elif message['role'] == 'assistant' %}
### Response:
{{ message['content']|trim -}}
{% if not loop.last %}


{% endif %}
{% else %}
### Other: {{ loop.index }}/{{ loop.length }}
{% endif %}
{% endfor %}
{% if add_generation_prompt and messages and messages[-1]['role'] != 'assistant' %}


### Response:
{% endif %}""",

"command": """{{ bos_token }}{% if messages and messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}{% set system_message = messages[0]['content'] %}{% elif false == true %}{% set loop_messages = messages %}{% set system_message = 'You are large.' %}{% else %}{% set loop_messages = messages %}{% set system_message = false %}{% endif %}{% if system_message != false %}{{ '<|START|><|SYSTEM|>' + system_message + '<|END|>' }}{% endif %}{% for message in loop_messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Conversation roles must alternate') }}{% endif %}{% set content = message['content'] %}{% if message['role'] == 'user' %}{{ '<|START|><|USER|>' + content.strip() + '<|END|>' }}{% elif message['role'] == 'assistant' %}{% generation %}{{ '<|START|><|BOT|>'  + content.strip() + '<|END|>' }}{% endgeneration %}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|START|><|BOT|>' }}{% endif %}""",

"hermes": """{%- macro json_to_python_type(json_spec) %}
{%- set basic_type_map = {
    "string": "str",
    "number": "float",
    "integer": "int",
    "boolean": "bool"
} %}
{%- if basic_type_map[json_spec.type] is defined %}
    {{- basic_type_map[json_spec.type] }}
{%- elif json_spec.type == "array" %}
    {{- "list[" +  json_to_python_type(json_spec|items) + "]"}}
{%- elif json_spec.type == "object" %}
    {%- if json_spec.additionalProperties is defined %}
        {{- "dict[str, " + json_to_python_type(json_spec.additionalProperties) + ']'}}
    {%- else %}
        {{- "dict" }}
    {%- endif %}
{%- elif json_spec.type is iterable and json_spec.type is not string %}
    {{- "Union[" }}
    {%- for t in json_spec.type %}
      {{- json_to_python_type({"type": t}) }}
      {%- if not loop.last %}
        {{- "," }}
    {%- endif %}
    {%- endfor %}
    {{- "]" }}
{%- else %}
    {{- "Any" }}
{%- endif %}
{%- endmacro %}

{{- bos_token }}
{{- '<|im_start|>system\\n' }}
{{- "Functions: <tools> " }}
{%- for tool in tools or [] %}
    {%- if tool.function is defined %}
        {%- set tool = tool.function %}
    {%- endif %}
    {{- '{"type": "function", "function": ' }}
    {{- '{"name": "' + tool.name + '", ' }}
    {{- '"description": "' + tool.name + '(' }}
    {%- for param_name, param_fields in tool.parameters.properties|items %}
        {{- param_name + ": " + json_to_python_type(param_fields) }}
        {%- if not loop.last %}
            {{- ", " }}
        {%- endif %}
    {%- endfor %}
    {{- ")" }}
    {%- if tool.return is defined %}
        {{- " -> " + json_to_python_type(tool.return) }}
    {%- endif %}
    {{- " - " + tool.description + "\\n\\n" }}
    {%- for param_name, param_fields in tool.parameters.properties|items %}
        {%- if loop.first %}
            {{- "    Args:\\n" }}
        {%- endif %}
        {{- "        " + param_name + "(" + json_to_python_type(param_fields) + "): " + (param_fields.description|default('none')|trim) }}
    {%- endfor %}
    {{- '", "parameters": ' }}
    {%- if tool.parameters.properties | length == 0 %}
        {{- "{}" }}
    {%- else %}
        {{- tool.parameters|tojson }}
    {%- endif %}
    {{- "}" }}
    {%- if not loop.last %}
        {{- "\\n" }}
    {%- endif %}
{%- endfor %}
{{- " </tools>" }}
{%- for message in messages %}
    {%- if message.role == "assistant" and message.tool_calls is defined %}
        {{- message.role }}
        {%- for tool_call in message.tool_calls %}
           {{- '\\n<tool_call>\\n' }}{%- if tool_call.function is defined %}{%- set tool_call = tool_call.function %}{%- endif %}
           {{- '{"name": "' ~ tool_call.name ~ '", "arguments": ' ~ tool_call.arguments|tojson(ensure_ascii=True) ~ '}' }}
        {%- endfor %}
    {%- elif message.role == "tool" %}
        {%- if loop.previtem and loop.previtem.role != "tool" %}
            {{- '<|im_start|>tool\\n' }}
        {%- endif %}
        {{- '<tool_response>\\n' ~ message.content }}
        {%- if not loop.last %}{{- '\\n</tool_response>\\n' }}{%- else %}{{- '\\n</tool_response>' }}{%- endif %}
        {%- if not loop.last and loop.nextitem.role != "tool" %}{{- '<|im_end|>' }}{%- elif loop.last %}{{- '<|im_end|>' }}{%- endif %}
    {%- else %}
        {{- '<|im_start|>' ~ message.role ~ '\\n' ~ message.content ~ '<|im_end|>' }}
    {%- endif %}
{%- endfor %}""",
}

# Families that came later; each with the conversations below, always asking for an answer.
LATER = {
"llama32": """{{- bos_token }}
{%- if custom_tools is defined and custom_tools %}
    {%- set tools = custom_tools %}
{%- endif %}
{%- set tools_in_user_message = tools_in_user_message if tools_in_user_message is defined else false %}
{%- set date_string = date_string | default(strftime_now("%d %b %Y"), true) %}
{%- if messages and messages[0].role in ('system', 'developer') %}
    {%- set system_message = messages[0].content if messages[0].content is string else messages[0].content[0].text %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{%- if not (tools is none and system_message == "") %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}
    {%- if tools is not none %}
        {{- "Environment: ipython\\n" }}
    {%- endif %}
    {{- "Knowledge ends: December 2023\\nToday: " + date_string + "\\n\\n" }}
    {%- if tools is not none and not tools_in_user_message %}
        {{- "These can be called. Answer with {\\"name\\": ..., \\"parameters\\": {...}} and no variables.\\n\\n" }}
        {%- for t in tools %}
            {{- t | tojson(indent=4) }}
            {{- "\\n\\n" }}
        {%- endfor %}
    {%- endif %}
    {{- system_message | trim }}
    {{- "<|eot_id|>" }}
{%- endif %}
{%- for message in messages %}
    {%- if message.role == 'tool' or message.role == 'ipython' %}
        {{- "<|start_header_id|>ipython<|end_header_id|>\\n\\n" }}
        {{- message.content if message.content is string else message.content | tojson }}
        {{- "<|eot_id|>" }}
    {%- elif message.tool_calls is defined and message.tool_calls %}
        {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' -}}
        {%- for call in message.tool_calls %}
            {%- set f = call.function or call %}
            {{- '{"name": "' ~ f.name ~ '", "parameters": ' ~ (f.arguments if f.arguments is string else f.arguments | tojson) ~ '}' }}
            {{- '; ' if not loop.last }}
        {%- endfor %}
        {{- "<|eot_id|>" }}
    {%- else %}
        {{- '<|start_header_id|>' + message.role + '<|end_header_id|>\\n\\n' }}
        {%- if message.content is string %}
            {{- message.content | trim }}
        {%- else %}
            {%- for part in message.content or [] %}
                {%- if part.type == 'image' %}{{ '<|image|>' }}{% elif part.type == 'text' %}{{ part.text }}{% endif %}
            {%- endfor %}
        {%- endif %}
        {{- '<|eot_id|>' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
""",

"mistral_tekken": """{%- set default_system = 'You are a careful assistant. It is ' + strftime_now('%Y-%m-%d') + '.' %}
{{- bos_token }}
{%- if messages and messages[0]['role'] == 'system' %}
    {%- if messages[0]['content'] is string %}
        {%- set system_message = messages[0]['content'] %}
    {%- else %}
        {%- set system_message = messages[0]['content'] | selectattr('type', 'equalto', 'text') | map(attribute='text') | join('') %}
    {%- endif %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set system_message = default_system %}
    {%- set loop_messages = messages %}
{%- endif %}
{{- '[SYSTEM_PROMPT]' + system_message + '[/SYSTEM_PROMPT]' }}
{%- set tools_written = namespace(done=false) %}
{%- macro block(part) -%}
    {%- if part.type == 'text' -%}{{ part.text }}{%- elif part.type in ['image', 'image_url'] -%}[IMG]{%- else -%}{{ raise_exception('Only text and images') }}{%- endif -%}
{%- endmacro %}
{%- for message in loop_messages %}
    {%- if message['role'] == 'user' %}
        {%- if tools is defined and tools is not none and not tools_written.done and loop_messages[loop.index0:] | selectattr('role', 'equalto', 'user') | list | length == 1 %}
            {{- '[AVAILABLE_TOOLS]' + (tools | tojson) + '[/AVAILABLE_TOOLS]' }}
            {%- set tools_written.done = true %}
        {%- endif %}
        {{- '[INST]' }}
        {%- if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}{{ block(part) }}{% endfor %}{% endif %}
        {{- '[/INST]' }}
    {%- elif message['role'] == 'assistant' %}
        {%- if message.tool_calls is defined and message.tool_calls is not none and message.tool_calls | length > 0 %}
            {%- for call in message.tool_calls %}
                {{- '[TOOL_CALLS]' + call.function.name + '[ARGS]' + (call.function.arguments if call.function.arguments is string else call.function.arguments | tojson) }}
            {%- endfor %}
            {{- eos_token }}
        {%- elif message['content'] is string %}
            {{- message['content'] + eos_token }}
        {%- endif %}
    {%- elif message['role'] == 'tool' %}
        {{- '[TOOL_RESULTS]' + (message.content | string) + '[/TOOL_RESULTS]' }}
    {%- elif message['role'] not in ['system', 'developer'] %}
        {{- raise_exception('Unknown role: ' + message['role']) }}
    {%- endif %}
{%- endfor %}""",

"deepseek_v3": """{%- if not add_generation_prompt is defined -%}{%- set add_generation_prompt = false -%}{%- endif -%}
{%- set ns = namespace(system='', in_user=false, in_tool=false, first_output=true) -%}
{%- for m in messages if m.role == 'system' -%}
    {%- set ns.system = ns.system ~ ('\\n\\n' if ns.system else '') ~ m.content -%}
{%- endfor -%}
{{ bos_token }}{{ ns.system }}
{%- if tools %}

## Tools

{% for tool in tools -%}
### {{ tool.function.name }}: {{ tool.function.description }}
{{ tool.function.parameters | tojson }}
{% endfor -%}
{%- endif -%}
{%- for m in messages -%}
    {%- if m.role == 'user' -%}
        {%- set ns.in_user = true -%}{%- set ns.in_tool = false -%}
        {{ '<\uff5cUser\uff5c>' ~ (m.content if m.content is string else m.content | map(attribute='text', default='') | join) }}
    {%- elif m.role == 'assistant' and m.tool_calls -%}
        {%- if ns.in_user or ns.in_tool -%}{{ '<\uff5cAssistant\uff5c>' }}{%- endif -%}
        {{ m.content or '' }}{{ '<\uff5ctool\u2581calls\u2581begin\uff5c>' }}
        {%- for call in m.tool_calls -%}
            {{ '\\n' if not loop.first }}{{ '<\uff5ctool\u2581call\u2581begin\uff5c>' ~ (call.type or 'function') ~ '<\uff5ctool\u2581sep\uff5c>' ~ call.function.name }}
            {{- '\\n```json\\n' ~ (call.function.arguments if call.function.arguments is string else call.function.arguments | tojson) ~ '\\n```<\uff5ctool\u2581call\u2581end\uff5c>' }}
        {%- endfor -%}
        {{ '<\uff5ctool\u2581calls\u2581end\uff5c>' ~ eos_token }}
        {%- set ns.in_user = false -%}
    {%- elif m.role == 'assistant' -%}
        {%- set content = m.content or '' -%}
        {%- if '</think>' in content -%}{%- set content = content.split('</think>', 1)[1] -%}{%- endif -%}
        {{ '<\uff5ctool\u2581outputs\u2581end\uff5c>' if ns.in_tool }}{{ ('' if ns.in_tool else '<\uff5cAssistant\uff5c>') ~ content.lstrip('\\n') ~ eos_token }}
        {%- set ns.in_tool = false -%}{%- set ns.first_output = true -%}
    {%- elif m.role == 'tool' -%}
        {{ '<\uff5ctool\u2581outputs\u2581begin\uff5c>' if ns.first_output else '\\n' }}{{ '<\uff5ctool\u2581output\u2581begin\uff5c>' ~ m.content ~ '<\uff5ctool\u2581output\u2581end\uff5c>' }}
        {%- set ns.in_tool = true -%}{%- set ns.first_output = false -%}
    {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{ '<\uff5ctool\u2581outputs\u2581end\uff5c>' if ns.in_tool else '<\uff5cAssistant\uff5c>' }}{{ '<think>\\n' if enable_thinking is not defined or enable_thinking }}
{%- endif -%}""",

"phi4_tools": """{%- set have_tools = tools is defined and tools is not none and tools | length > 0 -%}
{%- set state = namespace(tools_given=false) -%}
{%- for message in messages -%}
{%- if message['role'] == 'system' and have_tools and not state.tools_given -%}
{%- set state.tools_given = true -%}
{{ '<|system|>' + message['content'] + '<|tool|>' + tools | map(attribute='function') | list | tojson + '<|/tool|>' + '<|end|>' }}
{%- elif message['role'] == 'tool' -%}
{{ '<|tool_response|>' ~ message['content'] ~ '<|end|>' }}
{%- elif message['role'] == 'assistant' and message.get('tool_calls') -%}
{{ '<|assistant|>' }}<|tool_call|>[{% for c in message['tool_calls'] %}{{ {'name': c['function']['name'], 'arguments': c['function']['arguments']} | tojson }}{{ ', ' if not loop.last else '' }}{% endfor %}]<|/tool_call|><|end|>
{%- else -%}
{%- if message['content'] is string -%}
{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}
{%- else -%}
{{ '<|' + message['role'] + '|>' }}{% for p in message['content'] %}{{ p['text'] if p['type'] == 'text' else '<|image_' ~ loop.index ~ '|>' }}{% endfor %}<|end|>
{%- endif -%}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<|assistant|>' }}{%- else -%}{{ eos_token }}{%- endif -%}""",

"qwen3_coder": """{% macro extra_keys(of, handled) %}
    {%- if of is mapping %}
        {%- for key in of if key not in handled %}
            {%- if of[key] is mapping or (of[key] is sequence and of[key] is not string) %}
                {{- '\\n<' ~ key ~ '>' ~ (of[key] | tojson | safe) ~ '</' ~ key ~ '>' }}
            {%- else %}
                {{- '\\n<' ~ key ~ '>' ~ (of[key] | string) ~ '</' ~ key ~ '>' }}
            {%- endif %}
        {%- endfor %}
    {%- endif %}
{% endmacro %}
{%- if messages and messages[0]["role"] == "system" %}
    {%- set system_message = messages[0]["content"] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set loop_messages = messages %}
{%- endif %}
{%- if tools is not defined %}{%- set tools = [] %}{%- endif %}
{%- if system_message is defined %}
    {{- "<|im_start|>system\\n" + system_message }}
{%- elif tools is iterable and tools | length > 0 %}
    {{- "<|im_start|>system\\nYou work with functions." }}
{%- endif %}
{%- if tools is iterable and tools is not none and tools | length > 0 %}
    {{- "\\n\\n# Tools\\n\\n<tools>" }}
    {%- for tool in tools %}
        {%- if tool.function is defined %}{%- set tool = tool.function %}{%- endif %}
        {{- "\\n<function>\\n<name>" ~ tool.name ~ "</name>" }}
        {%- if tool.description is defined %}{{- '\\n<description>' ~ (tool.description | trim) ~ '</description>' }}{%- endif %}
        {{- '\\n<parameters>' }}
        {%- if tool.parameters is defined and tool.parameters is mapping and tool.parameters.properties is defined %}
            {%- for name, fields in tool.parameters.properties | items %}
                {{- '\\n<parameter>\\n<name>' ~ name ~ '</name>' }}
                {%- if fields.type is defined %}{{- '\\n<type>' ~ (fields.type | string) ~ '</type>' }}{%- endif %}
                {{- extra_keys(fields, ['name', 'type']) }}
                {{- '\\n</parameter>' }}
            {%- endfor %}
        {%- endif %}
        {{- extra_keys(tool.parameters, ['type', 'properties']) }}
        {{- '\\n</parameters>\\n</function>' }}
    {%- endfor %}
    {{- "\\n</tools>" }}
{%- endif %}
{%- if system_message is defined or (tools is iterable and tools | length > 0) %}{{- '<|im_end|>\\n' }}{%- endif %}
{%- for message in loop_messages %}
    {%- if message.role == "assistant" and message.tool_calls is defined and message.tool_calls is iterable and message.tool_calls | length > 0 %}
        {{- '<|im_start|>' + message.role }}
        {%- if message.content is defined and message.content is string and message.content | trim | length > 0 %}
            {{- '\\n' + message.content | trim + '\\n' }}
        {%- endif %}
        {%- for call in message.tool_calls %}
            {%- if call.function is defined %}{%- set call = call.function %}{%- endif %}
            {{- '\\n<tool_call>\\n<function=' + call.name + '>\\n' }}
            {%- if call.arguments is mapping %}
                {%- for key, value in call.arguments | items %}
                    {{- '<parameter=' + key + '>\\n' }}
                    {%- set value = value | tojson | safe if value is mapping or (value is sequence and value is not string) else value | string %}
                    {{- value ~ '\\n</parameter>\\n' }}
                {%- endfor %}
            {%- endif %}
            {{- '</function>\\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\\n' }}
    {%- elif message.role == "tool" %}
        {%- if loop.previtem and loop.previtem.role != "tool" %}{{- '<|im_start|>user\\n' }}{%- endif %}
        {{- '<tool_response>\\n' ~ message.content ~ '\\n</tool_response>\\n' }}
        {%- if not loop.last and loop.nextitem.role != "tool" or loop.last %}{{- '<|im_end|>\\n' }}{%- endif %}
    {%- else %}
        {{- '<|im_start|>' + message.role + '\\n' ~ message.content ~ '<|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}
""",

"harmony": """{#- Types of arguments in the manner of TypeScript. -#}
{%- macro ts_type(spec, required, nullable=false) -%}
    {%- if spec.type == "array" -%}
        {%- if spec['items'] -%}
            {%- set inner = ts_type(spec['items'], required) -%}
            {{- inner + "[]" if inner | length < 50 and '|' not in inner else "Array<" + inner + ">" }}
        {%- else -%}any[]{%- endif -%}
        {%- if nullable %} | null{%- endif -%}
    {%- elif spec.type is defined and spec.type is iterable and spec.type is not string -%}
        {%- if "object" in spec.type and spec.type[0] == "object" -%}
            {{- spec.type | join(" | ") | replace("object", "Record<string, any>") }}
        {%- else -%}{{- spec.type | join(" | ") | replace("integer", "number") }}{%- endif -%}
    {%- elif spec.oneOf or spec.anyOf -%}
        {%- for variant in spec.oneOf or spec.anyOf -%}
            {{- ts_type(variant, required) }}{% if variant.description %}{{ " // " ~ variant.description }}{% endif %}{{ " | " if not loop.last }}
        {%- endfor -%}
    {%- elif spec.type == "string" -%}
        {%- if spec.enum -%}{{- '"' + spec.enum | join('" | "') + '"' -}}{%- else -%}string{%- if nullable %} | null{%- endif -%}{%- endif -%}
    {%- elif spec.type in ["number", "integer"] -%}number
    {%- elif spec.type == "boolean" -%}boolean
    {%- elif spec.type == "object" and spec.properties -%}
        {{- "{\\n" }}
        {%- for name, sub in spec.properties.items() -%}
            {{- "  " ~ name ~ ("?" if name not in (spec.required or []) else "") ~ ": " ~ ts_type(sub, spec.required or []) }}{{ ", " if not loop.last }}
        {%- endfor -%}{{ "}" }}
    {%- elif spec.type == "object" -%}object{%- else -%}any{%- endif -%}
{%- endmacro -%}
{%- macro namespace_of(name, list) -%}
    {{- "## " + name + "\\n\\nnamespace " + name + " {\\n\\n" }}
    {%- for tool in list %}
        {%- set tool = tool.function %}
        {{- "// " + (tool.description or '') + "\\ntype " + tool.name + " = " }}
        {%- if tool.parameters and tool.parameters.properties %}
            {{- "(_: {\\n" }}
            {%- for param, spec in tool.parameters.properties.items() %}
                {%- if spec.description %}{{- "// " ~ spec.description ~ "\\n" }}{%- endif %}
                {{- param ~ ("?" if param not in (tool.parameters.required or []) else "") ~ ": " ~ ts_type(spec, tool.parameters.required or []) }}
                {%- if spec.default is defined %}
                    {%- if spec.enum %}{{- ", // default: " ~ spec.default }}{%- elif spec.default is string %}{{- ', // default: "' ~ spec.default ~ '"' }}{%- else %}{{- ", // default: " ~ spec.default | tojson }}{%- endif %}
                {%- endif %}
                {{- ",\\n" if not loop.last else "\\n" }}
            {%- endfor %}
            {{- "}) => any;\\n\\n" }}
        {%- else %}{{- "() => any;\\n\\n" }}{%- endif %}
    {%- endfor %}
    {{- "} // namespace " + name }}
{%- endmacro -%}
{%- macro system() -%}
    {{- (model_identity or "You are a model.") ~ "\\nNow: " ~ strftime_now("%Y-%m-%d") ~ "\\n\\nReasoning: " ~ (reasoning_effort | default("medium")) ~ "\\n\\n# Valid channels: analysis, commentary, final." }}
    {%- if tools %}{{- "\\nCalls to these tools go to the commentary channel: 'functions'." }}{%- endif %}
{%- endmacro -%}
{{- "<|start|>system<|message|>" ~ system() ~ "<|end|>" }}
{%- if messages and messages[0].role in ("developer", "system") %}
    {%- set developer = messages[0].content %}{%- set loop_messages = messages[1:] %}
{%- else %}{%- set developer = "" %}{%- set loop_messages = messages %}{%- endif %}
{%- if developer or tools %}
    {{- "<|start|>developer<|message|>" }}
    {%- if developer %}{{- "# Instructions\\n\\n" ~ developer }}{%- endif %}
    {%- if tools %}{{- ("\\n\\n" if developer else "") ~ "# Tools\\n\\n" ~ namespace_of("functions", tools) }}{%- endif %}
    {{- "<|end|>" }}
{%- endif %}
{%- set last = namespace(call=none) %}
{%- for m in loop_messages %}
    {%- if m.role == 'assistant' and 'tool_calls' in m %}
        {%- set f = m.tool_calls[0].function %}{%- set last.call = f.name %}
        {%- if m.content or m.thinking %}{{- "<|start|>assistant<|channel|>analysis<|message|>" ~ (m.thinking or m.content) ~ "<|end|>" }}{%- endif %}
        {{- "<|start|>assistant to=functions." ~ f.name ~ "<|channel|>commentary json<|message|>" ~ (f.arguments if f.arguments is string else f.arguments | tojson) ~ "<|call|>" }}
    {%- elif m.role == 'assistant' %}
        {%- set last.call = none %}
        {{- "<|start|>assistant<|channel|>final<|message|>" ~ m.content ~ ("<|return|>" if loop.last and not add_generation_prompt else "<|end|>") }}
    {%- elif m.role == 'tool' %}
        {%- if last.call is none %}{{- raise_exception("A tool's answer, but no call before it") }}{%- endif %}
        {{- "<|start|>functions." ~ last.call ~ " to=assistant<|channel|>commentary<|message|>" ~ m.content | tojson ~ "<|end|>" }}
    {%- elif m.role == 'user' %}
        {{- "<|start|>user<|message|>" ~ (m.content if m.content is string else m.content | tojson) ~ "<|end|>" }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}<|start|>assistant{% endif %}""",

"granite": """{%- set system_message = none %}
{%- if messages and messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content'] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set loop_messages = messages %}
    {%- set system_message = "Knowledge: April 2024.\\nToday: " ~ strftime_now('%B %d, %Y') ~ "." %}
    {%- if tools and documents %}{%- set system_message = system_message ~ ' Use the tools; facts are in the documents.' %}
    {%- elif tools %}{%- set system_message = system_message ~ ' Use the tools.' %}
    {%- elif documents %}{%- set system_message = system_message ~ ' Facts are in the documents.' %}{%- endif %}
{%- endif %}
{{- '<|start_of_role|>system<|end_of_role|>' + system_message + '<|end_of_text|>\\n' }}
{%- if tools %}
    {{- '<|start_of_role|>tools<|end_of_role|>' }}
    {{- tools | tojson(indent=2) }}
    {{- '<|end_of_text|>\\n' }}
{%- endif %}
{%- for document in documents or [] %}
    {{- '<|start_of_role|>document {"id": "' ~ (document.id or document['doc_id'] or loop.index) ~ '"}<|end_of_role|>\\n' ~ document['text'] | wordcount ~ ' words\\n' ~ document['text'] ~ '<|end_of_text|>\\n' }}
{%- endfor %}
{%- for message in loop_messages %}
    {%- generation %}
    {{- '<|start_of_role|>' + message['role'] + '<|end_of_role|>' ~ (message['content'] if message['content'] is string else message['content'] | tojson) ~ '<|end_of_text|>\\n' }}
    {%- endgeneration %}
    {%- if loop.last and add_generation_prompt %}
        {{- '<|start_of_role|>assistant' }}
        {%- if controls %}{{- ' ' + controls | tojson }}{%- endif %}
        {{- '<|end_of_role|>' }}
    {%- endif %}
{%- endfor %}""",

"smol": """{%- if enable_thinking is not defined -%}{%- set enable_thinking = true -%}{%- endif -%}
{%- if messages and messages[0].role == "system" -%}
    {%- set system_message = messages[0].content -%}
    {%- if "/no_think" in system_message -%}{%- set mode = "/no_think" -%}
    {%- elif "/think" in system_message -%}{%- set mode = "/think" -%}
    {%- else -%}{%- set mode = "/think" if enable_thinking else "/no_think" -%}{%- endif -%}
    {%- set custom = system_message.replace("/no_think", "").replace("/think", "").rstrip() -%}
{%- else -%}
    {%- set mode = "/think" if enable_thinking else "/no_think" -%}{%- set custom = "" -%}
{%- endif -%}
<|im_start|>system
## Metadata

Date: {{ strftime_now("%d %B %Y") }}
Mode: {{ mode }}

## Instructions

{% if custom -%}
    {{ custom + "\\n\\n" }}
{%- elif mode == "/think" -%}
    {{ "Think within <think> and </think>, then answer.\\n\\n" }}
{%- endif -%}
{%- if xml_tools or python_tools or tools -%}
    {{ "### Tools\\n\\n" }}
    {%- set list = xml_tools or tools or python_tools -%}
    <tools>
    {%- for tool in list %}
        {{- "\\n" }}{{ (tool.function if tool.function is defined else tool) | string }}
    {%- endfor %}
    {{- "\\n</tools>\\n\\n" }}
{%- endif -%}
<|im_end|>
{# a line of its own -#}
{%- for message in messages -%}
    {%- set content = message.content if message.content is string else "" -%}
    {%- if message.role == "user" -%}
        {{ "<|im_start|>user\\n" + content + "<|im_end|>\\n" }}
    {%- elif message.role == "assistant" -%}
        {% generation %}
        {%- if mode == "/think" -%}
            {{ "<|im_start|>assistant\\n" + content.lstrip("\\n") + "<|im_end|>\\n" }}
        {%- else -%}
            {{ "<|im_start|>assistant\\n<think>\\n\\n</think>\\n" + content.lstrip("\\n") + "<|im_end|>\\n" }}
        {%- endif -%}
        {% endgeneration %}
    {%- elif message.role == "tool" -%}
        {{ "<|im_start|>user\\n" ~ message.content ~ "<|im_end|>\\n" }}
    {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{ "<|im_start|>assistant\\n" if mode == "/think" else "<|im_start|>assistant\\n<think>\\n\\n</think>\\n" }}
{%- endif -%}""",

"glm": """[gMASK]<sop>
{%- macro visible_text(content) -%}
    {%- if content is string -%}{{- content }}
    {%- elif content is iterable and content is not mapping -%}
        {%- for item in content -%}{%- if item is mapping and item.type == 'text' -%}{{- item.text }}{%- elif item is string -%}{{- item }}{%- endif -%}{%- endfor -%}
    {%- else -%}{{- content }}{%- endif -%}
{%- endmacro -%}
{%- if tools -%}<|system|>
# Tools

{% for tool in tools %}
{{ tool | tojson(ensure_ascii=False) }}
{% endfor %}
{%- endif -%}
{%- set ns = namespace(last_user=-1) %}
{%- for m in messages %}{%- if m.role == 'user' %}{% set ns.last_user = loop.index0 -%}{%- endif %}{%- endfor %}
{%- for m in messages %}
{%- if m.role == 'user' -%}<|user|>
{{ visible_text(m.content) }}
{{- '/nothink' if (enable_thinking is defined and not enable_thinking and not visible_text(m.content).endswith("/nothink")) else '' -}}
{%- elif m.role == 'assistant' -%}<|assistant|>
{%- set reasoning = '' %}{%- set content = visible_text(m.content) %}
{%- if m.reasoning_content is string %}{%- set reasoning = m.reasoning_content %}
{%- elif '</think>' in content %}
    {%- set reasoning = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
    {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
{%- endif %}
{%- if loop.index0 > ns.last_user and reasoning -%}{{ '\\n<think>' + reasoning.strip() +  '</think>'}}{%- else -%}{{ '\\n<think></think>' }}{%- endif -%}
{%- if content.strip() -%}{{ '\\n' + content.strip() }}{%- endif -%}
{% if m.tool_calls %}{% for tc in m.tool_calls %}{%- if tc.function %}{%- set tc = tc.function %}{%- endif %}
{{ '\\n<tool_call>' + tc.name }}
{% set args = tc.arguments %}{% if args is mapping %}{% for k, v in args.items() %}
<arg_key>{{ k }}</arg_key>
<arg_value>{{ v | tojson(ensure_ascii=False) if v is not string else v }}</arg_value>
{% endfor %}{% endif %}
</tool_call>{% endfor %}{% endif %}
{%- elif m.role == 'tool' -%}
{%- if loop.first or (messages[loop.index0 - 1].role != "tool") %}{{- '<|observation|>' }}{%- endif %}
{{- '\\n<tool_response>\\n' }}{{- m.content if m.content is string else m.content | tojson }}{{- '\\n</tool_response>' }}
{%- elif m.role == 'system' -%}<|system|>
{{ visible_text(m.content) }}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
    <|assistant|>{{- '\\n<think></think>' if (enable_thinking is defined and not enable_thinking) else '' -}}
{%- endif -%}""",

"gemma_tools": """{{ bos_token }}
{%- macro declare(f) -%}
def {{ f.name }}({% for name, p in f.parameters.properties | dictsort %}{{ name }}: {{ {'string': 'str', 'integer': 'int', 'number': 'float', 'boolean': 'bool', 'array': 'list', 'object': 'dict'}.get(p.type if p.type is string else 'any', 'Any') }}{{ ' = ' ~ p.default if 'default' in p and p.default is not none }}{{ ', ' if not loop.last }}{% endfor %}):
    \\"\\"\\"{{ (f.description or 'No description.') | replace('"', "'") }}\\"\\"\\"
{%- endmacro -%}
{%- set first = namespace(prefix='') -%}
{%- for m in messages if m.role in ('system', 'developer') -%}{%- set first.prefix = first.prefix ~ m.content ~ '\\n\\n' -%}{%- endfor -%}
{%- if tools -%}{%- set first.prefix = first.prefix ~ '```python\\n' ~ (tools | map(attribute='function') | map(attribute='name') | sort | join(', ')) ~ '\\n' -%}
{%- for t in tools -%}{%- set first.prefix = first.prefix ~ declare(t.function) ~ '\\n' -%}{%- endfor -%}{%- set first.prefix = first.prefix ~ '```\\n' -%}{%- endif -%}
{%- for m in messages if m.role not in ('system', 'developer') -%}
<start_of_turn>{{ {'assistant': 'model', 'tool': 'user'}.get(m.role, m.role) }}
{{ first.prefix if loop.first }}
{%- if m.tool_calls -%}```tool_code
{% for c in m.tool_calls %}{{ c.function.name }}({% if c.function.arguments is mapping %}{% for k, v in c.function.arguments.items() %}{{ k }}={{ v | tojson }}{{ ', ' if not loop.last }}{% endfor %}{% endif %}){{ '\\n' if not loop.last }}{% endfor %}
```
{%- elif m.role == 'tool' -%}```tool_output
{{ m.content }}
```
{%- else -%}{{ (m.content if m.content is string else m.content | selectattr('text', 'defined') | map(attribute='text') | join(' ')) | trim }}{%- endif -%}
<end_of_turn>
{% endfor -%}
{%- if add_generation_prompt -%}<start_of_turn>model
{% endif -%}""",
}

NESTED = {"type": "function", "function": {
    "name": "book", "description": "Books \u6c34 rooms", "parameters": {"type": "object", "required": ["guests", "when"], "properties": {
        "guests": {"type": "array", "items": {"type": "object", "properties": {"name": {"type": "string"}, "age": {"type": "integer"}}, "required": ["name"]}},
        "when": {"type": "object", "properties": {"from": {"type": "string", "format": "date"}, "nights": {"type": "number"}}},
        "kind": {"type": "string", "enum": ["single", "double"], "default": "single", "description": "the room's kind"},
        "notes": {"anyOf": [{"type": "string", "description": "free"}, {"type": "null"}]}, "tags": {"type": "array", "items": {"type": "string"}}}}}}
LATER_TALKS = {
    "user": CONVERSATIONS["user"], "turns": CONVERSATIONS["turns"], "think": CONVERSATIONS["think"], "parts": CONVERSATIONS["parts"],
    "tools": CONVERSATIONS["tools"], "tools_json": CONVERSATIONS["tools_json"], "empty": CONVERSATIONS["empty"],
    "parallel": dict(messages=[msg("developer", "Be exact."), msg("user", "Both?"),
                               msg("assistant", "I look.", tool_calls=[CALL, {"type": "function", "id": "c23456789", "function": {
                                   "name": "book", "arguments": {"guests": [{"name": "\u00c5sa \"A\"", "age": 7}], "when": {"nights": 1.5}, "tags": []}}}]),
                               msg("tool", "21 <b>", name="get_weather"), msg("tool", "ok\n", name="book"), msg("assistant", "Done: \U0001f30a"),
                               msg("user", "More /no_think")], tools=[NESTED, TOOL, TOOL2]),
    "documents": dict(messages=[msg("system", "Read. /think"), msg("user", "Which?"), msg("assistant", ""), msg("user", "\u00bfY?")],
                      documents=[{"title": "one", "text": "The weir  holds.\nStill."}, {"doc_id": 7, "text": ""}], controls={"length": "short"}),
    "quiet": dict(messages=[msg("user", "Hm?"), msg("assistant", "<think>\nx\n</think>\n\nNo.", tool_calls=[])], enable_thinking=False),
}

# One line a corner; each renders with the variables of CORNER.
CORNER = dict(
    messages=[msg("user", "hi"), msg("assistant", "yo"), msg("user", "bye")], s="Hello W\u00f6rld", empty="", n=7, f=2.5, big=1e20, small=1e-7,
    neg=-3, yes=True, no=False, nothing=None, l=[3, 1, 2], words=["pear", "Apple", "fig", "apple"], d={"b": 1, "a": [1, {"x": None}], "C": "q'\"\n"},
    people=[{"name": "Bo", "age": 30, "tags": ["x", "y"]}, {"name": "al", "age": 25, "tags": []}, {"name": "Cy", "age": 30}],
    nested={"k": {"v": [10, 20, {"z": "deep"}]}}, text="one two  three\nfour\r\nfive\x0bsix", html="<a href='x'>&</a>", uni="\u6c34\U0001f30a\u00e9\u00df",
    ints=[1, 2, 3, 4, 5, 6, 7], pairs=[["a", 1], ["b", 2]], spaced="  \t pad \n ", title="they're bill's-friends (from UK) it's")
CORNERS = r"""{{ s }}|{{ empty }}|{{ n }}|{{ f }}|{{ big }}|{{ small }}|{{ neg }}|{{ yes }}|{{ no }}|{{ nothing }}|{{ missing }}|
{{ l }} {{ d }} {{ (1,) }} {{ () }} {{ (1, 'a') }} {{ [] }} {{ {} }} {{ [none, true, 1.0, "it's", 'q"', "\n\t\\"] }} {{ uni }} {{ [uni] }}
{{ 1 + 2 * 3 - 4 }} {{ 7 / 2 }} {{ 7 // 2 }} {{ -7 // 2 }} {{ 7 % 3 }} {{ -7 % 3 }} {{ 2 ** 10 }} {{ 2 ** -1 }} {{ 1.5 + 1 }} {{ 6 / 3 }} {{ 7.5 // 2 }} {{ -7.5 % 2 }} {{ 3 * 'ab' }} {{ [1] * 2 }} {{ 'a' + 'b' }} {{ [1] + [2] }} {{ (1,) + (2,) }} {{ true + 1 }}
{{ 1 ~ 'a' ~ none ~ 2.0 ~ missing ~ [1] }} {{ 'a' 'b' "c" }} {{ 1_000 }} {{ 0x1f }} {{ 0b101 }} {{ 0o17 }} {{ 1e3 }} {{ 1.5e-3 }} {{ 12345678901234567 }} {{ 0.1 + 0.2 }} {{ 1e16 }} {{ 123456789.123 }} {{ 1e15 }} {{ 0.0001 }} {{ 0.00001 }} {{ 100.0 }} {{ -0.0 }}
{{ 'esc: \n\t\\ \' \" \x41 \u00e9 \q' }} {{ "a\
b" }}
{{ 1 == 1.0 }} {{ 1 == '1' }} {{ 'a' < 'b' }} {{ 1 < 2 < 3 }} {{ 1 < 3 < 2 }} {{ [1, 2] < [1, 3] }} {{ none == none }} {{ missing == missing2 }} {{ {'a': 1} == {'a': 1.0} }} {{ 'a' in 'cat' }} {{ 'z' not in 'cat' }} {{ 2 in l }} {{ 'b' in d }} {{ 'x' in missing }} {{ true == 1 }} {{ not 0 }} {{ not 'a' }}
{{ yes and 'x' }} {{ no and 'x' }} {{ no or 'y' }} {{ '' or none or 'z' }} {{ 'a' if yes else 'b' }} {{ 'a' if no else 'b' }} {{ 'a' if no }} {{ 1 if no else 2 if no else 3 }} {{ not yes or yes }} {{ (not yes) == no }}
{{ l[0] }} {{ l[-1] }} {{ l[9] }} {{ l[1:] }} {{ l[:-1] }} {{ l[::-1] }} {{ l[::2] }} {{ l[5:] }} {{ l[-2:] }} {{ l[2:0:-1] }} {{ s[0] }} {{ s[-1] }} {{ s[1:4] }} {{ s[::-1] }} {{ uni[0] }} {{ uni[1:] }} {{ uni[::2] }} {{ s[99] }} {{ s[:99] }} {{ s[:none] }} {{ (1,2,3)[1:] }}
{{ d.b }} {{ d['b'] }} {{ d.a[1].x }} {{ d.zzz }} {{ d['zzz'] }} {{ nested.k.v[2].z }} {{ nested['k']['v'].0 }} {{ d.a.1 }} {{ nothing.x }} {{ n.x }} {{ s.nope }} {{ d.get('b') }} {{ d.get('q') }} {{ d.get('q', 'dflt') }} {{ d.keys()|list }} {{ d.values()|list }} {{ d.items()|list }} {{ d.items()|length }}
{{ s|upper }} {{ s|lower }} {{ s|title }} {{ s|capitalize }} {{ s|length }} {{ s|count }} {{ uni|length }} {{ uni|upper }} {{ s|reverse }} {{ spaced|trim }}| {{ 'xxaxx'|trim('x') }} {{ s|replace('l', 'L') }} {{ s|replace('l', 'L', 1) }} {{ s|first }} {{ s|last }} {{ l|first }} {{ l|last }} {{ []|first }} {{ title|title }} {{ title.title() }}
{{ l|sort }} {{ l|sort(reverse=true) }} {{ words|sort }} {{ words|sort(case_sensitive=true) }} {{ words|unique|list }} {{ l|sum }} {{ l|min }} {{ l|max }} {{ l|join }} {{ l|join(', ') }} {{ words|join('-') }} {{ people|join(',', attribute='name') }} {{ people|map(attribute='name')|list }} {{ people|map(attribute='tags', default='none')|list }} {{ words|map('upper')|join(' ') }} {{ l|map('string')|list }} {{ words|map('replace', 'p', 'P')|list }}
{{ ints|select('odd')|list }} {{ ints|reject('odd')|list }} {{ ints|select('gt', 3)|list }} {{ [0, 1, '', 'a', none]|select|list }} {{ [0, 1]|reject|list }} {{ people|selectattr('age', 'equalto', 30)|map(attribute='name')|list }} {{ people|rejectattr('tags')|map(attribute='name')|list }} {{ people|selectattr('tags', 'defined')|list|length }} {{ people|selectattr('name', 'in', ['Bo', 'Cy'])|list|length }} {{ people|sort(attribute='age,name'|replace(',name', ''))|map(attribute='name')|list }} {{ people|sum(attribute='age') }} {{ people|map(attribute='name')|sort|list }} {{ (people|max(attribute='age')).name }}
{{ d|dictsort }} {{ d|dictsort(true) }} {{ {'x': 2, 'y': 1}|dictsort(by='value') }} {{ d|items|list }} {{ d|list }} {{ 'abc'|list }} {{ d|length }} {{ ints|batch(3)|list }} {{ ints|batch(3, 'z')|list }} {% for g in people|groupby('age') %}{{ g[0] }}:{{ g[1]|map(attribute='name')|join('+') }};{% endfor %}
{{ missing|default('D') }} {{ nothing|default('D') }} {{ nothing|default('D', true) }} {{ ''|d('E', boolean=true) }} {{ missing|d }} {{ n|d(1) }} {{ '42'|int }} {{ '4.7'|int }} {{ 'x'|int }} {{ 'x'|int(9) }} {{ ' 12 '|int }} {{ 4.9|int }} {{ 'ff'|int(base=16) }} {{ '2.5'|float }} {{ 'x'|float }} {{ 3|float }} {{ n|string ~ 'x' }} {{ neg|abs }} {{ f|round }} {{ 2.567|round(2) }} {{ 2.5|round }} {{ 3.5|round }} {{ 2.1|round(0, 'ceil') }} {{ 2.9|round(method='floor') }} {{ 5|round }} {{ true|int }}
{{ d|tojson }} {{ uni|tojson }} {{ '</script>\u2028\x7f\x01'|tojson }} {{ [1, 1.0, true, none, 'a']|tojson }} {{ (1, 2)|tojson }} {{ d|tojson(indent=2) }} {{ []|tojson(indent=2) }} {{ {}|tojson(indent=2) }} {{ d|tojson(sort_keys=true) }} {{ uni|tojson(ensure_ascii=true) }} {{ d|tojson(separators=(',', ':')) }} {{ {1: 2, none: 3, true: 4}|tojson }} {{ big|tojson }} {{ 1e16|tojson }}
{{ html|e }} {{ html|escape }} {{ html|safe }} {{ '%s is %d years, %.2f%% %5s|%-5s|%05d %x %r'|format('Bo', 30, 99.5, 'ab', 'cd', 42, 255, 'r') }} {{ '%s-%s' % ('a', 1) }} {{ '%s' % 'one' }} {{ '{} and {}'.format(1, 'two') }} {{ '{1} {0} {name}'.format(1, 2, name='N') }} {{ '{{}}'.format() }}
{{ text|indent }}|{{ text|indent(2, true) }}|{{ 'a\n\nb'|indent(2) }}|{{ 'a\n\nb'|indent(2, blank=true) }}|{{ 'a\nb'|indent('> ') }}|{{ 'ab'|center(7) }}| {{ text|wordcount }}
{{ s.upper() }} {{ s.lower() }} {{ s.title() }} {{ 'aBC dEF'.capitalize() }} {{ 'aBc'.swapcase() }} {{ spaced.strip() }}| {{ spaced.lstrip() }}| {{ spaced.rstrip() }}| {{ 'xyhixy'.strip('yx') }} {{ 'xyhixy'.lstrip('xy') }} {{ 'xyhixy'.rstrip('xy') }} {{ s.startswith('He') }} {{ s.endswith(('x', 'ld')) }} {{ s.find('W') }} {{ s.find('z') }} {{ s.rfind('l') }} {{ s.index('l') }} {{ s.count('l') }} {{ s.replace('l', '') }} {{ 'aaa'.replace('a', 'b', 2) }} {{ 'abc'.replace('', '-') }} {{ ''.replace('', '-') }}
{{ text.split() }} {{ 'a,b,,c'.split(',') }} {{ 'a,b,c'.split(',', 1) }} {{ 'a b  c '.split(' ') }} {{ ''.split() }} {{ ''.split(',') }} {{ 'a b c'.split(none, 1) }} {{ 'a,b,c'.rsplit(',', 1) }} {{ text.splitlines() }} {{ 'a\nb\n'.splitlines(true) }} {{ '-'.join(['a', 'b']) }} {{ 'a=b=c'.partition('=') }} {{ 'a=b=c'.rpartition('=') }} {{ 'abc'.partition('x') }} {{ 'abc'.removeprefix('a') }} {{ 'abc'.removesuffix('c') }} {{ '7'.zfill(3) }} {{ 'a'.ljust(3) }}| {{ 'a'.rjust(3, '.') }} {{ 'ab'.center(5, '*') }}
{{ '12'.isdigit() }} {{ '1a'.isdigit() }} {{ ''.isdigit() }} {{ 'ab'.isalpha() }} {{ 'a1'.isalnum() }} {{ ' \t'.isspace() }} {{ 'ab1'.islower() }} {{ 'AB'.isupper() }} {{ '1'.isupper() }} {{ [1, 2, 1].count(1) }} {{ [1, 2].index(2) }}
{{ missing is defined }} {{ n is defined }} {{ missing is undefined }} {{ nothing is none }} {{ n is none }} {{ s is string }} {{ n is number }} {{ yes is number }} {{ f is number }} {{ d is mapping }} {{ l is mapping }} {{ l is sequence }} {{ s is sequence }} {{ d is sequence }} {{ n is sequence }} {{ missing is sequence }} {{ l is iterable }} {{ s is iterable }} {{ n is iterable }} {{ missing is iterable }} {{ yes is boolean }} {{ n is boolean }} {{ yes is true }} {{ 1 is true }} {{ no is false }} {{ n is integer }} {{ yes is integer }} {{ f is float }} {{ n is odd }} {{ n is even }} {{ n is divisibleby 7 }} {{ n is divisibleby(2) }} {{ n is eq 7 }} {{ n is ne(7) }} {{ n is gt 3 }} {{ n is lt 3 }} {{ n is ge 7 }} {{ n is le 7 }} {{ n is in [7] }} {{ n is not in [7] }} {{ s is equalto 'x' }} {{ 'ab' is lower }} {{ 'AB' is upper }} {{ range is callable }} {{ n is sameas n }} {{ not missing is defined }} {{ n is not none and s is string }} {{ n is defined or s }} {{ 'upper' is filter }} {{ 'odd' is test }}
{% for x in l %}{{ loop.index }}{{ loop.index0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.previtem }}{{ loop.nextitem }}{{ loop.cycle('a', 'b') }}{{ loop.changed(x) }}{{ loop.depth }} {% endfor %}{% for x in [] %}no{% else %}none{% endfor %}{% for x in missing %}no{% else %}undef{% endfor %}
{% for k, v in d.items() %}{{ k }}={{ v }};{% endfor %}{% for k in d %}{{ k }}{% endfor %}{% for c in 'abc' %}{{ c }}.{% endfor %}{% for a, b in pairs %}{{ a }}{{ b }}{% endfor %}{% for (a, b), c in [[[1, 2], 3]] %}{{ a }}{{ b }}{{ c }}{% endfor %}{% for x in ints if x is odd %}{{ x }}{{ loop.length }}{{ loop.last }} {% endfor %}{% for i in range(3) %}{{ i }}{% endfor %}{% for i in range(2, 8, 3) %}{{ i }}{% endfor %}{% for i in range(3, 0, -1) %}{{ i }}{% endfor %}
{% for x in ints %}{% if x == 3 %}{% continue %}{% endif %}{% if x == 6 %}{% break %}{% endif %}{{ x }}{% endfor %} {% for a in l %}{% for b in l %}{% if b == 1 %}{% break %}{% endif %}{{ a }}{{ b }} {% endfor %}{{ loop.index }}{% endfor %}
{% set x = 1 %}{% for i in l %}{{ x }}{% set x = x + i %}{{ x }} {% endfor %}{{ x }} {% if yes %}{% set x = 5 %}{% endif %}{{ x }} {% set a, b = 1, 2 %}{{ a }}{{ b }} {% set (a, b) = (3, 4) %}{{ a }}{{ b }} {% set t = 1, 2 %}{{ t }} {% set ns = namespace(a=1) %}{% for i in l %}{% set ns.a = ns.a + i %}{% endfor %}{{ ns.a }} {% set ns.new = 'q' %}{{ ns.new }} {{ ns.zip }}
{% set block %}  in {{ n }} block {% endset %}[{{ block }}] {% set up | upper | trim %}  loud {% endset %}[{{ up }}] {% filter upper %}filter {{ s }}{% endfilter %} {% with a = 9, b = n %}{{ a }}{{ b }}{% endwith %}{{ a }} {% generation %}gen {% set q = 1 %}{{ n }}{% endgeneration %}{{ q }}
{% macro m(a, b=2, c='z') %}[{{ a }},{{ b }},{{ c }}]{% endmacro %}{{ m(1) }}{{ m(1, 3) }}{{ m(1, c=4) }}{{ m() }}{{ m(b=n, a=l) }} {% macro va(a) %}{{ a }}{{ varargs }}{{ kwargs }}{% endmacro %}{{ va(1, 2, 3, k=4) }} {% macro outer(x) %}<{{ x }}{{ caller() }}>{% endmacro %}{% call outer(1) %}body {{ n }}{% endcall %} {% macro cp() %}{{ caller('A', 2) }}{% endmacro %}{% call(p, q) cp() %}{{ p }}{{ q }}{% endcall %} {% macro rec(k) %}{{ k }}{% if k > 0 %}{{ rec(k - 1) }}{% endif %}{% endmacro %}{{ rec(4) }} {{ m(*[7, 8]) }} {{ m(**{'a': 5, 'b': 6}) }}
{% macro late() %}{{ lv }}{% endmacro %}{{ late() }}|{% set lv = 'L' %}{{ late() }}|{% for i in [1] %}{% set lv = 'I' %}{{ late() }}{% endfor %}
{% raw %}{{ not }} {% this %} {# kept #}{% endraw %}{# gone #}x{#- -#}  y {% raw -%}   z {%- endraw %} {{- ' w' -}}    v {{ dict(a=1, b=[2]) }} {{ dict({'x': 1}, y=2) }} {{ {'a': 1, 'a': 2} }} {{ {1: 'one', 'k': {'n': []}}[1] }}
{{ strftime_now('%Y-%m-%d %d %B %j') }} {{ range(3)|list }} {{ (1, 2, 3)|length }} {{ [[1, 2], [3]]|map('length')|list }} {{ [1, [2, (3,)]]|string }} {{ -n|abs }} {{ -(2 ** 2) }} {{ 2 ** 3 ** 2 }} {{ 10 - 2 - 3 }} {{ 'a' ~ 1 ~ 2 + 3 if no }} {{ 'abc'|center(2) }}{{ 'abcd'.center(1) }}{{ 'a'.ljust(0) }} {{ 0|map('upper')|list }} {{ none|select|list }} {{ 'a' % missing }} {{ 'a' % [1] }} {{ n|string|length + 1 }} {{ [1, 2, 3,] }} {{ {'a': 1,} }} {{ (n) }} {{ ((1)) }} {{ s|replace('o', '0')|upper|length }} {{ (s|upper)[0:2] }} {{ s.split(' ')[0].lower()|title }}
{%- if yes -%}  tight  {%- endif -%}  {{- 'x' -}}  done
{{ text|truncate(9) }}|{{ text|truncate(9, true) }}|{{ text|truncate(17) }}|{{ text|truncate(17, leeway=0) }}|{{ text|truncate(12, false, '~', 0) }}|{{ text|truncate(length=3, leeway=0) }}|{{ text|truncate(3, end='', leeway=0) }}|{{ uni|truncate(3, true, '', 0) }}|{{ 'abcdefghijkl'|truncate(6) }}|{{ 'abcdefghijkl'|truncate(7) }}|{{ ('ab ' * 100)|truncate|length }}|{{ ''|truncate(3) }}|{{ missing|truncate }}|{{ l|truncate }}|{{ ' abcdefghi'|truncate(4, leeway=0) }}|{{ uni|truncate(2, end='\u6c34', leeway=0) }}
{{ ints|slice(3)|list }} {{ ints|slice(3, 'z')|list }} {{ ints|slice(9)|list }} {{ []|slice(2, 0)|list }} {{ 'abcd'|slice(3)|list }} {{ ints|slice(-1)|list }} {% for column in ints|slice(2) %}{{ column|join }};{% endfor %}
{{ html|urlencode }} {{ uni|urlencode }} {{ 'a b/c?d=e&f~-._'|urlencode }} {{ {'a b': 'c/d', 'e': 5, 'f': none}|urlencode }} {{ pairs|urlencode }} {{ 7|urlencode }} {{ nothing|urlencode }} {{ missing|urlencode }}| {{ []|urlencode }}| {{ 'x\n\x01'|urlencode }} {{ html|forceescape }} {{ 'truncate' is filter }} {{ 'slice' is filter }} {{ 'nofilter' is filter }}
{% if [1]|select('none') %}T{% else %}F{% endif %}{% if []|map('upper') %}T{% endif %}{% if []|reverse %}T{% endif %}{{ 'x' if ints|select('gt', 100) else 'y' }}{{ not (ints|select('gt', 100)) }}{% if {}|items %}T{% endif %}{% for k, v in {'a': 1}|items %}{{ k }}{{ v }}{% endfor %} {{ ints|select('gt', 100)|default([], true)|list }}
{% set g = [3, 1, 2]|select('number') %}{{ g|first }},{{ g|first }},{{ g|list }},{{ g|list }},{{ g|first is defined }}|{% set g = ints|reject('odd') %}{% for x in g %}{{ x }}{{ loop.last }}{{ loop.length }};{% endfor %}{% for x in g %}{{ x }}{% else %}none{% endfor %}|{% set g = [1, 2, 3, 4]|select %}{{ 2 in g }} {{ 2 in g }} {{ g|list }}
{{ ints|select is iterable }} {{ ints|select is sequence }} {{ ints|select is string }} {{ ints|select is mapping }} {{ (ints|select)[0] is defined }} {{ ints|select is sameas ints }} {{ [1]|select == [1]|select }} {{ ints|select|reverse|list }} {{ ints|reverse|first }} {{ ints|select|sort }} {{ ints|select|sum }} {{ ints|select|join(',') }} {{ ints|batch(2)|first }} {{ ints|unique|max }}
{% set a, b = [1, 2]|select %}{{ a }}{{ b }}{% macro m() %}{{ varargs }}{% endmacro %}{{ m(*([1, 2]|select)) }} {{ ints|select|select|map('string')|map('upper')|reject('none')|unique|list }} {{ missing|reverse|list }} {{ 'abc'|reverse }} {{ {'a': 1, 'b': 2}|reverse|list }} {{ [[2, 1], [1, 5]]|select|groupby(0) }} {{ {(ints|select): 1}|length }} {{ ints|select('in', [1, 2]|select)|list }}
{% set a = 'x' * 2000 + '.' %}{% set b = a + 'one' %}{% set c = a + 'another' %}{% set d = b + '!' %}{% set e = b ~ '?' ~ 1 %}{% set f = a ~ a %}{{ a[-3:] }} {{ b[-5:] }} {{ c[-8:] }} {{ d[-5:] }} {{ e[-6:] }} {{ f[-2:] }} {{ [a, b, c, d, e, f]|map('length')|join(',') }} {% set ns = namespace(s=a) %}{% for i in range(300) %}{% set ns.s = ns.s + 'piece ' ~ i %}{% endfor %}{{ ns.s[-40:] }} {{ ns.s|length }}
{{ ' a b  c \n'.split(none, 1) }} {{ 'a  '.split(none, 1) }} {{ ' a b  c \n'.split(none, 2) }} {{ ' a b  c \n'.split() }} {{ '  '.split(none, 0) }} {{ ' a b '.split(none, 0) }}
{% for x in [{'n': 1, 'c': [{'n': 2, 'c': []}, {'n': 3, 'c': [{'n': 4, 'c': []}]}]}, {'n': 5, 'c': []}] recursive %}{{ loop.depth }}{{ loop.depth0 }}{{ loop.index }}/{{ loop.length }}{{ loop.last }}:{{ x.n }}({{ loop(x.c) }}){% else %}none{% endfor %}
{% for x in [1, [2, 3, [4, 5], 3], 6] if x != 3 recursive %}{% if x is iterable %}[{{ loop(x) }}]{% else %}{{ x }}{{ ',' if not loop.last }}{% endif %}{% endfor %} {% for x in [] recursive %}x{% else %}empty{% endfor %} {% for x in 1, 2, recursive %}{{ x }}{{ loop.depth }}{% endfor %} {% for a, b in pairs recursive %}{{ a }}{{ b }}{{ loop([['z', 9]]) if loop.depth == 1 }}{% endfor %}
{% set y = 'o' %}{% for x in [[1, []], [2, [[3, []]]]] recursive %}{{ y }}{% set y = x[0] %}{{ y }}{{ loop(x[1]) }}{{ y }}{% endfor %}{{ y }} {% for x in [[1, 2], []] recursive %}{% set outer = loop %}{% for i in [1, 2] %}{{ loop.index }}{{ outer.index }}{{ outer.depth }}{{ loop.depth }}{% endfor %}{% if loop.first %}{{ outer(x and [[]]) }}{% endif %};{% endfor %}
{% for x in [1, 2, [3, 4, 5], 6] recursive %}{% if x is iterable %}{{ loop(x) }}{% continue %}{% endif %}{% if x == 4 %}{% break %}{% endif %}{{ x }}{% endfor %} {% for x in ['a', ['b', ['c']]] recursive %}{% if x is string %}{{ x }}{% else %}{{ loop(x)|upper ~ '!' }}{% set t = loop(iterable=x) %}{{ t|length }}{{ t is string }}{% endif %}{% endfor %} {% for x in {'k': 1} recursive %}{{ x }}{{ loop('ab') if loop.depth < 2 }}{{ loop([7]|select) if loop.depth < 2 }}{{ loop(missing) }}{% endfor %}
{% set ns = namespace() %}{% for x in [[1], 2] recursive %}{% set ns.l = loop %}{{ x }}{% endfor %}{{ ns.l.index }}{{ ns.l([5]) }}{{ ns.l.index }}{{ ns.l.depth }}{{ ns.l.last }} {% macro walk(l, x) %}<{{ l(x) }}>{% endmacro %}{% for x in [[1, [2]], 3] recursive %}{% if x is iterable %}{{ walk(loop, x) }}{% else %}{{ x }}{{ loop.previtem }}{{ loop.nextitem }}{{ loop.changed(x) }}{{ loop.cycle('p', 'q') }}{% endif %}{% endfor %} {% for x in [1] %}{{ loop is callable }}{{ loop is iterable }}{% endfor %}
{% set c = cycler('a', 2, none) %}{{ c.next() }}{{ c.next() }}{{ c.current }}{{ c.next() }}{{ c.next() }}{{ c.pos }}{{ c.items }}{{ c.reset() }}{{ c.next() }}{% for i in range(5) %}{{ c.next() }}{% endfor %}{{ c is defined }}{{ c is iterable }}{{ c is callable }}{{ c is sequence }}{{ c is mapping }}{{ c == c }}{{ c == cycler('a', 2, none) }}{{ c is sameas c }}{{ c['current'] }}{{ c|attr('pos') }}{{ c.nope is defined }}{{ cycler is callable }}{{ cycler is defined }}{{ cycler(*[1, 2]).next() }}{{ 'x' if c }}{% set f = c.next %}{{ f() }}{{ f() }}{{ {c: 1}[c] }}
{% set j = joiner() %}{{ j() }}a{{ j() }}b{{ j.used }}{{ j.sep }}{% set k = joiner(' | ') %}{% for i in l %}{{ k() }}{{ i }}{% endfor %}{{ joiner(sep=1).used }}{{ joiner is callable }}{{ k is callable }}{{ k is iterable }}{{ k == k }}{{ k == j }}{% set m = joiner(none) %}{{ m() }}{{ m() }}{{ m.nope is defined }}{{ 'x' if m }}{% set cycler = 'mine' %}{{ cycler }}{% set joiner = 3 %}{{ joiner + 1 }}
{{ {'class': 'a "b" <c>', 'n': 1, 'f': 2.5, 'none': none, 'u': missing, 'l': [1, "it's"], 'k&"': uni, 'b': true}|xmlattr }}|{{ {}|xmlattr }}|{{ {'a': none}|xmlattr }}|{{ {'a': 1, 'b': 2}|xmlattr(false) }}|{{ {'a': 1}|xmlattr(autospace=0) }}|{{ {'': ''}|xmlattr }}|{{ {'': '', 'x': html}|xmlattr(no) }}|<p{{ dict(id='x')|xmlattr }}>
{% for x in [0, 1, 1.0, -1, -0.5, -0.0, 0.5, 1.5, 999, 999.9, 1000, 1023, 1024, 1025, 1500, 999949, 999950, 999999, 1000000, 123456789, 1e9, 1e12, 1e15, 1e18, 1e21, 1e24, 9.9e23, 1.1e24, 1e25, 1e27, 1e30, 1e300, -1e20, true, '1234567', ' 12 ', '1e6', 'nan', 'inf', 1048576, 1073741823, 1073741824] %}{{ x|filesizeformat }},{{ x|filesizeformat(true) }};{% endfor %}{{ 5000|filesizeformat(binary=1) }}
{% for t in ['Look, goof-ball -- use the -b option!', 'a  b\t\tc   d', '  lead and trail  ', 'averyveryverylongword and-hyphen-ated-words-too', 'x--y a--b--c well---done? yes!--no "quoted"--text', 'e-mail is-it a-b-c-d-e ab-cd-12 1-2-3 x-ray', '', ' ', '-', '---', '----- -a- -- --x', 'a-' * 9, uni ~ ' ' ~ uni ~ '-' ~ uni, 'caf\u00e9-\u6c34\u6c34-na\u00efve--\u00fcber \u00b2\u00b2-\u2167x', '\u3000wide\u00a0space \u3000 end', 'one\ntwo three four\n\n five--six\r\nseven-eight\u2028nine'] %}{% for w in [1, 2, 3, 4, 5, 6, 7, 9, 11, 14, 20, 79] %}{{ t|wordwrap(w) }}~{{ t|wordwrap(w, false) }}~{{ t|wordwrap(w, true, '|', false) }}~{{ t|wordwrap(w, false, '', false) }}~{{ t|wordwrap(w, break_on_hyphens=1) }};{% endfor %}{% endfor %}
{{ ('word ' * 40)|wordwrap }}|{{ text|wordwrap(wrapstring='<br>', width=6) }}|{{ ('-' * 30)|wordwrap(7) }}|{{ ('ab-' * 30)|wordwrap(7) }}|{{ ('--a' * 9)|wordwrap(4) }}|{{ 'a b'|wordwrap(true) }}|{{ ''|wordwrap(0) }}|{{ title|wordwrap(5, wrapstring=none) }}|{{ "don't--stop & go--on 9--a _--_"|wordwrap(3) }}|{{ 'a--b'|wordwrap(9)|upper }}""".split("\n")
# Newlines and indentation; each is a template of its own.
LAYOUT = ["a\n{% if yes %}\nb\n{% endif %}\nc\n", "a\n  {% if yes %}  \n  b\n  {% endif %}\n  c\n\n", "  {% if yes %}x{% endif %}\n", "x  {% if yes %}y{% endif %}  \n z",
          "a\n\t {%- if yes %} b {%- endif %}\n c", "a\n {%+ if yes %}b{%+ endif %}\n", "a {% if yes +%}\nb{% endif +%}\nc", "{# c #}\na {# d #}\n  {# e #}\nb", "{#-#}  a{#--#}  b {#+#}  c {#-+#} \n d {# -#} e", "{#- x -#}\n\n a\n{#+ y +#}\nb",
          "{% for i in l %}\n  {{ i }}\n{% endfor %}\nend", "{% for i in l -%}\n  {{ i }}\n{%- endfor %}\nend", "{{ n }}\n{{ n }}\n", "{{ n -}}\n\n {{ n }}", "a\r\nb\rc\n{% if yes %}\r\nd\r\n{% endif %}\r\n",
          "{% raw %}\n x\n{% endraw %}\ny", "  {% raw %}x{% endraw %}  ", "a\n  {%- raw -%}  x  {%- endraw -%}  \nb", "\n\n{% set x = 1 %}\n\n{{ x }}\n\n", "{% if yes %}\n\n\n{% endif %}", "{{ 'a\nb' }}", "\u3000{%- if yes %}\u00a0{{- n }}{% endif %}",
          "{% if yes %}{% if no %}a{% elif n == 7 %}b{% else %}c{% endif %}{% endif %}", "{{\n  n\n  }}{%\n if yes\n %}x{%\n endif\n%}", "", "\n", "\n\n", "plain { text } %} }} #}", "{{ '}}' }}{{ \"%}\" }}{{ {'a': {'b': 1}}.a.b }}", "{{ n }}}", "{{{'a':1}}}", "a{{ '' }}\n{% if yes %}\n{% endif %}\n\n"]
# What must fail; the texts of errors are not compared, but for raise_exception.
FAILING = ["{{ raise_exception('no ' ~ n) }}", "{{ missing.x }}", "{{ missing['x'] }}", "{{ missing() }}", "{{ 1 + 'a' }}", "{{ missing + 1 }}", "{{ 'a' + none }}", "{{ 1 / 0 }}", "{{ 1 < 'a' }}", "{{ n|length }}", "{{ l.append(1) }}", "{{ d.update({}) }}",
           "{{ none|tojson }}{{ missing|tojson }}", "{{ 1 in 'a' }}", "{% for x in 5 %}{% endfor %}", "{% for a, b in [[1]] %}{% endfor %}", "{% for x in none %}{% endfor %}", "{{ 'a'.index('z') }}", "{{ d.a.b.c }}", "{% macro m(a) %}{% endmacro %}{{ m(1, 2) }}", "{% macro m(a) %}{% endmacro %}{{ m(z=2) }}", "{{ s() }}",
           "{% set n.x = 1 %}", "{{ range(1000000) }}", "{{ [1]|join(',')|nofilter }}", "{{ n is notest }}", "{% if yes %}", "{% endif %}", "{{ n", "{{ n }", "{% for %}", "{{ 'abc }}", "{{ (1, }}", "{{ [1, 2) }}", "{% set %}", "{{ 1 + }}", "{% break %}", "{# open", "{% raw %}x", "{{ a b }}", "{% unknown %}", "{{ d|dictsort(by='nope' }}", "{{ loop.index }}", "{{ f(a=1, 2) }}", "{{ n.0.1.x }}", "{{ n|indent }}", "{{ l in d }}", "{{ n[1:] }}", "{{ nothing[:2] }}", "{{ missing|int }}", "{{ 0 ** neg }}", "{{ 'a' % 1 }}", "{{ 5|map('upper')|list }}", "{{ text|truncate(2) }}", "{{ text|truncate(5, leeway=-1) }}", "{{ 5|truncate }}",
           "{{ text|truncate('a') }}", "{{ ints|slice(0)|list }}", "{{ ints|slice|list }}", "{{ 5|slice(2)|list }}", "{{ [1]|urlencode }}", "{{ ['abc']|urlencode }}", "{{ ints|map('string')|last }}", "{{ ints|map('string')|length }}", "{{ ints|select|tojson }}", "{{ (ints|select)[:2] }}",
           "{{ ints|select + [1] }}", "{{ ints|slice(2)|length }}", "{{ (ints|reverse)|last }}",
           "{% for x in l %}{{ loop(l) }}{% endfor %}", "{% for x in l recursive %}{{ loop(5) }}{% endfor %}", "{% for x in l recursive %}{{ loop() }}{% endfor %}", "{% for x in l recursive %}{{ loop(l, 1) }}{% endfor %}", "{% for x in l recursive %}{{ loop(l) }}{% endfor %}", "{% for x in l recursive %}{% for y in l %}{{ loop([]) }}{% endfor %}{% endfor %}", "{% for x in l recursive if x %}{% endfor %}",
           "{{ cycler() }}", "{{ cycler(a=1) }}", "{{ cycler(1).next(2) }}", "{{ cycler(1)() }}", "{{ joiner()(1) }}", "{{ joiner(1, 2) }}", "{{ cycler(1)|tojson }}", "{{ cycler(1)|length }}", "{% for x in cycler(1) %}{% endfor %}",
           "{{ {'a b': 1}|xmlattr }}", "{{ {'a>': 1}|xmlattr }}", "{{ {'a/': 1}|xmlattr }}", "{{ {'a=': 1}|xmlattr }}", "{{ {'a\\x0b': 1}|xmlattr }}", "{{ {1: 1}|xmlattr }}", "{{ l|xmlattr }}", "{{ missing|xmlattr }}", "{{ 'x'|filesizeformat }}", "{{ none|filesizeformat }}", "{{ missing|filesizeformat }}", "{{ '-inf'|filesizeformat }}", "{{ l|filesizeformat }}",
           "{{ text|wordwrap(0) }}", "{{ text|wordwrap(-5) }}", "{{ 5|wordwrap }}", "{{ text|wordwrap('a') }}", "{{ text|wordwrap(5, true, 1) }}", "{{ text|wordwrap(none) }}", "{{ missing|wordwrap }}"]


def main():
    env = environment()
    cases = []

    def add(name, source, variables):
        kind, text = "ok", None
        try:
            text = env.from_string(source).render(**variables)
        except jinja2.exceptions.TemplateError as err:
            kind = "raised" if type(err) is jinja2.exceptions.TemplateError else "failed"
            text = err.message if kind == "raised" else None
        except Exception:
            kind = "failed"
        cases.append({"name": name, "template": source, "variables": variables, "result": kind, "text": text})

    for family, source in FAMILIES.items():
        for name, variables in CONVERSATIONS.items():
            for generate in (False, True):
                full = dict(tools=None, documents=None, bos_token="<s>", eos_token="</s>", add_generation_prompt=generate)
                full.update(variables)
                add("%s/%s/%d" % (family, name, generate), source, full)
    full = dict(messages=[msg("user", "x")], bos_token="", add_generation_prompt=True, tools=None, enable_thinking=False, tools_in_user_message=False)
    add("qwen3/no thinking", FAMILIES["qwen3"], full)
    add("llama31/tools in system", FAMILIES["llama31"], dict(full, tools=[TOOL, TOOL2], date_string="1 Jan 2000"))
    add("llama31/builtin", FAMILIES["llama31"], dict(full, builtin_tools=["code_interpreter", "search", "math"]))
    for family, source in LATER.items():
        for name, variables in LATER_TALKS.items():
            full = dict(tools=None, documents=None, bos_token="<s>", eos_token="</s>", add_generation_prompt=True)
            full.update(variables)
            add("%s/%s" % (family, name), source, full)
    line = ""
    for i, more in enumerate(CORNERS):
        line += more
        if line.endswith("\\"):  # a string that goes on
            line += "\n"
            continue
        add("corner/%d" % i, line, CORNER)
        line = ""
    for i, source in enumerate(LAYOUT):
        add("layout/%d" % i, source, CORNER)
    for i, source in enumerate(FAILING):
        add("failing/%d" % i, source, CORNER)
    # Variables are written once and named.
    names, shared = {}, []
    for case in cases:
        key = json.dumps(case["variables"], sort_keys=True)
        if key not in names:
            names[key] = len(shared)
            shared.append(case["variables"])
        case["variables"] = names[key]
    sources, unique = {}, []
    for case in cases:
        if case["template"] not in sources:
            sources[case["template"]] = len(unique)
            unique.append(case["template"])
        case["template"] = sources[case["template"]]
    out = {"jinja2": jinja2.__version__, "now": int(NOW.timestamp()), "templates": unique, "variables": shared, "cases": cases}
    with open(os.path.join(HERE, "templates.json"), "w", encoding="utf-8") as file:
        json.dump(out, file, ensure_ascii=True, indent=0, separators=(",", ":"))
        file.write("\n")
    counts = {}
    for case in cases:
        counts[case["result"]] = counts.get(case["result"], 0) + 1
    print(len(cases), "cases", counts)


if __name__ == "__main__":
    main()
