// A video's server-sent events. Read with fetch, because an EventSource cannot send an API key.

import { ApiError } from "./api.js";

const MIN_RETRY_MS = 1000;
const MAX_RETRY_MS = 15_000;

/**
 * Calls `onEvent(name, data)` for each event up to the last one. After a broken connection it reconnects with the id of
 * the last event. Throws `ApiError` when the server refuses, and AbortError when `signal` aborts it.
 */
export async function follow(api, id, signal, onEvent) {
  let last = "";
  let wait = MIN_RETRY_MS;
  while (true) {
    try {
      const headers = { Accept: "text/event-stream", ...(last && { "Last-Event-ID": last }) };
      const answer = await api.request(`videos/${id}/events`, { headers, signal });
      if (answer.status === 204) return; // the last event was received already
      for await (const event of read(answer.body)) {
        wait = MIN_RETRY_MS;
        last = event.id || last;
        if (!event.data) continue;
        onEvent(event.name, JSON.parse(event.data));
        if (event.name === "completed" || event.name === "failed") return;
      }
    } catch (error) {
      if (error.name === "AbortError" || (error instanceof ApiError && error.status)) throw error;
    }
    await pause(wait, signal);
    wait = Math.min(wait * 2, MAX_RETRY_MS);
  }
}

/** Parses a stream of server-sent events (HTML standard). */
async function* read(body) {
  let event = { name: "message", data: "", id: "" };
  for await (const line of lines(body)) {
    if (line === "") {
      yield event;
      event = { name: "message", data: "", id: event.id };
    }
    const [, field, value] = /^([^:]*):? ?(.*)$/.exec(line);
    if (field === "event") event.name = value;
    else if (field === "data") event.data += event.data ? `\n${value}` : value;
    else if (field === "id") event.id = value;
  }
}

async function* lines(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    while (true) {
      const { done, value } = await reader.read();
      if (done) return;
      const parts = (rest + value).split(/\r\n|\n|\r(?!$)/);
      rest = parts.pop();
      yield* parts;
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

function pause(milliseconds, signal) {
  return new Promise((resolve, reject) => {
    signal.throwIfAborted();
    const stop = () => {
      clearTimeout(timer);
      reject(signal.reason);
    };
    const timer = setTimeout(() => {
      signal.removeEventListener("abort", stop);
      resolve();
    }, milliseconds);
    signal.addEventListener("abort", stop, { once: true });
  });
}
