// The service as its API has it: requests with the reader's key, problems, events, images, downloads.

import { pause } from "./dom.js";

const KEY = "masan.key";
const MAX_IN_MEMORY_BYTES = 2 ** 30;

export const isKeyed = document.body.dataset.keyed === "true";
export const getKey = () => sessionStorage.getItem(KEY);

export function setKey(key) {
  if (key) sessionStorage.setItem(KEY, key);
  else sessionStorage.removeItem(KEY);
}

/** An answer of 400 or more, or none at all (status 0). errors: [{name, reason, allowed}]. */
export class Problem extends Error {
  constructor(status, body) {
    const detail = body.detail || body.title || `The service answered ${status}.`;
    super(status >= 500 && body.request_id ? `${detail} Request ${body.request_id}.` : detail);
    this.status = status;
    this.code = body.code || "";
    this.errors = body.errors || [];
    this.retryAfterS = body.retry_after_seconds || null;
  }
}

/** Asks; the answer is one of success, or 304. Throws Problem, and AbortError when the signal says so. */
export async function call(method, path, { query = {}, body, headers = {}, signal, redirect } = {}) {
  const url = new URL(path, location.origin);
  for (const [name, value] of Object.entries(query)) {
    if (value !== null && value !== undefined && value !== "") url.searchParams.set(name, value);
  }
  const key = getKey();
  const sent = { Accept: "application/json", ...(key && { Authorization: `Bearer ${key}` }), ...headers };
  let response;
  try {
    response = await fetch(url, { method, body, signal, redirect, headers: sent });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem(0, { detail: "The service does not answer. Is it still running?" });
  }
  if (response.type === "opaqueredirect") return response;
  if (!response.ok && response.status !== 304) throw await problemOf(response);
  return response;
}

export const get = async (path, options) => (await call("GET", path, options)).json();

async function problemOf(response) {
  const body = await response.json().catch(() => ({}));
  return new Problem(response.status, body);
}

/** A job's events, as they come: {id, name, data}. Ends with the stream. */
async function* events(path, lastId, signal) {
  const headers = { Accept: "text/event-stream", ...(lastId && { "Last-Event-ID": lastId }) };
  const response = await call("GET", path, { headers, signal });
  if (response.status === 204) return;
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const frames = (text + value).split("\n\n");
    text = frames.pop();
    for (const frame of frames) {
      const event = parsed(frame);
      if (event.name) yield event;
    }
  }
}

function parsed(frame) {
  const event = { id: null, name: null };
  for (const line of frame.split("\n")) {
    if (line.startsWith("event:")) event.name = line.slice(6).trim();
    if (line.startsWith("id:")) event.id = line.slice(3).trim();
  }
  return event;
}

/**
 * Calls `onChange` whenever something happened to the job, until it has ended or the signal says so.
 * By its events; by asking again and again where those cannot be had.
 */
export async function follow(job, onChange, signal) {
  let lastId = null;
  let hasEnded = false;
  for (let failures = 0; failures < 3 && !signal.aborted; failures += 1) {
    try {
      for await (const event of events(job.links.events, lastId, signal)) {
        failures = 0;
        lastId = event.id || lastId;
        hasEnded = event.name === "done";
        onChange();
      }
      if (hasEnded) return;
    } catch (error) {
      if (signal.aborted || [401, 403, 404, 410].includes(error.status)) return;
      if (error.code === "too_many_streams") break;
    }
    await pause(500 * (failures + 1));
  }
  await poll(job, onChange, signal);
}

async function poll(job, onChange, signal) {
  let etag = null;
  while (!signal.aborted) {
    try {
      const headers = etag ? { Prefer: "wait=15", "If-None-Match": etag } : {};
      const response = await call("GET", job.links.self, { headers, signal });
      etag = response.headers.get("ETag");
      if (response.status === 304) continue;
      onChange();
      if (isOver((await response.json()).status)) return;
    } catch (error) {
      if (signal.aborted || [401, 403, 404, 410].includes(error.status)) return;
      await pause(2000);
    }
  }
}

export const isOver = (status) => ["succeeded", "failed", "canceled", "expired"].includes(status);

/** Lets `picture` show what is at `path`; with a key by way of a blob, since an image sends no header. */
export async function show(picture, path) {
  if (!getKey()) {
    picture.src = path;
    return;
  }
  const blob = await (await call("GET", path, { headers: { Accept: "*/*" } })).blob();
  showBlob(picture, blob);
}

export function showBlob(picture, blob) {
  const url = URL.createObjectURL(blob);
  const forget = () => URL.revokeObjectURL(url);
  picture.addEventListener("load", forget, { once: true });
  picture.addEventListener("error", forget, { once: true });
  picture.src = url;
}

/** Saves what is at `path` under the name that the service gives it. Throws Problem. */
export async function save(path, fallbackName) {
  const link = document.createElement("a");
  if (!getKey()) {
    link.href = path;
    link.download = "";
    link.click();
    return;
  }
  const response = await call("GET", path, { headers: { Accept: "*/*" }, redirect: "manual" });
  const isElsewhere = response.type === "opaqueredirect";
  if (isElsewhere || Number(response.headers.get("Content-Length")) > MAX_IN_MEMORY_BYTES) {
    await response.body?.cancel();
    const why = isElsewhere ? "lies in a bucket, which this page may not ask" : "is more than a page can hold";
    const line = `curl -OJL -H "X-API-Key: $MASAN_API_KEY" '${location.origin}${path}'`;
    throw new Problem(0, { detail: `The file ${why}. This line fetches it: ${line}` });
  }
  const named = /filename="([^"]+)"/.exec(response.headers.get("Content-Disposition") || "");
  const url = URL.createObjectURL(await response.blob());
  link.href = url;
  link.download = named ? named[1] : fallbackName;
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}
