/**
 * Follow calls of Ackbridge in a page: each event once across reconnects, tabs and reloads, in order.
 *
 * @module ackbridge-events
 */

/** @typedef {import("./ackbridge-events.js").CallEvent} CallEvent */
/** @typedef {import("./ackbridge-events.js").FollowOptions} FollowOptions */
/** @typedef {import("./ackbridge-events.js").Follow} Follow */
/** @typedef {import("./ackbridge-events.js").Connection} Connection */

const NAME = "ackbridge-events";

/** Calls whose last event is remembered, and for how long (milliseconds). */
const MOST_REMEMBERED = 500;
const REMEMBERED_FOR = 30 * 24 * 3600 * 1000;

/** Milliseconds without a byte after which a connection counts as dead; heartbeats come every 15 s. */
const SILENT_FOR = 45_000;
const FIRST_DELAY = 1000;
const LONGEST_DELAY = 30_000;
/** A connection that was open for so long was a good one: the next delay is short. */
const GOOD_AFTER = 5000;
/** For which a tab that nobody sees leaves an event to one that somebody sees. */
const HIDDEN_DELAY = 1500;
/** Characters of one event; more is no event of ours. */
const LONGEST_EVENT = 256 * 1024;

/**
 * Follow one call until its last event.
 *
 * @param {FollowOptions} options
 * @returns {Follow}
 */
export function followCall(options) {
  const url = String(options.url);
  const callId = options.callId ?? callIdOf(url);
  const silentFor = options.silentFor ?? SILENT_FOR;
  const closing = new AbortController();
  /** @type {() => void} */
  let resolveDone = () => {};
  /** @type {Promise<void>} */
  const done = new Promise((resolve) => (resolveDone = resolve));
  const tabs = openTabs();
  /** @type {CallEvent | null} */
  let shown = null;
  /** @type {Promise<unknown>} */
  let announcing = Promise.resolve();
  /** @type {Connection | null} */
  let connection = null;
  /** @type {AbortController | null} */
  let pause = null;

  /** @param {Connection} next */
  function setConnection(next) {
    if (next !== connection) {
      connection = next;
      report(() => options.onConnection?.(next));
    }
  }

  /**
   * Take an event, wherever it comes from; one that is not newer than the last is a duplicate.
   *
   * @param {unknown} body
   * @param {boolean} isFromTab
   */
  function take(body, isFromTab) {
    const event = readEvent(body);
    if (event === null || event.callId !== callId || closing.signal.aborted) return;
    if (shown !== null && event.sequence <= shown.sequence) return;
    shown = event;
    if (!isFromTab) tabs.send(event.body);
    report(() => options.onState?.(event));
    announcing = announcing.then(() => announce(event));
    if (event.isFinal) void announcing.then(() => close("ended"));
  }

  /**
   * Call `onEvent` in one tab only. It is marked as announced before: a tab that crashes in between
   * leaves it out rather than announcing it twice.
   *
   * @param {CallEvent} event
   */
  async function announce(event) {
    if (options.onEvent === undefined) return;
    if (document.hidden) await sleep(HIDDEN_DELAY, closing.signal);
    if (await claim(event)) report(() => options.onEvent?.(event));
  }

  /** @param {Connection} why */
  function close(why) {
    if (closing.signal.aborted) return;
    setConnection(why);
    closing.abort();
    tabs.close();
    window.removeEventListener("online", retryNow);
    document.removeEventListener("visibilitychange", retryIfVisible);
    resolveDone();
  }

  function retryNow() {
    pause?.abort();
  }

  function retryIfVisible() {
    if (!document.hidden) retryNow();
  }

  async function run() {
    let failures = 0;
    /** @type {string | null} */
    let token = null;
    while (!closing.signal.aborted) {
      let wait = null;
      try {
        token ??= await currentToken(options.token);
        const reply = await connect(url, token, shown?.id ?? null, closing.signal, silentFor);
        if (reply.status === 204) return close("ended");
        if (reply.status === 401 || reply.status === 403) token = null;
        if (reply.status === 200 && reply.body !== null) {
          setConnection("open");
          const openedAt = Date.now();
          try {
            await readStream(reply.body, silentFor, (body) => take(body, false));
          } finally {
            if (Date.now() - openedAt > GOOD_AFTER) failures = 0;
          }
          // Its token may have expired, and the server may restart: not at once, and not long after.
          token = null;
        } else {
          wait = retryAfter(reply);
          await reply.body?.cancel();
        }
      } catch {
        // The network, or the backend that gives tokens: both may come back.
      }
      // After the last event it is closed as soon as that was announced.
      if (closing.signal.aborted || shown?.isFinal) return;
      setConnection("waiting");
      failures += 1;
      const backoff = Math.min(FIRST_DELAY * 2 ** (failures - 1), LONGEST_DELAY);
      pause = new AbortController();
      await sleep(wait ?? backoff * (0.5 + Math.random() / 2), pause.signal, closing.signal);
      pause = null;
    }
  }

  tabs.listen((body) => take(body, true));
  window.addEventListener("online", retryNow);
  document.addEventListener("visibilitychange", retryIfVisible);
  void run();
  return { callId, close: () => close("closed"), done };
}

