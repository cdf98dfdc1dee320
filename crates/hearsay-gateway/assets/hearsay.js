/**
 * Speak and listen in hearsay meetings from a browser. One plain module without dependencies.
 *
 * Existing WebSocket code changes one line, and comes back by itself without losing or repeating a line:
 *
 *     const socket = new HearsaySocket(url);            // was: new WebSocket(url)
 *
 * Code that starts here uses a meeting:
 *
 *     const meeting = new Meeting({ url: "http://127.0.0.1:8080", meeting: "stand-up", token, name: "Ana" });
 *     meeting.addEventListener("caption", ({ detail }) => console.log(detail.speaker.name, detail.text));
 *     meeting.listen();
 *     const voice = await meeting.speak(await microphone());
 *
 * The file is also the audio worklet it uses, so that a page needs no second address.
 */

/** @typedef {{ epoch: string, offset: number }} Place Where an event is in its conversation. */
/** @typedef {{ type?: string, [key: string]: any }} Frame One parsed text message of the server. */

// ---------------------------------------------------------------------------------------------------------------------
// Parts without sockets, clocks or timers
// ---------------------------------------------------------------------------------------------------------------------

/**
 * Reads `<epoch>:<offset>`.
 * @param {unknown} text
 * @returns {Place | undefined} undefined when it is no position.
 */
export function parsePosition(text) {
  const match = typeof text === "string" ? /^([0-9a-f]{8}):(\d{1,15})$/.exec(text) : null;
  return match ? { epoch: match[1], offset: Number(match[2]) } : undefined;
}

/**
 * How far a socket has seen its conversation. Tells what is new from what a resumed socket is sent again.
 *
 * A durable event ends with the frame that carries its `position`; frames of it before that one, like a final caption,
 * carry `follows`, the position before. A connection may break between the two, so both are remembered.
 */
export class Cursor {
  /** @type {Place | undefined} */ #at;
  /** Frames shown of the event behind `#at` whose end is still to come. @type {Set<string>} */ #begun = new Set();
  #contiguous;

  /** @param {{ contiguous?: boolean }} [options] contiguous: the socket shows every position (`view=all`), so that a missing one is a hole. */
  constructor({ contiguous = false } = {}) {
    this.#contiguous = contiguous;
  }

  /** For `since=`; undefined before anything with a place was seen. */
  get position() {
    return this.#at && `${this.#at.epoch}:${this.#at.offset}`;
  }

  /** Forgets everything: another conversation begins. */
  reset() {
    this.#at = undefined;
    this.#begun.clear();
  }

