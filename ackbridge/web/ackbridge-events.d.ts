/**
 * What happened to a call, for a user:
 * - `delayed`: it takes longer; it goes on without the user. `expectedAt` may say until when.
 * - `completed`: it worked.
 * - `completed_late`: it worked, after a delay was shown, or something else.
 * - `unknown`: nobody knows yet whether it worked. Nobody may be sent elsewhere.
 * - `failed`: it did not work, and had no effect. `alternative` says what the user can do, if there is something.
 * - `cancelled`: it was cancelled, and had no effect.
 */
export type CallEventKind =
  | "delayed"
  | "completed"
  | "completed_late"
  | "unknown"
  | "failed"
  | "cancelled";

/** An event of a call. Texts are plain: set them as `textContent`. */
export interface CallEvent {
  /** The same in every tab, on every connection, from every server. */
  readonly id: string;
  /** `call.delayed`, `call.completed`, `call.completed_late`, `call.failed` or `call.cancelled`. */
  readonly type: string;
  readonly callId: string;
  /** Counts the events of a call from 1; those that were overtaken are left out. */
  readonly sequence: number;
  readonly at: Date;
  readonly kind: CallEventKind;
  readonly title: string;
  readonly message: string;
  /** What the user can do instead; only of `failed`. */
  readonly alternative: string | null;
  /** When a delayed call is tried again, if that is known. */
  readonly expectedAt: Date | null;
  /** The kind of the notice, such as `refused`, `unavailable` or `expired`. */
  readonly reason: string | null;
  readonly effect: "none" | "done" | "unknown" | null;
  readonly code: string | null;
  /** Whether this is the last event to be expected. */
  readonly isFinal: boolean;
  /** The event as it was sent. */
  readonly body: unknown;
}

/**
 * - `open`: events arrive.
 * - `waiting`: it is not connected, and connects again by itself.
 * - `ended`: the last event has been shown.
 * - `closed`: the page has closed it.
 */
export type Connection = "open" | "waiting" | "ended" | "closed";

export interface FollowOptions {
  /** `https://…/calls/<call id>/events`, with the call id percent-encoded. */
  url: string | URL;
  /** The call, if it cannot be read from the URL. */
  callId?: string;
  /** An event token, or what gets one from your backend; it is called again when one has expired. */
  token: string | (() => string | Promise<string>);
  /** The state of the call has changed: render it. Called in every tab, and once after a reload. */
  onState?: (event: CallEvent) => void;
  /** Something has happened: announce it. Called once in this browser, in one tab. */
  onEvent?: (event: CallEvent) => void;
  /** The connection has changed. */
  onConnection?: (connection: Connection) => void;
  /** Milliseconds without a byte after which it connects again; heartbeats come every 15 s. */
  silentFor?: number;
}

export interface Follow {
  readonly callId: string;
  /** Stop following. */
  close(): void;
  /** Resolves after the last event, or when it was closed. */
  readonly done: Promise<void>;
}

/** Follow one call until its last event. */
export function followCall(options: FollowOptions): Follow;

/** Forget what was announced of a call, or of all calls, for instance when a user signs out. */
export function forgetCalls(callId?: string): Promise<void>;

/** An event from its JSON, such as a notice that your backend has passed on; null if it is none. */
export function readEvent(body: unknown): CallEvent | null;

/** A parser of server-sent events whose data is JSON. */
export function eventParser(onBody: (body: unknown) => void): (text: string) => void;
