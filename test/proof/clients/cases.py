"""Cases of openai-python, litellm and LangChain against Hearth's server. Prints a line of JSON for each."""

import asyncio
import json
import os
import sys
import traceback

# Prices are no concern here, and are fetched otherwise.
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"

import litellm
import openai
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from pydantic import BaseModel

base, embedding_base, key, model = sys.argv[1:5]
# With a real model only the form of answers is known, not their text.
scripted = model == "scripted"
client = openai.OpenAI(base_url=base, api_key=key, max_retries=0)
async_client = openai.AsyncOpenAI(base_url=base, api_key=key, max_retries=0)
embedder = openai.OpenAI(base_url=embedding_base, api_key=key, max_retries=0)
litellm.suppress_debug_info = True
litellm.telemetry = False

hi = [{"role": "user", "content": "hi"}]
few = {"max_tokens": 24, "temperature": 0}
parameters = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
tools = [{"type": "function", "function": {"name": "weather", "description": "Tells the weather.", "parameters": parameters}}]
cases = []


class City(BaseModel):
    city: str


class Weather(BaseModel):
    """Tells the weather."""

    city: str


def case(who, name, needs_script=False):
    def add(run):
        if scripted or not needs_script:
            cases.append((who, name, run))
        return run

    return add


def text_is(text):
    assert isinstance(text, str) and text != "", text
    assert not scripted or text == "One two.", text


def call_is(call):
    name = call["name"] if isinstance(call, dict) else call.name
    arguments = call["arguments"] if isinstance(call, dict) else call.arguments
    assert name == "weather", name
    assert isinstance(json.loads(arguments)["city"], str), arguments


def raises(kind, run):
    try:
        run()
    except kind as error:
        return error
    raise AssertionError(f"{kind.__name__} was not raised")


@case("openai-python", "chat")
def _():
    answer = client.chat.completions.create(model=model, messages=hi, **few)
    text_is(answer.choices[0].message.content)
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


@case("openai-python", "chat, streamed with usage")
def _():
    chunks = list(client.chat.completions.create(model=model, messages=hi, stream=True, stream_options={"include_usage": True}, **few))
    text_is("".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices))
    assert chunks[-1].usage.total_tokens > 0


@case("openai-python", "chat, asynchronous, four at once")
def _():
    async def ask():
        return await asyncio.gather(*(async_client.chat.completions.create(model=model, messages=hi, **few) for _ in range(4)))

    answers = asyncio.run(ask())
    assert len({answer.choices[0].message.content for answer in answers}) == 1


@case("openai-python", "chat.completions.stream with events", True)
def _():
    with client.chat.completions.stream(model=model, messages=hi) as stream:
        kinds = {event.type for event in stream}
        text_is(stream.get_final_completion().choices[0].message.content)
    assert {"content.delta", "content.done", "chunk"} <= kinds, kinds


@case("openai-python", "chat.completions.parse with a Pydantic model")
def _():
    answer = client.chat.completions.parse(model=model, messages=hi, response_format=City, temperature=0, max_tokens=200)
    assert isinstance(answer.choices[0].message.parsed, City), answer


@case("openai-python", "a tool from a Pydantic model, forced, parsed", True)
def _():
    function = openai.pydantic_function_tool(Weather, name="weather")
    answer = client.chat.completions.parse(model=model, messages=hi, tools=[function], tool_choice="required")
    assert isinstance(answer.choices[0].message.tool_calls[0].function.parsed_arguments, Weather)


@case("openai-python", "tools, streamed, and their results sent back", True)
def _():
    with client.chat.completions.stream(model=model, messages=hi, tools=tools) as stream:
        message = stream.get_final_completion().choices[0].message
    call_is(message.tool_calls[0].function)
    results = [{"role": "tool", "tool_call_id": call.id, "content": "rain"} for call in message.tool_calls]
    text_is(client.chat.completions.create(model=model, messages=[*hi, message, *results], tools=tools).choices[0].message.content)


@case("openai-python", "logprobs, n, seed, stop, logit penalties off", True)
def _():
    answer = client.chat.completions.create(model=model, messages=hi, n=2, seed=3, stop=["x"], frequency_penalty=0, presence_penalty=0, user="me")
    assert len(answer.choices) == 2


@case("openai-python", "parts of text, a developer message, metadata", True)
def _():
    parts = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    messages = [{"role": "developer", "content": "Be short."}, {"role": "user", "content": parts}]
    text_is(client.chat.completions.create(model=model, messages=messages).choices[0].message.content)


@case("openai-python", "responses: create, parse, stream", True)
def _():
    text_is(client.responses.create(model=model, input="hi").output_text)
    assert isinstance(client.responses.parse(model=model, input="hi", text_format=City).output_parsed, City)
    with client.responses.stream(model=model, input="hi") as stream:
        kinds = [event.type for event in stream]
    assert kinds[0] == "response.created" and kinds[-1] == "response.completed", kinds