/**
 * Forget what was announced of a call, or of all calls.
 *
 * @param {string} [callId]
 */
export async function forgetCalls(callId) {
  await withStore((remembered) => {
    if (callId === undefined) remembered.clear();
    else remembered.delete(callId);
  });
}

/**
 * An event from its JSON, or null if it is none.
 *
 * @param {unknown} body
 * @returns {CallEvent | null}
 */
export function readEvent(body) {
  const { id, type, timestamp, data } = /** @type {any} */ (body ?? {});
  if (typeof id !== "string" || typeof data?.call_id !== "string") return null;
  if (!Number.isSafeInteger(data.sequence)) return null;
  const notice = data.notice ?? {};
  const kind = kindOf(data);
  return {
    id,
    type: String(type),
    callId: data.call_id,
    sequence: data.sequence,
    at: new Date(timestamp),
    kind,
    title: String(notice.title ?? ""),
    message: String(notice.message ?? ""),
    // Only where nothing has happened may a user be sent elsewhere.
    alternative: kind === "failed" && notice.alternative ? String(notice.alternative) : null,
    expectedAt: notice.expected_at ? new Date(notice.expected_at) : null,
    reason: notice.kind ?? null,
    effect: data.effect ?? null,
    code: data.code ?? null,
    isFinal: data.status !== "delayed" && data.effect !== "unknown",
    body,
  };
}

/** @param {any} data */
function kindOf(data) {
  if (data.status === "delayed") return "delayed";
  if (data.status === "completed") return data.late ? "completed_late" : "completed";
  if (data.effect !== "none") return "unknown";
  return data.status === "cancelled" ? "cancelled" : "failed";
}

// The connection

/**
 * @param {string} url
 * @param {string} token
 * @param {string | null} last
 * @param {AbortSignal} signal
 * @param {number} within
 */
async function connect(url, token, last, signal, within) {
  /** @type {Record<string, string>} */
  const headers = { Accept: "text/event-stream", Authorization: `Bearer ${token}` };
  if (last !== null) headers["Last-Event-ID"] = last;
  const waiting = new AbortController();
  const timer = setTimeout(() => waiting.abort(), within);
  const stop = () => waiting.abort();
  signal.addEventListener("abort", stop);
  try {
    return await fetch(url, {
      headers,
      signal: waiting.signal,
      cache: "no-store",
      credentials: "omit",
      redirect: "error",
    });
  } finally {
    // The body is read under a watch of its own, and is cancelled by `signal`.
    clearTimeout(timer);
  }
}

/**
 * Read a stream until it ends, or nothing comes for `silentFor`.
 *
 * @param {ReadableStream<Uint8Array>} stream
 * @param {number} silentFor
 * @param {(body: unknown) => void} onBody
 */
async function readStream(stream, silentFor, onBody) {
  const reader = stream.getReader();
  const decoder = new TextDecoder();
  const parse = eventParser(onBody);
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let timer;
  try {
    for (;;) {
      timer = setTimeout(() => void reader.cancel().catch(() => {}), silentFor);
      const { done, value } = await reader.read();
      clearTimeout(timer);
      if (done) return;
      parse(decoder.decode(value, { stream: true }));
    }
  } finally {
    clearTimeout(timer);
    reader.cancel().catch(() => {});
  }
}

/**
 * A parser of server-sent events whose data is JSON; other fields than `data` are of no use here.
 *
 * @param {(body: unknown) => void} onBody
 * @returns {(text: string) => void}
 */
