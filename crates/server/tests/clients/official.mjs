// Drives a server with the official JavaScript clients and the AI SDK: streaming, thoughts, tools, schemas, errors, cancelling.
//
// node official.mjs http://127.0.0.1:PORT NAME
//
// What is checked is the protocol: see official.py beside this file.

import assert from "node:assert/strict";

import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import Anthropic from "@anthropic-ai/sdk";
import { generateObject, generateText, streamText, tool } from "ai";
import OpenAI from "openai";
import { z } from "zod";

const [base, model] = process.argv.slice(2);
const QUESTION = "make 24 from 3 8 1";
const messages = [{ role: "user", content: QUESTION }];
const POINT = {
  type: "object",
  properties: { x: { type: "integer", minimum: 0, maximum: 99 }, ok: { type: "boolean" } },
  required: ["x", "ok"],
  additionalProperties: false,
};

async function openai() {
  const client = new OpenAI({ baseURL: `${base}/v1`, apiKey: "none", maxRetries: 0 });
  const ask = { model, messages, seed: 3, max_tokens: 300 };
  const whole = (await client.chat.completions.create(ask)).choices[0].message;
  let [reasoning, content] = ["", ""];
  for await (const chunk of await client.chat.completions.create({ ...ask, stream: true })) {
    reasoning += chunk.choices[0]?.delta.reasoning_content ?? "";
    content += chunk.choices[0]?.delta.content ?? "";
  }
  assert.deepEqual([reasoning, content], [whole.reasoning_content, whole.content]);
  const schema = { type: "json_schema", json_schema: { name: "point", schema: POINT, strict: true } };
  const formatted = await client.chat.completions.create({ ...ask, response_format: schema });
  assert.equal(typeof JSON.parse(formatted.choices[0].message.content).ok, "boolean");
  const tools = [{ type: "function", function: { name: "point", parameters: POINT, strict: true } }];
  const runner = client.chat.completions.stream({ ...ask, tools, tool_choice: "required", parallel_tool_calls: false });
  const called = (await runner.finalChatCompletion()).choices[0].message;
  assert.equal(called.tool_calls[0].function.name, "point");
  const response = await client.responses.create({ model, input: QUESTION, seed: 3 });
  assert.equal(response.output_text, whole.content);
  const kinds = [];
  for await (const event of await client.responses.create({ model, input: QUESTION, stream: true })) kinds.push(event.type);
  assert.deepEqual([kinds[0], kinds.at(-1)], ["response.created", "response.completed"]);
  await assert.rejects(client.chat.completions.create({ ...ask, model: "other" }), OpenAI.NotFoundError);
  const stream = await client.chat.completions.create({ ...ask, max_tokens: 400, stream: true });
  for await (const _ of stream) break;
  stream.controller.abort();
}

async function anthropic() {
  const client = new Anthropic({ baseURL: base, apiKey: "none", maxRetries: 0 });
  const ask = { model, max_tokens: 300, messages };
  const whole = await client.messages.create(ask);
  assert.deepEqual(whole.content.map((block) => block.type), ["thinking", "text"]);
  const final = await client.messages.stream(ask).finalMessage();
  assert.deepEqual(final.content.map((block) => block.text ?? block.thinking), whole.content.map((block) => block.text ?? block.thinking));
  const tools = [{ name: "point", input_schema: POINT }];
  const called = await client.messages.stream({ ...ask, tools, tool_choice: { type: "any" } }).finalMessage();
  assert(called.content.some((block) => block.type === "tool_use" && block.name === "point"));
  await assert.rejects(client.messages.create({ ...ask, model: "other" }), Anthropic.NotFoundError);
}

async function aiSdk() {
  const provider = createOpenAICompatible({ name: "minke", baseURL: `${base}/v1`, apiKey: "none", supportsStructuredOutputs: true });
  const ask = { model: provider(model), prompt: QUESTION, temperature: 0, maxRetries: 0, maxOutputTokens: 300 };
  const whole = await generateText(ask);
  assert(whole.reasoningText && whole.text && whole.usage.outputTokens > 0);
  const streamed = streamText(ask);
  let text = "";
  for await (const piece of streamed.textStream) text += piece;
  assert.equal(text, whole.text);
  const point = z.object({ x: z.number().int().min(0).max(99), ok: z.boolean() });
  const { object } = await generateObject({ ...ask, schema: point });
  assert.equal(typeof object.ok, "boolean");
  const tools = { point: tool({ description: "a point", inputSchema: point }) };
  const called = await generateText({ ...ask, tools, toolChoice: "required" });
  assert.equal(called.toolCalls[0].toolName, "point");
}

for (const [name, run] of Object.entries({ openai, anthropic, aiSdk })) {
  const begin = performance.now();
  await run();
  console.log(`${name}: ok, ${((performance.now() - begin) / 1000).toFixed(1)} s`);
}