@case("openai-python", "responses with a tool", True)
def _():
    flat = [{"type": "function", "name": "weather", "parameters": parameters, "strict": False}]
    call = next(item for item in client.responses.create(model=model, input="hi", tools=flat).output if item.type == "function_call")
    call_is(call)
    output = [{"role": "user", "content": "hi"}, call, {"type": "function_call_output", "call_id": call.call_id, "output": "rain"}]
    text_is(client.responses.create(model=model, input=output, tools=flat).output_text)


@case("openai-python", "completions, also with a suffix", True)
def _():
    assert client.completions.create(model=model, prompt="a").choices[0].text == "went on"
    assert client.completions.create(model=model, prompt="a", suffix="b").choices[0].text == "the middle"


@case("openai-python", "models")
def _():
    assert client.models.list().data[0].id == model
    assert client.models.retrieve(model).id == model


@case("openai-python", "raw and streaming responses")
def _():
    raw = client.chat.completions.with_raw_response.create(model=model, messages=hi, **few)
    assert raw.headers["content-type"].startswith("application/json")
    text_is(raw.parse().choices[0].message.content)


@case("openai-python", "errors have the client's classes")
def _():
    raises(openai.AuthenticationError, lambda: openai.OpenAI(base_url=base, api_key="no", max_retries=0).models.list())
    raises(openai.NotFoundError, lambda: client.chat.completions.create(model="another", messages=hi))
    error = raises(openai.BadRequestError, lambda: client.chat.completions.create(model=model, messages=[]))
    assert error.param == "messages", error.body


@case("openai-python", "embeddings, base64 and float, shortened", True)
def _():
    assert [list(item.embedding) for item in embedder.embeddings.create(model=model, input=["hello", "hi"]).data] == [[0, 5, 0.5], [1, 2, 0.5]]
    assert len(embedder.embeddings.create(model=model, input="hi", encoding_format="float", dimensions=2).data[0].embedding) == 2


for provider in ("openai", "hosted_vllm", "lm_studio", "litellm_proxy"):
    settings = {"model": f"{provider}/{model}", "api_base": base, "api_key": key, "num_retries": 0}

    @case(f"litellm, `{provider}/`", "chat, and its usage")
    def _(settings=settings):
        answer = litellm.completion(messages=hi, **few, **settings)
        text_is(answer.choices[0].message.content)
        assert answer.usage.total_tokens > 0

    @case(f"litellm, `{provider}/`", "chat, streamed with usage, rebuilt")
    def _(settings=settings):
        chunks = list(litellm.completion(messages=hi, stream=True, stream_options={"include_usage": True}, **few, **settings))
        rebuilt = litellm.stream_chunk_builder(chunks, messages=hi)
        text_is(rebuilt.choices[0].message.content)

    @case(f"litellm, `{provider}/`", "chat, asynchronous and streamed")
    def _(settings=settings):
        async def ask():
            stream = await litellm.acompletion(messages=hi, stream=True, **few, **settings)
            return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

        text_is(asyncio.run(ask()))

    @case(f"litellm, `{provider}/`", "tools, and their results sent back", True)
    def _(settings=settings):
        message = litellm.completion(messages=hi, tools=tools, tool_choice="auto", **settings).choices[0].message
        for call in message.tool_calls:
            call_is(call.function)
        assert message.reasoning_content == "Which city?", message
        results = [{"role": "tool", "tool_call_id": call.id, "content": "rain"} for call in message.tool_calls]
        text_is(litellm.completion(messages=[*hi, message, *results], tools=tools, **settings).choices[0].message.content)

    @case(f"litellm, `{provider}/`", "tools, streamed and rebuilt", True)
    def _(settings=settings):
        chunks = list(litellm.completion(messages=hi, tools=tools, stream=True, **settings))
        rebuilt = litellm.stream_chunk_builder(chunks, messages=hi)
        assert len(rebuilt.choices[0].message.tool_calls) == 2, rebuilt
        for call in rebuilt.choices[0].message.tool_calls:
            call_is(call.function)
        assert rebuilt.choices[0].finish_reason == "tool_calls"

    @case(f"litellm, `{provider}/`", "response_format: json_object, a schema, a Pydantic model")
    def _(settings=settings):
        schema = {"name": "city", "strict": True, "schema": {**parameters, "additionalProperties": False}}
        for form in ({"type": "json_object"}, {"type": "json_schema", "json_schema": schema}, City):
            choice = litellm.completion(messages=hi, response_format=form, max_tokens=200, temperature=0, **settings).choices[0]
            # A small model writes on until it is cut off.
            if not scripted and choice.finish_reason == "length":
                continue
            assert isinstance(json.loads(choice.message.content), dict), choice

    @case(f"litellm, `{provider}/`", "errors have litellm's classes")
    def _(settings=settings):
        raises(litellm.AuthenticationError, lambda: litellm.completion(messages=hi, **{**settings, "api_key": "no"}))
        raises(litellm.BadRequestError, lambda: litellm.completion(messages=hi, temperature=9, **settings))
        raises(litellm.NotFoundError, lambda: litellm.completion(messages=hi, **{**settings, "model": f"{provider}/another"}))

    @case(f"litellm, `{provider}/`", "embeddings", True)
    def _(settings=settings):
        found = litellm.embedding(input=["hello", "hi"], **{**settings, "api_base": embedding_base})
        assert [list(item["embedding"]) for item in found.data] == [[0, 5, 0.5], [1, 2, 0.5]]