export function eventParser(onBody) {
  let rest = "";
  /** @type {string[]} */
  let data = [];
  let size = 0;

  /** @param {string} line */
  function readLine(line) {
    if (line === "") {
      const text = data.join("\n");
      data = [];
      size = 0;
      if (text === "") return;
      try {
        onBody(JSON.parse(text));
      } catch {
        console.warn(`${NAME}: an event that is not JSON was left out`);
      }
      return;
    }
    const found = /^data(?:: ?(.*))?$/s.exec(line);
    if (found === null) return;
    size += line.length;
    if (size > LONGEST_EVENT) throw new RangeError("the event is too long");
    data.push(found[1] ?? "");
  }

  return (text) => {
    // A line ends with CR, LF or both; a CR at the end of a chunk waits for what follows it.
    const lines = (rest + text).split(/\r\n|\n|\r(?!$)/);
    rest = lines.pop() ?? "";
    if (rest.length > LONGEST_EVENT) throw new RangeError("the event is too long");
    for (const line of lines) readLine(line);
  };
}

/** @param {Response} reply */
function retryAfter(reply) {
  const seconds = Number(reply.headers.get("Retry-After") ?? NaN);
  return seconds > 0 ? Math.min(seconds * 1000, LONGEST_DELAY) : null;
}

/** @param {FollowOptions["token"]} token */
async function currentToken(token) {
  return typeof token === "function" ? await token() : token;
}

/** @param {string} url */
function callIdOf(url) {
  const parts = new URL(url, window.location.href).pathname.split("/");
  return decodeURIComponent(parts[parts.length - 2] ?? "");
}

// What was announced, for all tabs and after a reload

/** Call, sequence and time, where nothing can be stored. @type {[string, number, number][]} */
let unstored = [];

/**
 * Whether this tab is the one that announces an event.
 *
 * @param {CallEvent} event
 */
async function claim(event) {
  return await withStore((remembered) => {
    const [sequence] = remembered.get(event.callId) ?? [0];
    if (event.sequence <= sequence) return false;
    // Deleted first: the newest are at the end.
    remembered.delete(event.callId);
    remembered.set(event.callId, [event.sequence, Date.now()]);
    return true;
  });
}

/**
 * Change what is remembered, one tab at a time.
 *
 * @template T
 * @param {(remembered: Map<string, [number, number]>) => T} change
 * @returns {Promise<T>}
 */
async function withStore(change) {
  const run = async () => {
    const remembered = load();
    const result = change(remembered);
    save(remembered);
    return result;
  };
  // Web Locks need a secure context; elsewhere two tabs may announce the same event.
  return navigator.locks === undefined ? await run() : await navigator.locks.request(NAME, run);
}

/** @returns {Map<string, [number, number]>} */
function load() {
  let entries = unstored;
  try {
    entries = JSON.parse(window.localStorage.getItem(NAME) ?? "[]");
    const oldest = Date.now() - REMEMBERED_FOR;
    entries = entries.filter(([, , at]) => at > oldest);
  } catch {
    // Storage is not allowed, or something else has written to it.
  }
  return new Map(entries.map(([callId, sequence, at]) => [callId, [sequence, at]]));
}

/** @param {Map<string, [number, number]>} remembered */
function save(remembered) {
  const entries = [...remembered].slice(-MOST_REMEMBERED);
  unstored = entries.map(([callId, [sequence, at]]) => [callId, sequence, at]);
  try {
    window.localStorage.setItem(NAME, JSON.stringify(unstored));
  } catch {
    // This page remembers it.
  }
}

/** Pass events on to the other tabs of this page's origin. */
function openTabs() {
  const channel = typeof BroadcastChannel === "undefined" ? null : new BroadcastChannel(NAME);
  return {
    /** @param {unknown} body */
    send: (body) => channel?.postMessage(body),
    /** @param {(body: unknown) => void} onBody */
    listen: (onBody) => {
      if (channel !== null) channel.onmessage = (message) => onBody(message.data);
    },
    close: () => channel?.close(),
  };
}

/**
 * @param {number} milliseconds
 * @param {...AbortSignal} signals that end it
 * @returns {Promise<void>}
 */
function sleep(milliseconds, ...signals) {
  return new Promise((resolve) => {
    const end = () => {
      clearTimeout(timer);
      for (const signal of signals) signal.removeEventListener("abort", end);
      resolve();
    };
    const timer = setTimeout(end, milliseconds);
    for (const signal of signals) signal.addEventListener("abort", end);
    if (signals.some((signal) => signal.aborted)) end();
  });
}

/** Call the page's own code, whose mistakes are its own. @param {() => unknown} act */
function report(act) {
  try {
    const result = act();
    if (result instanceof Promise) result.catch((error) => console.error(error));
  } catch (error) {
    console.error(error);
  }
}