  /**
   * @param {Frame} frame
   * @returns {"new" | "repeated" | "hole"} A hole is not taken: what was missed is to be asked for first.
   */
  take(frame) {
    if (frame.type === "gap") return this.#move(parsePosition(frame.to));
    // Says where an answer stands, and is none of the conversation's events.
    if (frame.type === "finalized") return "new";
    const position = parsePosition(frame.position);
    if (position) {
      const at = this.#at;
      if (frame.type === "snapshot" || at?.epoch !== position.epoch) return this.#move(position);
      if (frame.type === "event" && frame.kind === "position") {
        return position.offset > at.offset ? this.#move(position) : "new";
      }
      if (position.offset <= at.offset) return "repeated";
      if (this.#contiguous && position.offset > at.offset + 1) return "hole";
      return this.#move(position);
    }
    const follows = parsePosition(frame.follows);
    if (!follows) return "new";
    if (!this.#at && !this.#contiguous) this.#at = follows;
    const final = frame.isFinal === true || frame.message?.isFinal === true;
    if (!final) return "new";
    if (this.#at?.epoch === follows.epoch && follows.offset < this.#at.offset) return "repeated";
    const key = `${frame.type} ${frame.follows}`;
    if (this.#begun.has(key)) return "repeated";
    this.#begun.add(key);
    return "new";
  }

  /** @param {Place | undefined} to @returns {"new"} */
  #move(to) {
    if (to) this.#at = to;
    this.#begun.clear();
    return "new";
  }
}

/**
 * How long to wait before the next try: anything up to a bound that doubles, so that clients which lost their server in
 * the same moment do not come back in the same moment.
 */
export class Backoff {
  #tries = 0;
  #base;
  #cap;
  #random;

  /** @param {{ base?: number, cap?: number, random?: () => number }} [options] base and cap in ms. */
  constructor({ base = 250, cap = 15_000, random = Math.random } = {}) {
    this.#base = base;
    this.#cap = cap;
    this.#random = random;
  }

  get tries() {
    return this.#tries;
  }

  /** @param {number} [least] What the server asked to wait at least, in ms. @param {number} [most] A bound of this time. */
  next(least = 0, most = this.#cap) {
    const bound = Math.min(most, this.#cap, this.#base * 2 ** Math.min(this.#tries, 30));
    this.#tries += 1;
    return least + this.#random() * bound;
  }

  /** A connection lasted: the next trouble is a new one. */
  reset() {
    this.#tries = 0;
  }
}

/** @typedef {{ chunk: number, data: ArrayBuffer | Blob | string, bytes: number }} Kept */

/**
 * Audio messages of one stream that the server may ask for again, and requests at their place between them.
 *
 * Binary messages are numbered from 0. What the server acknowledged is forgotten, but for a few before it: a decoder may
 * have to begin earlier than where the log ends. Bounded in bytes and entries; when full, the oldest goes, and counts
 * as lost when it was not acknowledged.
 */
export class ChunkRing {
  /** @type {Kept[]} */ #kept = [];
  /** Index of the first that was not handed to the socket. */ #unsent = 0;
  #next = 0;
  #acked = 0;
  #bytes = 0;
  #lost = 0;
  #maxBytes;
  #maxEntries;
  #before;
  /** @type {(text: string) => void} */ #settled;

  /**
   * @param {object} [options]
   * @param {number} [options.maxBytes] The default is thirty seconds at 48 kHz, which is what a server keeps.
   * @param {number} [options.maxEntries]
   * @param {number} [options.before] Acknowledged chunks to keep.
   * @param {(text: string) => void} [options.settled] Told of a request that is forgotten because the audio around it is acknowledged.
   */
  constructor({ maxBytes = 3 << 20, maxEntries = 8_192, before = 128, settled = () => {} } = {}) {
    this.#maxBytes = maxBytes;
    this.#maxEntries = maxEntries;
    this.#before = before;
    this.#settled = settled;
  }

  /** The number the next chunk gets: how many there were. */
  get next() {
    return this.#next;
  }

  /** How many chunks the server has said to be covered. */
  get acked() {
    return this.#acked;
  }

  /** Chunks that went away before they were acknowledged. */
  get lost() {
    return this.#lost;
  }

  get bytes() {
    return this.#bytes;
  }

  /** Requests that were not handed to the socket. */
  get unsentRequests() {
    return this.#kept.slice(this.#unsent).flatMap(({ data }) => (typeof data === "string" ? data : []));
  }

  /** Bytes that were not handed to the socket. */
  get unsentBytes() {
    let bytes = 0;
    for (let index = this.#unsent; index < this.#kept.length; index += 1) bytes += this.#kept[index].bytes;
    return bytes;
  }

  /** @param {ArrayBuffer | Blob} data Not to be changed afterwards. @returns {number} its number. */
  push(data) {
    const bytes = data instanceof ArrayBuffer ? data.byteLength : data.size;
    const chunk = this.#next++;
    this.#keep({ chunk, data, bytes });
    return chunk;
  }

  /** A request that belongs before the next chunk, and is sent again with the chunks around it. @param {string} text */
  request(text) {
    this.#keep({ chunk: this.#next, data: text, bytes: text.length });
  }

  /** @param {Kept} entry */
  #keep(entry) {
    this.#kept.push(entry);
    this.#bytes += entry.bytes;
    while (this.#kept.length > 1 && (this.#bytes > this.#maxBytes || this.#kept.length > this.#maxEntries)) this.#drop();
  }

  #drop() {
    const oldest = /** @type {Kept} */ (this.#kept.shift());
    this.#bytes -= oldest.bytes;
    this.#unsent = Math.max(0, this.#unsent - 1);
    if (typeof oldest.data === "string") this.#settled(oldest.data);
    else if (oldest.chunk >= this.#acked) this.#lost += 1;
  }

  /** The server's log covers the first `count` chunks. @param {number} count */
  ack(count) {
    this.#acked = Math.max(this.#acked, Math.min(count, this.#next));
    // What was not sent is not covered, whatever the server says.
    while (this.#unsent > 0 && this.#kept[0].chunk < this.#acked - this.#before) this.#drop();
  }

  /** The next to hand to the socket; undefined: all is sent. @returns {Kept | undefined} */
  take() {
    const entry = this.#kept[this.#unsent];
    if (entry) this.#unsent += 1;
    return entry;
  }

  /** Sends again from this chunk. @param {number} chunk @returns {number} how many chunks before it can be had are gone. */
  rewind(chunk) {
    const from = this.#kept.findIndex((entry) => entry.chunk >= chunk);
    this.#unsent = from < 0 ? this.#kept.length : from;
    const oldest = this.#kept.find((entry) => typeof entry.data !== "string");
    const missing = Math.max(0, (oldest ? oldest.chunk : this.#next) - chunk);
    this.#lost += missing;
    return missing;
  }

  /**
   * The server has begun another stream: numbers begin anew. Chunks that were handed to a socket belong to the old stream,
   * whose words the server still finishes, and are not sent again: a lost word is better than a sentence twice. Of the
   * others the newest are kept, as many as a server takes at once; the rest counts as lost.
   * @param {number} [most] Bytes to keep.
   * @returns {number} how many sent chunks were not acknowledged.
   */
  restart(most = Infinity) {
    const doubtful = this.#kept.slice(0, this.#unsent).filter((entry) => typeof entry.data !== "string" && entry.chunk >= this.#acked);
    while (this.#unsent > 0) this.#drop();
    this.#lost = 0;
    this.#acked = 0;
    this.#next = 0;
    const spoken = (/** @type {Kept} */ { data, bytes }) => (typeof data === "string" ? 0 : bytes);
    let bytes = this.#kept.reduce((sum, entry) => sum + spoken(entry), 0);
    this.#kept = this.#kept.filter((entry) => {
      // A request holds for what comes behind it, too.
      if (typeof entry.data === "string" || bytes <= most) return true;
      bytes -= entry.bytes;
      this.#bytes -= entry.bytes;
      this.#lost += 1;
      return false;
    });
    for (const entry of this.#kept) {
      entry.chunk = this.#next;
      if (typeof entry.data !== "string") this.#next += 1;
    }
    return doubtful.length;
  }

  /** Forgets all: a new stream of its own. */
  clear() {
    this.#kept = [];
    this.#unsent = this.#next = this.#acked = this.#bytes = this.#lost = 0;
  }
}

/**
 * When a place on the server's clock of a stream was heard here: for latencies that need no common clock.
 *
 * The server's clock runs with the audio, and jumps forward where a client was silent; each acknowledgement says how
 * chunks and times belong together.
 */
export class AudioClock {
  /** End of each chunk in ms of audio, and when it was heard. @type {{ end: number, at: number }[]} */ #chunks = [];
  #first = 0;
  #ms = 0;
  #shift = 0;
  #max;

  /** @param {number} [max] Chunks remembered. */
  constructor(max = 4_096) {
    this.#max = max;
  }

  /** Ms of audio so far. */
  get ms() {
    return this.#ms;
  }

  /** A chunk's last sample was heard. @param {number} ms Its length. @param {number} at When, on any steady clock. */
  heard(ms, at) {
    this.#ms += ms;
    this.#chunks.push({ end: this.#ms, at });
    if (this.#chunks.length > this.#max) {
      this.#chunks.shift();
      this.#first += 1;
    }
  }

  /** The first `count` chunks end about `ms` on the server's clock. @param {number} count @param {number} ms */
  align(count, ms) {
    const chunk = this.#chunks[count - 1 - this.#first];
    if (!chunk) return;
    const shift = ms - chunk.end;
    // Less is the part of a chunk behind the cut.
    this.#shift = Math.abs(shift) < 500 ? 0 : shift;
  }

  /** Another stream begins, with the last `count` chunks. @param {number} count */
  restart(count) {
    const carried = count > 0 ? this.#chunks.slice(-count) : [];
    const before = carried.length > 0 ? (this.#chunks[this.#chunks.length - carried.length - 1]?.end ?? 0) : this.#ms;
    // Of a stream that carries more than is remembered, the first chunks are not known.
    this.#first = count - carried.length;
    this.#chunks = carried.map(({ end, at }) => ({ end: end - before, at }));
    this.#ms -= before;
    this.#shift = 0;
  }

  /** Ms of audio behind the first `count` chunks. @param {number} count */
  since(count) {
    const chunk = this.#chunks[count - 1 - this.#first];
    return count === 0 ? this.#ms : chunk ? this.#ms - chunk.end : 0;
  }

  /** When this place of the stream was heard; undefined when that is not known. @param {number} ms */
  heardAt(ms) {
    const wanted = ms - this.#shift;
    let [low, high] = [0, this.#chunks.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.#chunks[middle].end < wanted) low = middle + 1;
      else high = middle;
    }
    const chunk = this.#chunks[low];
    return chunk && wanted > 0 ? chunk.at - (chunk.end - wanted) : undefined;
  }
}

/**
 * When a token ends.
 * @param {string | undefined} token
 * @returns {number | undefined} ms since 1970; undefined when the token does not say.
 */
export function tokenExpiry(token) {
  try {
    const payload = JSON.parse(atob((token ?? "").split(".")[1].replaceAll("-", "+").replaceAll("_", "/")));
    return typeof payload.exp === "number" ? payload.exp * 1_000 : undefined;
  } catch {
    return undefined;
  }
}

/** Samples from -1 to 1 as signed 16-bit. @param {Float32Array} samples @param {Int16Array} out @param {number} at */
export function toLinear16(samples, out, at = 0) {
  for (let index = 0; index < samples.length; index += 1) {
    const sample = Math.max(-1, Math.min(1, samples[index]));
    out[at + index] = Math.round(sample < 0 ? sample * 0x8000 : sample * 0x7fff);
  }
}

// ---------------------------------------------------------------------------------------------------------------------
// A socket that comes back
// ---------------------------------------------------------------------------------------------------------------------

/** In a worklet there may be none, and there nothing below is used. */
const Target = globalThis.EventTarget ?? Object;

/**
 * @param {string} type
 * @param {any} detail
 * @returns {CustomEvent}
 */
const custom = (type, detail) => new CustomEvent(type, { detail });

/** @param {"close" | "message"} type @param {object} init @returns {Event} */
function native(type, init) {
  const known = type === "close" ? globalThis.CloseEvent : globalThis.MessageEvent;
  return typeof known === "function" ? new known(type, init) : Object.assign(new Event(type), init);
}

/** Bytes in the browser's own queue above which audio waits in the ring, where it can be counted. */
const HIGH_WATER = 256 * 1024;
/** Other texts that wait for a connection. */
const MAX_QUEUED = 64;
/** How long a handshake may take, and how long a start may stay unanswered after a return. */
const PATIENCE_MS = 10_000;
/** A token is renewed this long before it ends. */
const RENEW_BEFORE_MS = 60_000;
/** Longest delay a timer takes. */
const MAX_TIMER_MS = 2 ** 31 - 1;
/** How long the beginning or the end of a stream may take, returns of a broken connection included. */
const SPEAK_MS = 30_000;
/** A connection that lasted this long ends the earlier trouble. */
const CALM_MS = 5_000;
/** For so long a server leaves a broken stream as it is, and its client tries this often: who returns goes on mid-word. */
const HELD_MS = 5_000;
const HURRY_MS = 1_000;
/** Codes that say no: coming back would be answered the same. */
const FINAL_CODES = new Set([1000, 1002, 1003, 1007, 1008, 1009, 1010]);
/** Errors about the connection and not about the request before them. */
const ASIDE = new Set(["token_expired", "slow_reader", "too_fast"]);
/** What a start is answered with. */
const WELCOME = ["started_listening", "conversation_created", "recognition_started"];
/** Audio that a new stream is given at once: below what a server lets run ahead of real time. */
const BURST_S = 20;
/** How streams of packets begin that make sense from their beginning only: Ogg, WebM, FLAC. */
const HEADS = ["OggS", "\x1a\x45\xdf\xa3", "fLaC"];

/** Thrown by a `renewToken` hook to say that asking again is of no use. */
export class TokenRefused extends Error {
  name = "TokenRefused";
}

/**
 * @typedef {object} SocketOptions
 * @property {string} [token] Presented as subprotocol; without it the URL's `access_token` is what counts.
 * @property {() => Promise<string>} [renewToken] Asked for a new token before the old one ends, and after refusals.
 * @property {Backoff} [backoff]
 * @property {ChunkRing} [ring]
 * @property {number} [pingEveryMs] Silence after which the server is asked for a sign of life; twice as long is a dead connection.
 * @property {typeof WebSocket} [WebSocket]
 */

/**
 * Stands in for a `WebSocket` to a hearsay meeting. Reconnects by itself, with back-off; listens on from the position
 * it has seen; speaks on from the chunk the server lacks. `open` and `close` come once, at the beginning and the very
 * end, and `readyState` stays OPEN in between: what is sent meanwhile is kept and sent later.
 *
 * Further events, all with `detail`:
 * - `connection`: `{ state: "connecting" | "live" | "waiting" | "closed", attempt, delayMs }`
 * - `reconnected`: `{ downMs, since, resent, missing, stream: "same" | "new" | "none" }`, when all is as before. Where the
 *   server began a new stream, `missing` counts chunks of which it is not known whether the old one finished them
 * - `ack`: `{ chunk, ms }`: what the server's log covers; `repeated`: a frame that was not shown twice
 * - `lost`: `{ chunks }`: audio that had to be given up; `conversation`: `{ id }`, at every word of one
 * - `refused`: `{ code, details }`: the server does not take the stream up again, nor a new one in its place. It is over;
 *   the socket stays, and takes another start
 *
 * Final are: `close()` here, the server's 1000, and codes that say no (1002, 1003, 1007, 1008, 1009, 1010), but for a
 * reader that was too slow, which goes on where it was.
 *
 * A new stream begins in the middle of what is said. Ogg, WebM and FLAC cannot: of those, what was not sent is given up, and
 * at a `reconnected` with `stream: "new"` their recorder is to be started anew, as {@link Voice} does.
 */
export class HearsaySocket extends Target {
  static CONNECTING = 0;
  static OPEN = 1;
  static CLOSING = 2;
  static CLOSED = 3;
  CONNECTING = 0;
  OPEN = 1;
  CLOSING = 2;
  CLOSED = 3;

  /** @type {"blob" | "arraybuffer"} */
  binaryType = "blob";
  readyState = 0;
  url;

  #options;
  #protocols;
  /** @type {"speak" | "listen" | "other"} */ #kind;
  #WebSocket;
  /** @type {WebSocket | undefined} */ #socket;
  #cursor;
  #backoff;
  #ring;
  /** @type {string | undefined} */ #token;
  /** @type {string[]} */ #queue = [];
  /** @type {Map<string, EventListener>} */ #handlers = new Map();
  /** @type {Set<ReturnType<typeof setTimeout>>} */ #timers = new Set();
  /** @type {ReturnType<typeof setTimeout> | undefined} */ #retryTimer;
  /** @type {ReturnType<typeof setTimeout> | undefined} */ #startTimer;
  /** @type {ReturnType<typeof setTimeout> | undefined} */ #renewTimer;
  /** @type {ReturnType<typeof setTimeout> | undefined} */ #flushTimer;
  /** @type {ReturnType<typeof setTimeout> | undefined} */ #calmTimer;
  /** @type {ReturnType<typeof setInterval> | undefined} */ #pulse;
  #opened = false;
  #everOpen = false;
  #heardAt = 0;
  #downSince = 0;
  #pings = 0;
  #pingedAt = 0;
  #refusals = 0;
  /** @type {{ code: string, details: string } | undefined} */ #refusal;
  #returned = false;
  #retryAfterMs = 0;
  /** @type {Frame | undefined} The start request as it holds now. */ #start;
  /** The caller asked for acknowledgements itself, and is shown them. */ #showsAcks = false;
  /** A stream is under way, as far as the caller knows. */ #streaming = false;
  #stopping = false;
  /** What the caller has not heard yet of the answer to its start. @type {Set<string>} */ #untold = new Set();
  /** The stream's messages are parts of one file. */ #contained = false;
  /** @type {"no" | "asked" | "plain"} A returning stream's start is out, with or without a resume token. */ #returning = "no";
  /** @type {string | undefined} */ #resume;
  /** @type {string | undefined} */ #stream;
  /** @type {string | undefined} */ #conversation;
  #lostTold = 0;

  /**
   * @param {string | URL} url
   * @param {string | string[] | SocketOptions} [protocols]
   * @param {SocketOptions} [options]
   */
  constructor(url, protocols, options = {}) {
    super();
    if (protocols !== undefined && typeof protocols === "object" && !Array.isArray(protocols)) {
      options = protocols;
      protocols = undefined;
    }
    const address = new URL(url, globalThis.location?.href);
    if (address.protocol === "http:" || address.protocol === "https:") address.protocol = address.protocol.replace("http", "ws");
    this.url = address.href;
    this.#options = options;
    this.#protocols = protocols;
    this.#token = options.token ?? address.searchParams.get("access_token") ?? undefined;
    this.#kind = /^\/v1\/(realtime\/insights|streaming)\//.test(address.pathname)
      ? "speak"
      : /^\/(v1|session)\/subscribe\//.test(address.pathname)
        ? "listen"
        : "other";
    this.#WebSocket = options.WebSocket ?? globalThis.WebSocket;
    this.#cursor = new Cursor({ contiguous: address.searchParams.get("view") === "all" });
    this.#backoff = options.backoff ?? new Backoff();
    this.#ring = options.ring ?? new ChunkRing({ settled: (text) => this.#settle(text) });
    globalThis.addEventListener?.("online", this.#hurry);
    globalThis.addEventListener?.("offline", this.#doubt);
    void this.#connect();
  }

  get protocol() {
    return this.#socket?.protocol ?? "";
  }

  get extensions() {
    return this.#socket?.extensions ?? "";
  }

  get bufferedAmount() {
    return (this.#socket?.bufferedAmount ?? 0) + this.#ring.unsentBytes;
  }

  /** How far this socket has seen its conversation. */
  get position() {
    return this.#cursor.position;
  }

  get conversationId() {
    return this.#conversation;
  }

  /** The last error the server told of on this connection, or on the one that broke last. */
  get refusal() {
    return this.#refusal;
  }

  /** Chunks sent so far, acknowledged, and given up. */
  get chunks() {
    return { next: this.#ring.next, acked: this.#ring.acked, lost: this.#ring.lost, bytes: this.#ring.bytes };
  }

  get onopen() {
    return this.#handlers.get("open") ?? null;
  }
  set onopen(handler) {
    this.#on("open", handler);
  }
  get onmessage() {
    return this.#handlers.get("message") ?? null;
  }
  set onmessage(handler) {
    this.#on("message", handler);
  }
  get onerror() {
    return this.#handlers.get("error") ?? null;
  }
  set onerror(handler) {
    this.#on("error", handler);
  }
  get onclose() {
    return this.#handlers.get("close") ?? null;
  }
  set onclose(handler) {
    this.#on("close", handler);
  }

  /** @param {string} type @param {any} handler */
  #on(type, handler) {
    const old = this.#handlers.get(type);
    if (old) this.removeEventListener(type, old);
    this.#handlers.delete(type);
    if (typeof handler !== "function") return;
    /** @type {EventListener} */
    const bound = (event) => handler.call(this, event);
    this.#handlers.set(type, bound);
    this.addEventListener(type, bound);
  }

  /**
   * Sends as a WebSocket does. Audio of a stream is kept until the server's log covers it.
   * @param {string | ArrayBufferLike | ArrayBufferView | Blob} data
   */
  send(data) {
    if (this.readyState === HearsaySocket.CONNECTING) {
      throw new DOMException("the socket is not open yet", "InvalidStateError");
    }
    if (this.readyState !== HearsaySocket.OPEN) return;
    if (typeof data === "string") return this.#sendText(data);
    if (!this.#streaming) {
      // Nobody listens to audio outside a stream.
      if (this.#opened) this.#socket?.send(/** @type {any} */ (data));
      return;
    }
    const chunk = data instanceof Blob ? data : copied(data);
    // What a recorder makes comes as blobs.
    if (this.#ring.push(chunk) === 0 && this.#compressed) {
      this.#contained ||= chunk instanceof Blob || HEADS.some((head) => begins(chunk, head));
    }
    this.#tellLost();
    this.#flush();
  }

  /** Final: nothing comes back. @param {number} [code] @param {string} [reason] */
  close(code, reason) {
    if (this.readyState >= HearsaySocket.CLOSING) return;
    this.readyState = HearsaySocket.CLOSING;
    if (!this.#socket || !this.#opened) {
      this.#forget();
      return this.#end(code ?? 1005, reason ?? "", true);
    }
    this.#socket.close(code, reason);
    // A connection that is dead does not say so for long.
    this.#later(PATIENCE_MS, () => this.#end(1006, "", false));
  }

  get #compressed() {
    const { encoding = "LINEAR16" } = this.#start?.config?.speechRecognition ?? {};
    return !["LINEAR16", "MULAW"].includes(String(encoding).toUpperCase());
  }

  /** @param {string} text */
  #sendText(text) {
    const request = text.startsWith("{") ? parsed(text) : undefined;
    switch (this.#kind === "speak" ? request?.type : undefined) {
      case "start_request": {
        const wanted = /** @type {Frame} */ (request);
        this.#showsAcks = wanted.hearsay?.ack === true;
        this.#start = { ...wanted, hearsay: { ...wanted.hearsay, ack: true } };
        this.#untold = new Set(WELCOME);
        if (!this.#streaming) {
          this.#streaming = true;
          this.#stopping = false;
          this.#ring.clear();
          this.#lostTold = 0;
          this.#contained = false;
          this.#resume = this.#stream = undefined;
        }
        if (this.#opened && this.#returning === "no") this.#socket?.send(JSON.stringify(this.#start));
        return;
      }
      case "stop_request":
      case "stop_recognition":
        this.#stopping = true;
      // falls through
      case "modify_request":
      case "update_request":
      case "finalize":
        if (!this.#streaming) break;
        this.#ring.request(text);
        this.#tellLost();
        return this.#flush();
    }
    if (this.#opened) this.#socket?.send(text);
    else if (this.#queue.push(text) > MAX_QUEUED) this.#queue.shift();
  }

  /** A request whose audio is all acknowledged is part of how a stream begins from here. @param {string} text */
  #settle(text) {
    const request = parsed(text);
    if (!this.#start || !request) return;
    if (request.type === "modify_request") {
      const config = this.#start.config ?? {};
      this.#start.config = { ...config, speechRecognition: { ...config.speechRecognition, ...request.speechRecognition } };
    } else if (request.type === "update_request") {
      const { type: _, ...changed } = request;
      Object.assign(this.#start, changed);
    }
  }

  #flush() {
    const socket = this.#socket;
    if (!socket || !this.#opened || this.#returning !== "no" || !this.#streaming) return;
    while (socket.bufferedAmount < HIGH_WATER) {
      const entry = this.#ring.take();
      if (!entry) return;
      socket.send(entry.data);
    }
    this.#flushTimer ??= this.#later(50, () => {
      this.#flushTimer = undefined;
      this.#flush();
    });
  }

  #tellLost() {
    const chunks = this.#ring.lost - this.#lostTold;
    this.#lostTold = this.#ring.lost;
    if (chunks > 0) this.dispatchEvent(custom("lost", { chunks }));
  }

  // The connection under it

  async #connect() {
    this.#retryTimer = undefined;
    this.#tell("connecting");
    try {
      await this.#freshen();
    } catch (error) {
      if (error instanceof TokenRefused) {
        this.#refusal = { code: "forbidden", details: error.message };
        return this.#end(1008, error.message, false);
      }
      return this.#retry();
    }
    if (this.readyState >= HearsaySocket.CLOSING) return;
    let socket;
    try {
      socket = this.#open();
    } catch (error) {
      // An address or a token that no WebSocket takes: it will be none the next time, too.
      return this.#end(1006, error instanceof Error ? error.message : String(error), false);
    }
    this.#socket = socket;
    socket.binaryType = this.binaryType;
    const patience = this.#later(PATIENCE_MS, () => this.#broken(socket, 1006, "", false));
    socket.onopen = () => {
      this.#cancel(patience);
      this.#connected();
    };
    socket.onmessage = (event) => this.#receive(event);
    socket.onerror = () => {};
    socket.onclose = (event) => {
      this.#cancel(patience);
      this.#broken(socket, event.code, event.reason, event.wasClean);
    };
  }

  #open() {
    const address = new URL(this.url);
    const since = this.#cursor.position;
    if (since) {
      address.searchParams.set("since", since);
      address.searchParams.delete("history");
    }
    if (this.#options.token === undefined) {
      if (this.#token && address.searchParams.has("access_token")) address.searchParams.set("access_token", this.#token);
      return new this.#WebSocket(address.href, this.#protocols ?? []);
    }
    return new this.#WebSocket(address.href, this.#token);
  }

  /** Sees to a token that will do. */
  async #freshen() {
    const end = tokenExpiry(this.#token);
    const ending = end !== undefined && end - Date.now() < RENEW_BEFORE_MS;
    const renew = this.#options.renewToken;
    if (renew && (ending || this.#refusals >= 2)) {
      this.#refusals = 0;
      this.#token = await renew();
    } else if (!renew && end !== undefined && end <= Date.now()) {
      throw new TokenRefused("the token has expired");
    }
    this.#scheduleRenewal();
  }

  #scheduleRenewal() {
    const { renewToken } = this.#options;
    const end = tokenExpiry(this.#token);
    if (this.#renewTimer !== undefined) this.#cancel(this.#renewTimer);
    if (!renewToken || end === undefined) return;
    const wait = Math.min(MAX_TIMER_MS, Math.max(1_000, end - RENEW_BEFORE_MS - Date.now()));
    this.#renewTimer = this.#later(wait, async () => {
      try {
        if (end - Date.now() <= RENEW_BEFORE_MS) {
          this.#token = await renewToken();
          if (this.#opened) this.#socket?.send(JSON.stringify({ type: "token", access_token: this.#token }));
        }
        this.#scheduleRenewal();
      } catch {
        // The server ends what it no longer allows; the return renews, or ends with a reason.
      }
    });
  }

  #connected() {
    const first = !this.#everOpen;
    this.#opened = this.#everOpen = true;
    this.#returned = !first;
    this.#refusal = undefined;
    this.#refusals = 0;
    this.#heardAt = Date.now();
    this.#calmTimer = this.#later(CALM_MS, () => this.#backoff.reset());
    this.#pings = 0;
    this.#pulse = setInterval(() => this.#beat(), (this.#options.pingEveryMs ?? 10_000) / 2);
    if (first) this.readyState = HearsaySocket.OPEN;
    this.#tell("live");
    if (first) {
      this.dispatchEvent(new Event("open"));
      return;
    }
    if (this.#streaming) this.#startAgain();
    for (const text of this.#queue.splice(0)) this.#socket?.send(text);
    if (!this.#streaming) this.#back({ resent: 0, missing: 0, stream: "none" });
  }

  #startAgain() {
    const start = structuredClone(this.#start) ?? {};
    this.#returning = this.#resume ? "asked" : "plain";
    if (this.#resume) start.hearsay = { ...start.hearsay, resume: this.#resume };
    this.#socket?.send(JSON.stringify(start));
    if (this.#startTimer !== undefined) this.#cancel(this.#startTimer);
    const socket = this.#socket;
    this.#startTimer = this.#later(PATIENCE_MS, () => {
      if (this.#returning !== "no" && socket && this.#socket === socket) this.#broken(socket, 1006, "", false);
    });
  }

  /** The stream goes on. @param {"same" | "new"} stream @param {number} chunk */
  #startedAgain(stream, chunk) {
    if (this.#startTimer !== undefined) this.#cancel(this.#startTimer);
    this.#returning = "no";
    const before = this.#ring.next;
    const missing = stream === "same" ? this.#ring.rewind(chunk) : this.#ring.restart(this.#burst());
    this.#lostTold = this.#ring.lost;
    // Said to the old stream, and wanted of the new one too.
    const stops = (/** @type {string} */ text) => /^stop_/.test(parsed(text)?.type ?? "");
    if (stream === "new" && this.#stopping && !this.#ring.unsentRequests.some(stops)) {
      this.#ring.request('{"type":"stop_request"}');
    }
    // What an old stream was sent, it may well have said.
    const lost = stream === "same" ? missing : this.#ring.lost;
    if (lost > 0) this.dispatchEvent(custom("lost", { chunks: lost }));
    this.#flush();
    this.#back({ resent: stream === "same" ? Math.max(0, before - chunk - missing) : 0, missing, stream });
  }

  /** Bytes a new stream is given at once, as the server counts them. */
  #burst() {
    if (this.#contained) return 0;
    if (this.#start?.hearsay?.recorded) return Infinity;
    const { encoding = "LINEAR16", sampleRateHertz = 16_000 } = this.#start?.config?.speechRecognition ?? {};
    const perSecond = { LINEAR16: 2 * sampleRateHertz, MULAW: sampleRateHertz, FLAC: 288_000 }[String(encoding).toUpperCase()];
    return BURST_S * (perSecond ?? 64_000);
  }

  /** The server does not take the stream up again. @param {{ code: string, details: string }} refusal */
  #strand(refusal) {
    if (this.#startTimer !== undefined) this.#cancel(this.#startTimer);
    this.#returning = "no";
    this.#streaming = this.#stopping = false;
    this.#resume = this.#stream = undefined;
    this.#ring.clear();
    this.#lostTold = 0;
    this.#downSince = 0;
    this.dispatchEvent(custom("refused", refusal));
  }

  /** @param {{ resent: number, missing: number, stream: "same" | "new" | "none" }} how */
  #back(how) {
    const downMs = this.#downSince ? Date.now() - this.#downSince : 0;
    this.#downSince = 0;
    this.dispatchEvent(custom("reconnected", { downMs, since: this.#cursor.position, ...how }));
  }

  /** @param {MessageEvent} event */
  #receive(event) {
    this.#heardAt = Date.now();
    if (typeof event.data !== "string") return this.#deliver(event);
    if (event.data === "__PONG__" && this.#pings > 0) {
      this.#pings -= 1;
      return;
    }
    const frame = parsed(event.data);
    if (!frame) return this.#deliver(event);
    switch (this.#cursor.take(frame)) {
      case "repeated":
        this.dispatchEvent(custom("repeated", frame));
        return;
      case "hole":
        // The way to what is missing is the one of a return.
        if (this.#socket) this.#broken(this.#socket, 1006, "a position is missing", false);
        return;
    }
    if (this.#control(frame)) this.#deliver(event);
  }

  /** What concerns this socket itself. @param {Frame} frame @returns {boolean} whether the caller sees it. */
  #control(frame) {
    switch (frame.type) {
      case "audio_ack":
        this.#ring.ack(frame.chunk);
        this.dispatchEvent(custom("ack", { chunk: frame.chunk, ms: frame.ms }));
        return this.#showsAcks;
      case "resume_token": {
        const same = this.#stream === undefined || this.#stream === frame.stream;
        this.#resume = frame.token;
        this.#stream = frame.stream;
        // The word that it is resumed comes for the same stream only.
        if (this.#returning !== "no" && !same) this.#startedAgain("new", 0);
        return this.#showsAcks;
      }
      case "resumed":
        if (this.#returning !== "no") this.#startedAgain("same", frame.chunk);
        return false;
      case "event":
        return frame.kind !== "position";
      case "gap":
        if (frame.reason === "conversation") this.#conversation = undefined;
        return true;
      case "message":
        return this.#wrapped(frame.message ?? {});
      default:
        return true;
    }
  }

  /** @param {Frame} message @returns {boolean} */
  #wrapped(message) {
    const again = this.#returning !== "no";
    switch (message.type) {
      case "started_listening":
        return this.#untold.delete(message.type) || !again;
      case "conversation_created":
      case "recognition_started": {
        const known = message.data?.conversationId === this.#conversation;
        const listens = this.#kind === "listen" && this.#returned;
        const awaited = this.#untold.delete(message.type);
        this.#conversation = message.data?.conversationId;
        this.dispatchEvent(custom("conversation", { id: this.#conversation }));
        // Without a token to return with there is no word to wait for.
        if (again && message.type === "recognition_started" && this.#returning === "plain") this.#startedAgain("new", 0);
        return awaited || !known || !(again || listens);
      }
      case "recognition_stopped":
      case "conversation_completed":
        this.#streaming = this.#stopping = false;
        this.#resume = this.#stream = undefined;
        return true;
      case "error": {
        const { code = "", details = "" } = message;
        this.#refusal = { code, details };
        this.#retryAfterMs = Number(message.retryAfterMs) || 0;
        if (!again || this.#retryAfterMs || ASIDE.has(code)) return true;
        if (this.#returning === "asked" && details.startsWith("hearsay.resume")) {
          // The stream is no longer there to be resumed: a new one is.
          this.#resume = this.#stream = undefined;
          this.#startAgain();
          return false;
        }
        this.#strand({ code, details });
        return true;
      }
      default:
        return true;
    }
  }

  /** @param {MessageEvent} event */
  #deliver(event) {
    this.dispatchEvent(native("message", { data: event.data, origin: event.origin }));
  }

  #beat() {
    const every = this.#options.pingEveryMs ?? 10_000;
    const now = Date.now();
    // Timers of a page in the background sleep: what counts is that an answer was asked for, and when.
    if (this.#pings > 0 && this.#heardAt < this.#pingedAt) {
      if (now - this.#pingedAt >= every && this.#socket) this.#broken(this.#socket, 1006, "no sign of life", false);
    } else if (now - this.#heardAt >= every) {
      this.#ping();
    }
  }

  #ping() {
    this.#pings += 1;
    this.#pingedAt = Date.now();
    this.#socket?.send("__PING__");
  }

  /** @param {WebSocket} socket @param {number} code @param {string} reason @param {boolean} clean */
  #broken(socket, code, reason, clean) {
    if (this.#socket !== socket) return;
    const opened = this.#opened;
    this.#forget();
    const renewable = this.#refusal?.code === "token_expired" && this.#options.renewToken !== undefined;
    // Nothing was wrong with what a slow reader is or asks.
    const slow = this.#refusal?.code === "slow_reader" || reason.startsWith("slow_reader");
    const final = opened && FINAL_CODES.has(code) && !renewable && !slow;
    if (this.readyState >= HearsaySocket.CLOSING || final) return this.#end(code, reason, clean);
    if (renewable) this.#refusals = 2;
    else if (!opened) this.#refusals += 1;
    if (renewable) this.#refusal = undefined;
    if (opened) this.#downSince ||= Date.now();
    this.#retry();
  }

  /** Lets go of a socket that is of no more use. */
  #forget() {
    clearInterval(this.#pulse);
    if (this.#calmTimer !== undefined) this.#cancel(this.#calmTimer);
    const socket = this.#socket;
    this.#socket = undefined;
    this.#opened = false;
    // Until the server says where to go on, nothing is sent.
    if (this.#streaming) this.#returning = "plain";
    if (!socket) return;
    socket.onopen = socket.onmessage = socket.onclose = null;
    try {
      socket.close();
    } catch {
      // Closed already.
    }
  }

  #retry() {
    const held = this.#streaming && this.#resume !== undefined && Date.now() - this.#downSince < HELD_MS;
    const delayMs = this.#backoff.next(this.#retryAfterMs, held ? HURRY_MS : undefined);
    this.#retryAfterMs = 0;
    this.#tell("waiting", delayMs);
    this.#retryTimer = this.#later(delayMs, () => void this.#connect());
  }

  /** The network is said to be back. */
  #hurry = () => {
    if (this.#retryTimer === undefined) return;
    this.#cancel(this.#retryTimer);
    void this.#connect();
  };

  /** The network is said to be gone: a dead connection would not say so for long. */
  #doubt = () => {
    if (this.#opened) this.#ping();
  };

  /** @param {number} code @param {string} reason @param {boolean} wasClean */
  #end(code, reason, wasClean) {
    if (this.readyState === HearsaySocket.CLOSED) return;
    this.readyState = HearsaySocket.CLOSED;
    this.#forget();
    for (const timer of this.#timers) clearTimeout(timer);
    this.#timers.clear();
    globalThis.removeEventListener?.("online", this.#hurry);
    globalThis.removeEventListener?.("offline", this.#doubt);
    this.#tell("closed");
    if (!wasClean) this.dispatchEvent(new Event("error"));
    this.dispatchEvent(native("close", { code, reason, wasClean }));
  }

  /** @param {"connecting" | "live" | "waiting" | "closed"} state @param {number} [delayMs] */
  #tell(state, delayMs = 0) {
    this.dispatchEvent(custom("connection", { state, attempt: this.#backoff.tries, delayMs }));
  }

  /** @param {number} ms @param {() => void} run */
  #later(ms, run) {
    const timer = setTimeout(() => {
      this.#timers.delete(timer);
      run();
    }, ms);
    this.#timers.add(timer);
    return timer;
  }

  /** @param {ReturnType<typeof setTimeout>} timer */
  #cancel(timer) {
    clearTimeout(timer);
    this.#timers.delete(timer);
  }
}

/** @param {string} text @returns {Frame | undefined} */
function parsed(text) {
  try {
    const value = JSON.parse(text);
    return value !== null && typeof value === "object" && !Array.isArray(value) ? value : undefined;
  } catch {
    return undefined;
  }
}

/** @param {ArrayBuffer} data @param {string} head */
const begins = (data, head) => String.fromCharCode(...new Uint8Array(data, 0, Math.min(data.byteLength, head.length))) === head;

/** @param {ArrayBufferLike | ArrayBufferView} data @returns {ArrayBuffer} */
function copied(data) {
  const bytes = ArrayBuffer.isView(data) ? new Uint8Array(data.buffer, data.byteOffset, data.byteLength) : new Uint8Array(data);
  return /** @type {ArrayBuffer} */ (bytes.slice().buffer);
}

// ---------------------------------------------------------------------------------------------------------------------
// Where audio comes from
// ---------------------------------------------------------------------------------------------------------------------

/**
 * @typedef {object} Source Something to speak with: a microphone, or a recording played as if spoken.
 * @property {"microphone" | "recording"} kind
 * @property {string} label
 * @property {MediaStream} [stream]
 * @property {ArrayBuffer} [file] Undecoded.
 * @property {boolean} [audible] The recording is heard here, too.
 */

/**
 * Asks for the microphone.
 * @param {MediaTrackConstraints} [constraints]
 * @returns {Promise<Source>}
 */
export async function microphone(constraints = {}) {
  if (!navigator.mediaDevices) {
    throw new Error("this page is not on a secure address: browsers give microphones to https:// and to localhost only");
  }
  const audio = { echoCancellation: true, noiseSuppression: true, autoGainControl: true, ...constraints };
  const stream = await navigator.mediaDevices.getUserMedia({ audio });
  return { kind: "microphone", label: stream.getAudioTracks()[0]?.label || "Microphone", stream };
}

/**
 * A file that the browser can decode, played as if spoken.
 * @param {Blob} file
 * @param {{ audible?: boolean }} [options]
 * @returns {Promise<Source>}
 */
export async function recording(file, { audible = false } = {}) {
  const name = "name" in file ? String(file.name) : "Recording";
  return { kind: "recording", label: name, file: await file.arrayBuffer(), audible };
}

/** @template T @param {number} ms @param {Promise<T>} promise @param {string} late @returns {Promise<T>} */
function within(ms, promise, late) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error(late)), ms);
    promise.then(resolve, reject).finally(() => clearTimeout(timer));
  });
}

/**
 * One stream of audio into a meeting. Events with `detail`: `level` (`{ peak }`, 0 to 1), `latency` (`{ ms }`), `health`,
 * `progress` (`{ seconds, of }`, of a recording), `lost`, `reconnected`, `refused` (`{ code, details }`), `ended`
 * (`{ reason }`).
 */
export class Voice extends Target {
  socket;
  source;
  clock = new AudioClock();
  /** Between the end of what was said and its final here: ms, the latest last. @type {number[]} */
  latencies = [];
  muted = false;
  encoding;

  /** @type {AudioContext} */ #context;
  /** @type {AudioWorkletNode | undefined} */ #tap;
  /** @type {AudioNode | undefined} */ #input;
  /** @type {MediaRecorder | undefined} */ #recorder;
  /** @type {ReturnType<typeof setInterval> | undefined} */ #progress;
  #messageMs;
  #ended = false;
  /** Finals whose place on the clock is not sure yet. @type {{ ms: number, at: number }[]} */ #waiting = [];

  /**
   * @param {HearsaySocket} socket
   * @param {Source} source
   * @param {AudioContext} context
   * @param {{ encoding: "LINEAR16" | "OPUS", messageMs: number }} how
   */
  constructor(socket, source, context, how) {
    super();
    this.socket = socket;
    this.source = source;
    this.encoding = how.encoding;
    this.#context = context;
    this.#messageMs = how.messageMs;
    for (const type of ["lost", "reconnected", "connection"]) {
      socket.addEventListener(type, (event) => this.dispatchEvent(custom(type, /** @type {CustomEvent} */ (event).detail)));
    }
    socket.addEventListener("reconnected", (event) => {
      if (/** @type {CustomEvent} */ (event).detail.stream !== "new") return;
      this.clock.restart(socket.chunks.next);
      this.#waiting = [];
      // A recorder's file makes sense from its beginning only.
      if (this.#recorder && this.#recorder.state !== "inactive") this.#record();
    });
    socket.addEventListener("refused", (event) => {
      this.#end(/** @type {CustomEvent} */ (event).detail.details);
      socket.close(1000);
    });
    socket.addEventListener("ack", (event) => this.#acked(/** @type {CustomEvent} */ (event).detail));
    socket.addEventListener("close", (event) => this.#end(/** @type {CloseEvent} */ (event).reason || `closed with ${/** @type {CloseEvent} */ (event).code}`));
  }

  /** Ms of audio that the server's log does not cover yet. */
  get uncoveredMs() {
    return this.clock.since(this.socket.chunks.acked);
  }

  /** Sound begins to flow. @returns {Promise<void>} */
  async begin() {
    const { stream, file, audible } = this.source;
    const context = this.#context;
    // Browsers start sound only for a person, and some only where there is a device to hear it by; they do not say so.
    await within(PATIENCE_MS, context.resume(), "the browser does not start its sound: click into the page, and see whether it has an output device");
    await context.audioWorklet.addModule(import.meta.url);
    const samples = Math.round((context.sampleRate * this.#messageMs) / 1_000);
    this.#tap = new AudioWorkletNode(context, "hearsay-tap", {
      channelCount: 1,
      channelCountMode: "explicit",
      outputChannelCount: [1],
      processorOptions: { samples },
    });
    this.#tap.port.onmessage = ({ data }) => this.#heard(data);
    this.#tap.connect(context.destination);
    if (this.encoding === "OPUS") this.#record();
    if (stream) {
      this.#input = context.createMediaStreamSource(stream);
      stream.getAudioTracks()[0]?.addEventListener("ended", () => void this.stop());
      this.#connect(this.#input);
    } else if (file) {
      const buffer = await context.decodeAudioData(file.slice(0));
      const player = context.createBufferSource();
      player.buffer = buffer;
      player.onended = () => void this.stop();
      if (audible) player.connect(context.destination);
      this.#input = player;
      this.#connect(player);
      const began = context.currentTime;
      const tell = () => this.dispatchEvent(custom("progress", { seconds: Math.min(buffer.duration, context.currentTime - began), of: buffer.duration }));
      this.#progress = setInterval(tell, 250);
      player.start();
    }
  }

  /** @param {AudioNode} input */
  #connect(input) {
    if (this.#tap) input.connect(this.#tap);
    if (this.#sink) input.connect(this.#sink);
  }

  /** @type {MediaStreamAudioDestinationNode | undefined} */ #sink;

  /** Compressed by the browser: a tenth of the bytes, and a little later. */
  #record() {
    this.#sink ??= this.#context.createMediaStreamDestination();
    const before = this.#recorder;
    if (before) {
      before.ondataavailable = null;
      before.stop();
    }
    const recorder = new MediaRecorder(this.#sink.stream, { mimeType: "audio/webm;codecs=opus", audioBitsPerSecond: 32_000 });
    recorder.ondataavailable = ({ data }) => {
      if (data.size === 0) return;
      this.socket.send(data);
      this.clock.heard(this.#messageMs, performance.now());
    };
    recorder.start(this.#messageMs);
    if (this.muted) recorder.pause();
    this.#recorder = recorder;
  }

  /** @param {{ pcm: ArrayBuffer, ms: number, peak: number }} heard */
  #heard({ pcm, ms, peak }) {
    if (this.#ended || this.muted) return;
    if (pcm.byteLength > 0 && this.encoding === "LINEAR16") {
      this.socket.send(pcm);
      this.clock.heard(ms, performance.now());
    }
    this.dispatchEvent(custom("level", { peak }));
  }

  /** @param {boolean} muted Nothing is sent meanwhile. The stream stays. */
  mute(muted) {
    this.muted = muted;
    for (const track of this.source.stream?.getAudioTracks() ?? []) track.enabled = !muted;
    if (muted) this.#recorder?.pause();
    else this.#recorder?.resume();
    if (muted) this.dispatchEvent(custom("level", { peak: 0 }));
  }

  /** A final of this stream: where it ends on the server's clock. @param {number} ms @param {number} at When it came. */
  final(ms, at) {
    this.#waiting.push({ ms, at });
    if (this.#waiting.length > 64) this.#waiting.shift();
  }

  /** @param {{ chunk: number, ms: number }} ack */
  #acked({ chunk, ms }) {
    this.clock.align(chunk, ms);
    // An acknowledgement covers a final whose place it has passed, and says which chunks that was.
    this.#waiting = this.#waiting.filter((final) => {
      if (final.ms > ms) return true;
      const heard = this.clock.heardAt(final.ms);
      if (heard !== undefined) {
        this.latencies.push(Math.max(0, final.at - heard));
        if (this.latencies.length > 256) this.latencies.shift();
        this.dispatchEvent(custom("latency", { ms: this.latencies.at(-1) }));
      }
      return false;
    });
  }

  /** Ends in good order: the last words come, then the socket closes. @returns {Promise<void>} */
  async stop() {
    if (this.#ended) return;
    clearInterval(this.#progress);
    const closed = new Promise((resolve) => this.addEventListener("ended", resolve, { once: true }));
    await this.#silence();
    this.socket.send('{"type":"stop_request"}');
    // Whoever is offline comes back to say what is left; not for ever.
    const late = setTimeout(() => this.socket.close(), SPEAK_MS);
    await closed;
    clearTimeout(late);
  }

  async #silence() {
    this.#input?.disconnect();
    for (const track of this.source.stream?.getTracks() ?? []) track.stop();
    const recorder = this.#recorder;
    if (recorder && recorder.state !== "inactive") {
      const stopped = new Promise((resolve) => (recorder.onstop = resolve));
      recorder.stop();
      await stopped;
    }
    const tap = this.#tap;
    if (!tap) return;
    this.#tap = undefined;
    await new Promise((resolve) => {
      // A context that is suspended never answers.
      setTimeout(resolve, 500);
      tap.port.onmessage = ({ data }) => {
        if (data === "flushed") resolve(undefined);
        else this.#heard(data);
      };
      tap.port.postMessage("flush");
    });
    tap.disconnect();
  }

  /** @param {string} reason */
  #end(reason) {
    if (this.#ended) return;
    this.#ended = true;
    clearInterval(this.#progress);
    void this.#silence().then(() => this.#context.close());
    this.dispatchEvent(custom("ended", { reason }));
  }
}

// ---------------------------------------------------------------------------------------------------------------------
// A meeting
// ---------------------------------------------------------------------------------------------------------------------

/** @typedef {{ id: string, name: string, userId: string }} Person The id is the same in all conversations of a meeting. */
/**
 * @typedef {object} Caption
 * @property {string} id Of a sentence; of a provisional caption, its speaker's.
 * @property {Person} speaker
 * @property {string} text
 * @property {boolean} final Provisional captions of a speaker replace each other until a final does.
 * @property {number} at When it was said, in ms since 1970, as the server has it; when it came, of a provisional one.
 */
/** @typedef {Person & { speaking: boolean, present: boolean }} Member */
/** @typedef {{ messageId: string, start: number, end: number }} Evidence Characters (code points) of a caption's text; `start` = `end`: all of it. */
/**
 * What was understood of the conversation.
 * @typedef {object} Insight
 * @property {string} id
 * @property {"question" | "action_item" | "follow_up" | "topic" | "tracker" | "entity"} kind
 * @property {string} text The sentence; the phrase of a topic, the name of a tracker, the words of an entity.
 * @property {Person} [from]
 * @property {Person} [assignee]
 * @property {string} [due] RFC 3339.
 * @property {number} score 0 to 1.
 * @property {Evidence[]} evidence The words it came from.
 * @property {number} revision A higher one of the same id replaces it.
 */
/** @typedef {{ speakers: { user: Person, talkMs: number, ratio: number, wpm: number, interruptions: number }[], silenceMs: number, overlapMs: number }} Analytics */
/** @typedef {{ id: string, name: string, startTime: string, topics: string[], summary: string[], actionItems: { text: string, assignee?: string, dueBy?: string }[] }} Earlier A conversation somebody was in before. */

/**
 * A conversation has its own id for each of its members; the client's own outlives it.
 * @param {Partial<Person>} [user]
 * @returns {Person}
 */
function person({ id = "", name = "", userId = "" } = {}) {
  return { id: userId || id, name, userId };
}

/** @param {Frame} frame @returns {Analytics} */
function analytics({ speakers = [], silenceMs = 0, overlapMs = 0 }) {
  const speaker = (/** @type {Frame} */ { user, talkMs, ratio, wpm, interruptions }) => ({ user: person(user), talkMs, ratio, wpm, interruptions });
  return { speakers: speakers.map(speaker), silenceMs, overlapMs };
}

/** Insights of a message of the server. @param {Frame} frame @returns {(Insight & { retracted: boolean })[]} */
function understood(frame) {
  const both = (/** @type {Frame} */ { id, revision = 0, retracted = false, evidence = [] }) => ({ id, revision, retracted, evidence });
  return [
    ...(frame.insights ?? []).map((/** @type {Frame} */ it) => ({
      ...both(it),
      kind: it.type,
      text: it.text,
      from: it.from && person(it.from),
      assignee: it.assignee && person(it.assignee),
      due: it.dueBy?.value,
      score: it.confidence,
    })),
    ...(frame.topics ?? []).map((/** @type {Frame} */ it) => ({ ...both(it), kind: "topic", text: it.phrases, score: it.score })),
    ...(frame.trackers ?? []).map((/** @type {Frame} */ it) => ({ ...both(it), kind: "tracker", text: it.name, score: 1 })),
    ...(frame.entities ?? []).map((/** @type {Frame} */ it) => ({ ...both(it), kind: "entity", text: it.matches?.[0]?.detectedValue ?? "", score: 1 })),
  ];
}

/** An insight of a snapshot. @param {Frame} found @returns {Insight & { retracted: boolean }} */
function kept({ id, type, text, score, from, assignee, dueBy, evidence = [], revision = 0 }) {
  return { id, kind: /** @type {Insight["kind"]} */ (type), text, score, from: from && person(from), assignee: assignee && person(assignee), due: dueBy, evidence, revision, retracted: false };
}

/** Finals kept; older ones are read over REST. */
const MAX_CAPTIONS = 2_000;
/** A provisional caption that nothing follows is of a speaker who is gone. */
const STALE_MS = 20_000;
/** A listener whose conversation ended waits for the meeting's next one. */
const AGAIN_MS = 1_000;
/** A listener that returned and hears nothing of its conversation for this long asks whether it ended. */
const QUIET_MS = 3_000;
/** Insights kept of one conversation; the oldest go. */
const MAX_INSIGHTS = 2_000;
/** People remembered; first those go who left. */
const MAX_MEMBERS = 1_000;
/** People of whom one is asked what is known of them, when joining late. */
const MAX_ASKED = 50;

/**
 * One meeting: what is said in it, by whom, and a voice in it.
 *
 * Events with `detail`: `caption` (a {@link Caption}), `withdrawn` (a speaker's provisional caption is gone: its id),
 * `members`, `connection` (`{ state, delayMs }`), `reconnected`, `resumed` (`{ whole }`: the first word after a return says
 * whether anything is missing), `gap` (`{ reason, recovered }`: something is missing, or was read again), `degraded` and
 * `recovered` (`{ since, reason }`: what is said comes late, for the gateway cannot read it), `conversation` (`{ id, state: "began" | "ended" }`), `listeners` (`{ count }`), `trouble`
 * (`{ code, details }`), `insight` (an {@link Insight}, new or revised), `retracted` (its id), `analytics`, `history`
 * (`{ participant, conversations }`: somebody was in these before; for tokens that may read them), `frame` (every message
 * as it came).
 */
export class Meeting extends Target {
  /** Finals in the order of the log. @type {Caption[]} */
  captions = [];
  /** Provisional captions by speaker. @type {Map<string, Caption>} */
  provisional = new Map();
  /** @type {Map<string, Member>} */
  members = new Map();
  /** What was understood of the conversation that goes on, by id. @type {Map<string, Insight>} */
  insights = new Map();
  /** Who spoke how long, so far. @type {Analytics | undefined} */
  analytics;
  /** Earlier conversations of people, latest first. @type {Map<string, Earlier[]>} */
  earlier = new Map();
  /** @type {Voice | undefined} */
  voice;
  /** Of the own stream, as the server tells it. @type {Frame | undefined} */
  streamHealth;
  /** @type {string | undefined} */
  conversationId;
  name;
  userId;
  meeting;
  url;

  #token;
  #title;
  #insightTypes;
  /** @type {{ name: string, vocabulary: string[] }[]} */ #trackers;
  /** @type {HearsaySocket | undefined} */ #speaking;
  /** The token does not let its holder read what is known of people. */ #unknowing = false;
  /** @type {HearsaySocket | undefined} */ #listening;
  /** @type {Set<string>} */ #known = new Set();
  /** @type {Map<string, ReturnType<typeof setTimeout>>} */ #stale = new Map();
  /** @type {ReturnType<typeof setTimeout> | undefined} */ #again;
  /** @type {ReturnType<typeof setTimeout> | undefined} */ #quiet;
  /** @type {Promise<string> | undefined} */ #renewing;
  #renewToken;
  #left = false;
  /** This listener came back, and has not heard yet how much it missed. */ #returned = false;

  /**
   * @param {object} options
   * @param {string} options.url Where the gateway is, like `https://hearsay.example.org`.
   * @param {string} options.meeting
   * @param {string} options.token
   * @param {() => Promise<string>} [options.renewToken] Without it, the server is asked for a longer-lived token of the same rights.
   * @param {string} [options.name] Of who speaks here.
   * @param {string} [options.userId] Two voices of one id are one member.
   * @param {string} [options.title]
   * @param {string[]} [options.insightTypes] What is to be found in what everybody says: `question`, `action_item`, `follow_up`, `topic`.
   * @param {{ name: string, vocabulary: string[] }[]} [options.trackers]
   */
  constructor({ url, meeting, token, renewToken, name = "", userId, title, insightTypes = [], trackers = [] }) {
    super();
    this.url = new URL(url, globalThis.location?.href).origin;
    this.meeting = meeting;
    this.name = name;
    this.userId = userId ?? `${name || "guest"}-${crypto.randomUUID()}`;
    this.#token = token;
    this.#title = title;
    this.#insightTypes = insightTypes;
    this.#trackers = trackers;
    this.#renewToken = renewToken ?? (() => this.#refresh());
  }

  /** How far the captions are. */
  get position() {
    return this.#listening?.position;
  }

  /** Everything said from here on, and what was said already. */
  listen() {
    if (this.#listening || this.#left) return;
    // All positions, so that a missing one is seen, and repaired.
    const socket = this.#socket("/v1/subscribe/", "?history=snapshot&view=all&presence=true");
    this.#listening = socket;
    socket.addEventListener("message", (event) => this.#frame(JSON.parse(/** @type {MessageEvent} */ (event).data)));
    socket.addEventListener("connection", (event) => this.#pass(event));
    socket.addEventListener("reconnected", (event) => {
      this.#returned = true;
      this.#pass(event);
      // A listener whose conversation goes on is told so at once; where it ended meanwhile, nothing comes.
      clearTimeout(this.#quiet);
      this.#quiet = setTimeout(() => void this.#missed(false), QUIET_MS);
    });
    socket.addEventListener("conversation", () => clearTimeout(this.#quiet));
    socket.addEventListener("close", (event) => {
      const { code, reason } = /** @type {CloseEvent} */ (event);
      this.#listening = undefined;
      if (this.#left) return;
      if (code !== 1000) {
        const { refusal } = socket;
        const forbidden = code === 1008 && ["forbidden", "token_expired"].includes(refusal?.code ?? "");
        const details = refusal?.details || reason || `the server closed with ${code}`;
        this.dispatchEvent(custom("trouble", { code: forbidden ? "forbidden" : "closed", details }));
        return;
      }
      // The conversation is over, or nobody opened one yet: the next of this name is waited for.
      this.#again = setTimeout(() => this.listen(), AGAIN_MS * (0.5 + Math.random()));
    });
  }

  /**
   * Speaks: resolves when the server listens.
   * @param {Source} source
   * @param {{ encoding?: "LINEAR16" | "OPUS", messageMs?: number }} [options] messageMs: audio in one message, 20 to 100.
   * @returns {Promise<Voice>}
   */
  async speak(source, { encoding = "LINEAR16", messageMs = 40 } = {}) {
    if (this.voice) throw new Error("this meeting has a voice already; stop it first");
    let context = new AudioContext({ latencyHint: "interactive" });
    if (context.sampleRate > 48_000) {
      await context.close();
      context = new AudioContext({ latencyHint: "interactive", sampleRate: 48_000 });
    }
    const socket = this.#socket("/v1/streaming/", "");
    const voice = new Voice(socket, source, context, { encoding, messageMs: Math.max(20, Math.min(100, messageMs)) });
    this.voice = voice;
    voice.addEventListener("ended", () => {
      if (this.voice === voice) this.voice = this.#speaking = undefined;
      this.streamHealth = undefined;
    });
    const start = {
      type: "start_request",
      insightTypes: this.#insightTypes,
      ...(this.#trackers.length > 0 ? { trackers: this.#trackers } : {}),
      config: {
        ...(this.#title ? { meetingTitle: this.#title } : {}),
        speechRecognition: { encoding, sampleRateHertz: encoding === "OPUS" ? 48_000 : context.sampleRate },
      },
      speaker: { userId: this.userId, name: this.name },
      noConnectionTimeout: 60,
      // Whoever listens, too, is told who comes and goes by that socket.
      hearsay: { ack: true, health: true, presence: this.#listening === undefined },
    };
    this.#speaking = socket;
    try {
      await new Promise((resolve, reject) => {
        setTimeout(() => reject(new Error("the server did not answer in time")), SPEAK_MS);
        voice.addEventListener("ended", (event) => reject(new Error(/** @type {CustomEvent} */ (event).detail.reason)));
        socket.addEventListener("open", () => socket.send(JSON.stringify(start)));
        socket.addEventListener("message", (event) => {
          const frame = JSON.parse(/** @type {MessageEvent} */ (event).data);
          const type = frame.message?.type;
          if (type === "recognition_started") resolve(undefined);
          if (type === "error") reject(new Error(frame.message.details));
          this.#own(voice, frame);
        });
      });
      await voice.begin();
    } catch (error) {
      for (const track of source.stream?.getTracks() ?? []) track.stop();
      this.voice = this.#speaking = undefined;
      socket.close();
      throw error;
    }
    return voice;
  }

  /**
   * Watches for these from now on, and in what was said before. Takes effect while this meeting has a voice.
   * @param {{ name: string, vocabulary: string[] }[]} trackers
   */
  track(trackers) {
    this.#trackers = trackers;
    this.#speaking?.send(JSON.stringify({ type: "update_request", trackers }));
  }

  /** Stops speaking and listening. */
  async leave() {
    this.#left = true;
    clearTimeout(this.#again);
    clearTimeout(this.#quiet);
    for (const timer of this.#stale.values()) clearTimeout(timer);
    await this.voice?.stop();
    this.#listening?.close(1000);
  }

  /**
   * A token for somebody else, good for this meeting only.
   * @returns {Promise<string>}
   * @throws when the server gives none.
   */
  async invite() {
    const body = { type: "meeting", meeting: this.meeting, permissions: ["publish", "subscribe"] };
    const answer = await this.#fetch("/oauth2/token:generate", body);
    if (typeof answer.accessToken !== "string") throw new Error("the server's answer holds no token");
    return answer.accessToken;
  }

  /** @param {string} path @param {string} query */
  #socket(path, query) {
    const address = this.url.replace("http", "ws") + path + encodeURIComponent(this.meeting) + query;
    return new HearsaySocket(address, { token: this.#token, renewToken: () => this.#renew() });
  }

  /** One renewal for all sockets. */
  #renew() {
    this.#renewing ??= this.#renewToken()
      .then((token) => (this.#token = token))
      .finally(() => (this.#renewing = undefined));
    return this.#renewing;
  }

  async #refresh() {
    const answer = await this.#fetch("/oauth2/token:refresh", {});
    return String(answer.accessToken);
  }

  /** @param {string} path @param {object} [body] @returns {Promise<any>} */
  async #fetch(path, body) {
    const response = await fetch(this.url + path, {
      method: body ? "POST" : "GET",
      headers: { authorization: `Bearer ${this.#token}`, ...(body ? { "content-type": "application/json" } : {}) },
      ...(body ? { body: JSON.stringify(body) } : {}),
      signal: AbortSignal.timeout(PATIENCE_MS),
    });
    const answer = await response.json().catch(() => ({}));
    if (response.ok) return answer;
    const message = typeof answer.message === "string" ? answer.message : `the server answered ${response.status}`;
    const refused = response.status === 401 || response.status === 403;
    throw refused ? new TokenRefused(message) : new Error(message);
  }

  /** @param {Event} event */
  #pass(event) {
    this.dispatchEvent(custom(event.type, /** @type {CustomEvent} */ (event).detail));
  }

  /** What the own stream's socket says beside captions, which come by the other. @param {Voice} voice @param {Frame} frame */
  #own(voice, frame) {
    switch (frame.type) {
      case "stream_health":
        this.streamHealth = frame;
        voice.dispatchEvent(custom("health", frame));
        break;
      case "presence":
        this.#presence(frame);
        break;
      case "message_response":
        for (const said of frame.messages ?? []) {
          if (said.from?.userId === this.userId) voice.final((said.duration.timeOffset + said.duration.duration) * 1_000, performance.now());
        }
        break;
      case "message":
        if (frame.message?.type === "error") {
          const { code, details } = frame.message;
          voice.dispatchEvent(custom("refused", { code, details }));
          this.dispatchEvent(custom("trouble", { code, details }));
        }
        break;
    }
  }

  /** @param {Frame} frame */
  #presence({ kind, user, listeners }) {
    if (kind === "listeners") this.dispatchEvent(custom("listeners", { count: listeners }));
    const member = this.#member(user);
    if (!member) return;
    const { present, speaking } = member;
    if (kind === "joined") member.present = true;
    if (kind === "left") member.present = member.speaking = false;
    if (kind === "speaking" || kind === "silent") member.speaking = kind === "speaking";
    if (present !== member.present || speaking !== member.speaking) this.#tellMembers();
  }

  #tellMembers() {
    this.dispatchEvent(custom("members", [...this.members.values()]));
  }

  /** @param {Partial<Person> | undefined} user @returns {Member | undefined} */
  #member(user) {
    const who = person(user);
    if (!who.id) return undefined;
    let member = this.members.get(who.id);
    if (!member) {
      member = { ...who, speaking: false, present: true };
      this.members.set(who.id, member);
      if (this.members.size > MAX_MEMBERS) {
        const [oldest] = this.members.keys();
        const gone = [...this.members.values()].find(({ present }) => !present)?.id ?? oldest;
        this.members.delete(gone);
        this.earlier.delete(gone);
      }
      this.#tellMembers();
    }
    return member;
  }

  /** @param {Frame} frame */
  #frame(frame) {
    this.dispatchEvent(custom("frame", frame));
    if (this.#returned) this.#resumed(frame);
    switch (frame.type) {
      case "degraded":
      case "recovered":
        this.dispatchEvent(custom(frame.type, { since: frame.since, reason: frame.reason }));
        return;
      case "snapshot":
        return this.#snapshot(frame.conversation);
      case "message_response":
        for (const said of frame.messages ?? []) {
          this.#final({ id: said.id, speaker: person(said.from), text: said.payload.content, final: true, at: Date.parse(said.duration?.startTime) || Date.now() });
        }
        return;
      case "message":
        if (frame.message?.type === "recognition_result") this.#caption(frame.message);
        else if (frame.message?.type === "conversation_created") this.#began(frame.message.data.conversationId);
        else if (frame.message?.type === "conversation_completed") this.#ended();
        return;
      case "presence":
        return this.#presence(frame);
      case "analytics":
        this.analytics = analytics(frame);
        this.dispatchEvent(custom("analytics", this.analytics));
        return;
      case "history":
        return this.#history(frame);
      case "insight_response":
      case "topic_response":
      case "tracker_response":
      case "entity_response":
        for (const found of understood(frame)) this.#insight(found);
        return;
      case "gap":
        if (frame.reason === "conversation") void this.#missed(true);
        else this.dispatchEvent(custom("gap", { reason: frame.reason, recovered: false }));
        return;
    }
  }

  /** Every position is shown here, so that the first one proves that nothing lies between. @param {Frame} frame */
  #resumed(frame) {
    const missed = frame.type === "gap" || frame.type === "snapshot";
    if (!missed && !parsePosition(frame.position)) return;
    this.#returned = false;
    this.dispatchEvent(custom("resumed", { whole: !missed }));
  }

  /** @param {string} id */
  #began(id) {
    if (this.conversationId === id) return;
    const before = this.conversationId;
    this.conversationId = id;
    if (before) {
      this.#forgetSpeaking();
      this.insights.clear();
      this.analytics = undefined;
    }
    this.dispatchEvent(custom("conversation", { id, state: "began" }));
  }

  #ended() {
    this.#forgetSpeaking();
    for (const member of this.members.values()) member.present = member.speaking = false;
    this.#tellMembers();
    this.dispatchEvent(custom("conversation", { id: this.conversationId, state: "ended" }));
  }

  #forgetSpeaking() {
    for (const id of [...this.provisional.keys()]) this.#withdraw(id);
  }

  /** @param {Frame} message */
  #caption(message) {
    const member = this.#member(message.user);
    const id = member?.id ?? "";
    const speaker = person(message.user);
    // The sentences of a final follow as messages, with ids.
    if (message.isFinal) return this.#withdraw(id, true);
    const caption = { id, speaker, text: message.punctuated?.transcript ?? "", final: false, at: Date.now() };
    this.provisional.set(id, caption);
    clearTimeout(this.#stale.get(id));
    this.#stale.set(id, setTimeout(() => this.#withdraw(id), STALE_MS));
    if (member && !member.speaking) {
      member.speaking = member.present = true;
      this.#tellMembers();
    }
    this.dispatchEvent(custom("caption", caption));
  }

  /** @param {string} id Of a speaker. @param {boolean} [quietly] Its final follows. */
  #withdraw(id, quietly = false) {
    clearTimeout(this.#stale.get(id));
    this.#stale.delete(id);
    const member = this.members.get(id);
    if (member?.speaking) {
      member.speaking = false;
      this.#tellMembers();
    }
    if (this.provisional.delete(id) && !quietly) this.dispatchEvent(custom("withdrawn", { id }));
  }

  /** @param {Caption} caption */
  #final(caption) {
    if (this.#known.has(caption.id)) return;
    this.#known.add(caption.id);
    this.#member(caption.speaker);
    this.captions.push(caption);
    if (this.captions.length > MAX_CAPTIONS) this.#known.delete(this.captions.shift()?.id ?? "");
    this.dispatchEvent(custom("caption", caption));
  }

  /** @param {Frame} conversation In the shapes of REST. */
  #snapshot(conversation) {
    this.#began(conversation.id);
    for (const member of conversation.members ?? []) this.#member(member);
    this.#read(conversation.messages ?? []);
    for (const name of ["insights", "topics", "trackers"]) {
      for (const found of conversation[name] ?? []) this.#insight(kept(found));
    }
    void this.#recall(conversation.members ?? []);
    this.#forgetSpeaking();
    for (const open of conversation.partials ?? []) {
      this.#caption({ user: open.user, punctuated: { transcript: open.text } });
    }
  }

  /** @param {Insight & { retracted: boolean }} found */
  #insight({ retracted, ...insight }) {
    const known = this.insights.get(insight.id);
    // A branch of the log tells again what is known.
    if (known && known.revision > insight.revision) return;
    if (retracted) {
      if (this.insights.delete(insight.id)) this.dispatchEvent(custom("retracted", { id: insight.id }));
      return;
    }
    this.insights.set(insight.id, insight);
    const [oldest] = this.insights.keys();
    if (this.insights.size > MAX_INSIGHTS) this.insights.delete(oldest);
    this.dispatchEvent(custom("insight", insight));
  }

  /** @param {Frame} frame */
  #history({ participant, conversations }) {
    const who = person(participant);
    if (!who.id || !conversations?.length) return;
    this.earlier.set(who.id, conversations);
    const [oldest] = this.earlier.keys();
    if (this.earlier.size > MAX_MEMBERS) this.earlier.delete(oldest);
    this.dispatchEvent(custom("history", { participant: who, conversations }));
  }

  /** What is known of who was here before this listener. @param {Frame[]} members In the shape of REST. */
  async #recall(members) {
    for (const { id, ...user } of members.slice(0, MAX_ASKED)) {
      const who = person({ id, ...user });
      if (!user.userId || this.earlier.has(who.id) || this.#unknowing || this.#left) continue;
      try {
        this.#history(await this.#fetch(`/v1/conversations/${this.conversationId}/members/${encodeURIComponent(id)}/history`));
      } catch {
        // The token is good for this meeting only, or the gateway does not tell such things.
        this.#unknowing = true;
      }
    }
  }

  /** Messages in the shape of REST; those known are not shown again. @param {Frame[]} messages @returns {number} how many were new. */
  #read(messages) {
    const before = this.captions.length;
    for (const said of messages) {
      this.#final({ id: said.id, speaker: person(said.from), text: said.text, final: true, at: Date.parse(said.startTime) || Date.now() });
    }
    return this.captions.length - before;
  }

  /**
   * A conversation that ended while this listener was away is read to its end; there is nothing to resume.
   * @param {boolean} sure It is known that something may be missing.
   */
  async #missed(sure) {
    const id = this.conversationId;
    if (!id) return;
    try {
      const conversation = await this.#fetch(`/v1/conversations/${id}`);
      if (!conversation.endTime) return;
      const { messages } = await this.#fetch(`/v1/conversations/${id}/messages`);
      if (this.#read(messages ?? []) > 0) this.dispatchEvent(custom("gap", { reason: "conversation", recovered: true }));
      if (this.conversationId === id) this.#ended();
    } catch {
      // The token does not allow reading, or the server is gone again: what came after is all there is.
      if (sure) this.dispatchEvent(custom("gap", { reason: "conversation", recovered: false }));
    }
  }
}

// ---------------------------------------------------------------------------------------------------------------------
// In the audio worklet
// ---------------------------------------------------------------------------------------------------------------------

const Processor = /** @type {any} */ (globalThis).AudioWorkletProcessor;
if (typeof Processor === "function") {
  /** Collects samples into messages; runs on the audio thread, so that a busy page loses nothing. */
  class Tap extends Processor {
    /** @param {{ processorOptions: { samples: number } }} options */
    constructor(options) {
      super();
      this.pcm = new Int16Array(options.processorOptions.samples);
      this.filled = 0;
      this.peak = 0;
      this.port.onmessage = () => {
        this.post();
        this.port.postMessage("flushed");
      };
    }

    /** @param {Float32Array[][]} inputs */
    process([[samples]]) {
      for (let at = 0; samples && at < samples.length; ) {
        const part = samples.subarray(at, at + this.pcm.length - this.filled);
        toLinear16(part, this.pcm, this.filled);
        for (const sample of part) this.peak = Math.max(this.peak, Math.abs(sample));
        this.filled += part.length;
        at += part.length;
        if (this.filled === this.pcm.length) this.post();
      }
      return true;
    }

    post() {
      const pcm = this.pcm.slice(0, this.filled).buffer;
      const rate = /** @type {any} */ (globalThis).sampleRate;
      this.port.postMessage({ pcm, ms: (this.filled / rate) * 1_000, peak: this.peak }, [pcm]);
      this.filled = 0;
      this.peak = 0;
    }
  }
  /** @type {any} */ (globalThis).registerProcessor("hearsay-tap", Tap);
}