@case("litellm", "reasoning_effort, seed, stop, n, logprobs", True)
def _():
    settings = {"model": f"openai/{model}", "api_base": base, "api_key": key, "num_retries": 0}
    answer = litellm.completion(messages=hi, reasoning_effort="low", allowed_openai_params=["reasoning_effort"], seed=1, stop=["x"], n=2, **settings)
    assert len(answer.choices) == 2


@case("litellm", "text_completion and responses", True)
def _():
    settings = {"api_base": base, "api_key": key, "num_retries": 0}
    assert litellm.text_completion(model=f"text-completion-openai/{model}", prompt="a", **settings).choices[0].text == "went on"
    assert "One two." in str(litellm.responses(model=f"openai/{model}", input="hi", **settings).output)


@case("litellm", "its Router")
def _():
    deployment = {"model_name": "local", "litellm_params": {"model": f"openai/{model}", "api_base": base, "api_key": key}}
    router = litellm.Router(model_list=[deployment], num_retries=0)
    text_is(router.completion(model="local", messages=hi, **few).choices[0].message.content)


chat = ChatOpenAI(base_url=base, api_key=key, model=model, max_retries=0, **({} if scripted else few))


@tool
def weather(city: str) -> str:
    """Tells the weather."""
    return f"rain in {city}"


@case("LangChain", "invoke, batch, ainvoke")
def _():
    text_is(chat.invoke([SystemMessage("Be short."), HumanMessage("hi")]).content)
    assert len(chat.batch(["hi", "hi"])) == 2
    text_is(asyncio.run(chat.ainvoke("hi")).content)


@case("LangChain", "stream with usage")
def _():
    whole = None
    for chunk in chat.stream("hi", stream_usage=True):
        whole = chunk if whole is None else whole + chunk
    text_is(whole.content)
    assert whole.usage_metadata["total_tokens"] > 0


@case("LangChain", "bind_tools, whole and streamed, results sent back", True)
def _():
    bound = chat.bind_tools([weather])
    called = bound.invoke("hi")
    assert [call["args"]["city"] for call in called.tool_calls] == ["Oslo", "Rome"], called
    whole = None
    for chunk in bound.stream("hi"):
        whole = chunk if whole is None else whole + chunk
    assert [call["args"]["city"] for call in whole.tool_calls] == ["Oslo", "Rome"], whole
    results = [ToolMessage(weather.invoke(call["args"]), tool_call_id=call["id"]) for call in called.tool_calls]
    text_is(bound.invoke([HumanMessage("hi"), called, *results]).content)


@case("LangChain", "with_structured_output: json_schema, function_calling, json_mode", True)
def _():
    for method in ("json_schema", "function_calling", "json_mode"):
        model_class = Weather if method == "function_calling" else City
        assert isinstance(chat.with_structured_output(model_class, method=method).invoke("hi"), model_class), method


@case("LangChain", "an agent that calls a tool and answers", True)
def _():
    from langchain.agents import create_agent

    last = create_agent(chat, [weather]).invoke({"messages": [HumanMessage("hi")]})["messages"][-1]
    assert isinstance(last, AIMessage)
    text_is(last.content)


@case("LangChain", "the Responses API", True)
def _():
    responses = ChatOpenAI(base_url=base, api_key=key, model=model, max_retries=0, use_responses_api=True)
    text_is(responses.invoke("hi").text)
    whole = None
    for chunk in responses.stream("hi"):
        whole = chunk if whole is None else whole + chunk
    text_is(whole.text)


@case("LangChain", "embeddings of texts", True)
def _():
    found = OpenAIEmbeddings(base_url=embedding_base, api_key=key, model=model, check_embedding_ctx_length=False, max_retries=0)
    assert found.embed_documents(["hello", "hi"]) == [[0, 5, 0.5], [1, 2, 0.5]]
    assert found.embed_query("hello") == [0, 5, 0.5]


for who, name, run in cases:
    try:
        run()
        outcome = None
    except BaseException:
        outcome = traceback.format_exc(limit=-3)
    print(json.dumps({"who": who, "case": name, "error": outcome}), flush=True)
sys.stdout.flush()
os._exit(0)
