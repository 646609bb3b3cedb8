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
{%- if yes -%}  tight  {%- endif -%}  {{- 'x' -}}  done""".split("\n")
# Newlines and indentation; each is a template of its own.
LAYOUT = ["a\n{% if yes %}\nb\n{% endif %}\nc\n", "a\n  {% if yes %}  \n  b\n  {% endif %}\n  c\n\n", "  {% if yes %}x{% endif %}\n", "x  {% if yes %}y{% endif %}  \n z",
          "a\n\t {%- if yes %} b {%- endif %}\n c", "a\n {%+ if yes %}b{%+ endif %}\n", "a {% if yes +%}\nb{% endif +%}\nc", "{# c #}\na {# d #}\n  {# e #}\nb", "{#- x -#}\n\n a\n{#+ y +#}\nb",
          "{% for i in l %}\n  {{ i }}\n{% endfor %}\nend", "{% for i in l -%}\n  {{ i }}\n{%- endfor %}\nend", "{{ n }}\n{{ n }}\n", "{{ n -}}\n\n {{ n }}", "a\r\nb\rc\n{% if yes %}\r\nd\r\n{% endif %}\r\n",
          "{% raw %}\n x\n{% endraw %}\ny", "  {% raw %}x{% endraw %}  ", "a\n  {%- raw -%}  x  {%- endraw -%}  \nb", "\n\n{% set x = 1 %}\n\n{{ x }}\n\n", "{% if yes %}\n\n\n{% endif %}", "{{ 'a\nb' }}", "\u3000{%- if yes %}\u00a0{{- n }}{% endif %}",
          "{% if yes %}{% if no %}a{% elif n == 7 %}b{% else %}c{% endif %}{% endif %}", "{{\n  n\n  }}{%\n if yes\n %}x{%\n endif\n%}", "", "\n", "\n\n", "plain { text } %} }} #}", "{{ '}}' }}{{ \"%}\" }}{{ {'a': {'b': 1}}.a.b }}", "{{ n }}}", "{{{'a':1}}}", "a{{ '' }}\n{% if yes %}\n{% endif %}\n\n"]
# What must fail; the texts of errors are not compared, but for raise_exception.
FAILING = ["{{ raise_exception('no ' ~ n) }}", "{{ missing.x }}", "{{ missing['x'] }}", "{{ missing() }}", "{{ 1 + 'a' }}", "{{ missing + 1 }}", "{{ 'a' + none }}", "{{ 1 / 0 }}", "{{ 1 < 'a' }}", "{{ n|length }}", "{{ l.append(1) }}", "{{ d.update({}) }}",
           "{{ none|tojson }}{{ missing|tojson }}", "{{ 1 in 'a' }}", "{% for x in 5 %}{% endfor %}", "{% for a, b in [[1]] %}{% endfor %}", "{% for x in none %}{% endfor %}", "{{ 'a'.index('z') }}", "{{ d.a.b.c }}", "{% macro m(a) %}{% endmacro %}{{ m(1, 2) }}", "{% macro m(a) %}{% endmacro %}{{ m(z=2) }}", "{{ s() }}",
           "{% set n.x = 1 %}", "{{ range(1000000) }}", "{{ [1]|join(',')|nofilter }}", "{{ n is notest }}", "{% if yes %}", "{% endif %}", "{{ n", "{{ n }", "{% for %}", "{{ 'abc }}", "{{ (1, }}", "{{ [1, 2) }}", "{% set %}", "{{ 1 + }}", "{% break %}", "{# open", "{% raw %}x", "{{ a b }}", "{% unknown %}", "{{ d|dictsort(by='nope' }}", "{{ loop.index }}", "{{ f(a=1, 2) }}", "{{ n.0.1.x }}", "{{ n|indent }}", "{{ l in d }}", "{{ n[1:] }}", "{{ nothing[:2] }}", "{{ missing|int }}", "{{ 0 ** neg }}", "{{ 'a' % 1 }}", "{{ 5|map('upper')|list }}"]


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
