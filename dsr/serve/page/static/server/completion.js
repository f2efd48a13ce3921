/** One answer from `/v1/chat/completions`, as a stream of events. */

import { ConnectionLost } from "./server.js";
import { serverEvents } from "./sse.js";

/**
 * Asks for an answer. Yields `{type: "thinking" | "answer", text}`, `{type: "finish", reason}`, `{type: "usage", usage}`,
 * `{type: "failed", message, hint}` and the events of dsr as they are. Throws ServerError, ConnectionLost, AbortError.
 * @param {import("./server.js").Server} server
 * @param {Record<string, any>} request
 * @param {AbortSignal} signal
 * @returns {AsyncGenerator<any>}
 */
export async function* completionEvents(server, request, signal) {
  const body = { ...request, stream: true, stream_options: { include_usage: true }, dsr: { ...request.dsr, events: true } };
  const response = await server.send("POST", "/v1/chat/completions", body, { signal });
  let done = false;
  try {
    for await (const { event, data } of serverEvents(/** @type {ReadableStream<Uint8Array>} */ (response.body))) {
      if (data === "[DONE]") {
        done = true;
        continue; // the server closes the stream
      }
      const told = JSON.parse(data);
      if (event === "dsr") yield told;
      else yield* fromChunk(told);
      if (told.error) return; // the stream ends with it
    }
  } catch (error) {
    if (signal.aborted || error instanceof SyntaxError) throw error;
    server.onlost();
    throw new ConnectionLost();
  }
  if (!done) {
    server.onlost();
    throw new ConnectionLost();
  }
}

/** @param {any} chunk */
function* fromChunk(chunk) {
  if (chunk.error) yield { type: "failed", message: chunk.error.message ?? "The answer failed.", hint: chunk.error.hint ?? "" };
  const choice = chunk.choices?.[0];
  if (choice?.delta?.reasoning_content) yield { type: "thinking", text: choice.delta.reasoning_content };
  if (choice?.delta?.content) yield { type: "answer", text: choice.delta.content };
  if (choice?.finish_reason) yield { type: "finish", reason: choice.finish_reason };
  if (chunk.usage) yield { type: "usage", usage: chunk.usage };
}
