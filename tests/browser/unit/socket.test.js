/** HearsaySocket against a scripted server, in mocked time: what it says on the wire, and what its owner sees. */

import assert from "node:assert/strict";
import test from "node:test";

import { Backoff, ChunkRing, HearsaySocket, TokenRefused } from "../lib/hearsay.js";

/** One connection, in the test's hands. */
class Wire extends EventTarget {
  /** @type {Wire[]} */
  static all = [];
  static get last() {
    return /** @type {Wire} */ (Wire.all.at(-1));
  }

  /** @type {any[]} */
  sent = [];
  bufferedAmount = 0;
  closed = false;
  /** @type {any} */ onopen = null;
  /** @type {any} */ onclose = null;
  /** @type {any} */ onmessage = null;

  /** @param {string} url @param {string | string[]} protocols */
  constructor(url, protocols) {
    super();
    this.url = url;
    this.protocols = protocols;
    Wire.all.push(this);
  }
  send(/** @type {any} */ data) {
    this.sent.push(data);
  }
  close(/** @type {number} */ code = 1005, reason = "") {
    if (this.closed) return;
    this.closed = true;
    queueMicrotask(() => this.onclose?.({ code, reason, wasClean: true }));
  }
  // The server's side
  open() {
    this.onopen?.({});
  }
  says(/** @type {any} */ frame) {
    this.onmessage?.({ data: typeof frame === "string" ? frame : JSON.stringify(frame), origin: "" });
  }
  drops(code = 1006, reason = "") {
    this.closed = true;
    this.onclose?.({ code, reason, wasClean: code !== 1006 });
  }
  /** What was sent, short: text types, and sizes of audio. */
  get short() {
    return this.sent.map((data) => (typeof data === "string" ? (data.startsWith("{") ? JSON.parse(data).type : data) : data.byteLength));
  }
}

const SPEAK = "ws://h/v1/streaming/m?access_token=a.b.c";
const LISTEN = "ws://h/v1/subscribe/m?history=snapshot&access_token=a.b.c";
const wrapped = (/** @type {string} */ type, more = {}) => ({ type: "message", message: { type, ...more } });
const data = (/** @type {string} */ conversationId) => ({ data: { conversationId } });

/** @param {any} t @param {string} url @param {object} [options] */
async function connect(t, url, options = {}) {
  t.mock.timers.enable({ apis: ["setTimeout", "setInterval", "Date"], now: 1_000_000 });
  Wire.all = [];
  const socket = new HearsaySocket(url, {
    WebSocket: /** @type {any} */ (Wire),
    backoff: new Backoff({ random: () => 0.5 }),
    ...options,
  });
  /** @type {string[]} */
  const seen = [];
  /** @type {any} */
  const details = {};
  socket.onopen = () => seen.push("open");
  socket.onclose = (/** @type {any} */ event) => seen.push(`close ${event.code}`);
  socket.onmessage = (/** @type {any} */ event) => {
    const frame = event.data.startsWith("{") ? JSON.parse(event.data) : { type: event.data };
    seen.push(frame.message?.type ?? frame.position ?? frame.type);
  };
  for (const type of ["reconnected", "lost", "repeated", "refused"]) {
    socket.addEventListener(type, (event) => (details[type] = /** @type {CustomEvent} */ (event).detail));
  }
  await settle();
  return { socket, seen, details, tick: async (/** @type {number} */ ms) => (t.mock.timers.tick(ms), settle()) };
}

const settle = async () => {
  for (let turn = 0; turn < 10; turn += 1) await Promise.resolve();
};

/** @param {Wire} wire @param {string} [stream] */
function started(wire, stream = "s1") {
  wire.says(wrapped("started_listening"));
  wire.says(wrapped("conversation_created", data("1")));
  wire.says(wrapped("recognition_started", data("1")));
  wire.says({ type: "resume_token", token: `token of ${stream}`, stream });
}

test("it stands in for a WebSocket", async (t) => {
  const { socket, seen } = await connect(t, SPEAK);
  assert.equal(socket.readyState, HearsaySocket.CONNECTING);
  assert.throws(() => socket.send("x"), { name: "InvalidStateError" });
  Wire.last.open();
  assert.equal(socket.readyState, 1);
  socket.send(JSON.stringify({ type: "start_request", speaker: { name: "Ana" } }));
  socket.send(new ArrayBuffer(4));
  started(Wire.last);
  assert.deepEqual(Wire.last.short, ["start_request", 4]);
  assert.equal(JSON.parse(Wire.last.sent[0]).hearsay.ack, true);
  Wire.last.says(wrapped("recognition_stopped"));
  Wire.last.drops(1000);
  assert.deepEqual(seen, ["open", "started_listening", "conversation_created", "recognition_started", "recognition_stopped", "close 1000"]);
  assert.equal(socket.readyState, 3);
  assert.equal(Wire.all.length, 1);
});

test("a listener goes on where it was, and shows nothing twice", async (t) => {
  const { socket, seen, details, tick } = await connect(t, LISTEN);
  Wire.last.open();
  Wire.last.says(wrapped("conversation_created", data("1")));
  Wire.last.says({ type: "message_response", position: "0badcafe:4" });
  Wire.last.drops();
  assert.equal(socket.readyState, 1, "its owner need not know");
  assert.equal(Wire.all.length, 1);
  await tick(125);
  assert.equal(Wire.all.length, 2);
  const address = new URL(Wire.last.url);
  assert.equal(address.searchParams.get("since"), "0badcafe:4");
  assert.equal(address.searchParams.get("history"), null);
  Wire.last.open();
  Wire.last.says(wrapped("conversation_created", data("1")));
  Wire.last.says({ type: "message_response", position: "0badcafe:4" });
  Wire.last.says({ type: "message_response", position: "0badcafe:5" });
  assert.deepEqual(seen, ["open", "conversation_created", "0badcafe:4", "0badcafe:5"]);
  assert.equal(details.reconnected.stream, "none");
  assert.equal(details.reconnected.downMs, 125);
  assert.equal(details.repeated.position, "0badcafe:4");
});

test("a missing position is asked for", async (t) => {
  const { seen, tick } = await connect(t, `${LISTEN}&view=all`);
  Wire.last.open();
  Wire.last.says({ type: "message_response", position: "0badcafe:4" });
  Wire.last.says({ type: "message_response", position: "0badcafe:6" });
  await tick(125);
  assert.equal(new URL(Wire.last.url).searchParams.get("since"), "0badcafe:4");
  Wire.last.open();
  Wire.last.says({ type: "message_response", position: "0badcafe:5" });
  Wire.last.says({ type: "message_response", position: "0badcafe:6" });
  assert.deepEqual(seen, ["open", "0badcafe:4", "0badcafe:5", "0badcafe:6"]);
});

test("a speaker goes on from the chunk the server lacks", async (t) => {
  const { socket, seen, details, tick } = await connect(t, SPEAK);
  Wire.last.open();
  socket.send(JSON.stringify({ type: "start_request" }));
  started(Wire.last);
  for (let size = 1; size <= 5; size += 1) socket.send(new Uint8Array(size));
  Wire.last.says({ type: "audio_ack", chunk: 2, ms: 40 });
  Wire.last.drops();
  // Said while nobody listens.
  socket.send(new Uint8Array(6));
  assert.ok(socket.bufferedAmount > 0);
  await tick(125);
  Wire.last.open();
  assert.deepEqual(Wire.last.short, ["start_request"], "nothing before the server says where");
  assert.equal(JSON.parse(Wire.last.sent[0]).hearsay.resume, "token of s1");
  started(Wire.last);
  assert.deepEqual(Wire.last.short, ["start_request"]);
  Wire.last.says({ type: "resumed", chunk: 3 });
  socket.send(new Uint8Array(7));
  assert.deepEqual(Wire.last.short, ["start_request", 4, 5, 6, 7]);
  assert.deepEqual(details.reconnected, { downMs: 125, since: undefined, resent: 3, missing: 0, stream: "same" });
  assert.deepEqual(seen, ["open", "started_listening", "conversation_created", "recognition_started"], "its owner saw one start");
});

test("a speaker tries often while its stream is held, and less so later", async (t) => {
  const { socket, tick } = await connect(t, SPEAK, { backoff: new Backoff({ random: () => 1 }) });
  /** @type {number[]} */ const delays = [];
  socket.addEventListener("connection", (event) => {
    const { state, delayMs } = /** @type {CustomEvent} */ (event).detail;
    if (state === "waiting") delays.push(delayMs);
  });
  Wire.last.open();
  socket.send(JSON.stringify({ type: "start_request" }));
  started(Wire.last);
  for (let tries = 0; tries < 9; tries += 1) {
    Wire.last.drops();
    await tick(delays.at(-1) ?? 0);
  }
  assert.deepEqual(delays, [250, 500, 1_000, 1_000, 1_000, 1_000, 1_000, 15_000, 15_000]);
});

test("audio is copied, as a WebSocket does", async (t) => {
  const { socket, tick } = await connect(t, SPEAK);
  Wire.last.open();
  socket.send(JSON.stringify({ type: "start_request" }));
  started(Wire.last);
  const buffer = new Uint8Array([1, 2, 3, 4]);
  socket.send(buffer.subarray(1, 3));
  buffer.fill(9);
  Wire.last.drops();
  await tick(125);
  Wire.last.open();
  started(Wire.last);
  Wire.last.says({ type: "resumed", chunk: 0 });
  assert.deepEqual([...new Uint8Array(Wire.last.sent[1])], [2, 3]);
});

for (const [what, answer] of /** @type {const} */ ([
  ["does not know of resuming", () => started(Wire.last, "s2")],
  [
    "refuses to resume",
    () => {
      Wire.last.says(wrapped("error", { code: "invalid_request", details: "hearsay.resume: too late" }));
      assert.deepEqual(Wire.last.short, ["start_request", "start_request"]);
      assert.equal(JSON.parse(Wire.last.sent[1]).hearsay.resume, undefined);
      started(Wire.last, "s2");
    },
  ],
])) {
  test(`a server that ${what} gets a new stream, and nothing a second time`, async (t) => {
    const { socket, seen, details, tick } = await connect(t, SPEAK);
    Wire.last.open();
    socket.send(JSON.stringify({ type: "start_request" }));
    started(Wire.last);
    socket.send(new Uint8Array(1));
    Wire.last.drops();
    socket.send(new Uint8Array(2));
    await tick(125);
    Wire.last.open();
    answer();
    socket.send(new Uint8Array(3));
    assert.deepEqual(Wire.last.short.filter((it) => it !== "start_request"), [2, 3]);
    assert.equal(details.reconnected.stream, "new");
    assert.deepEqual(seen, ["open", "started_listening", "conversation_created", "recognition_started"]);
  });
}

test("a stop that was on its way is said again", async (t) => {
  const { socket, seen, tick } = await connect(t, SPEAK);
  Wire.last.open();
  socket.send(JSON.stringify({ type: "start_request" }));
  started(Wire.last);
  socket.send(new Uint8Array(1));
  socket.send(JSON.stringify({ type: "stop_request" }));
  assert.deepEqual(Wire.last.short, ["start_request", 1, "stop_request"]);
  Wire.last.drops();
  await tick(125);
  Wire.last.open();
  started(Wire.last);
  Wire.last.says({ type: "resumed", chunk: 1 });
  assert.deepEqual(Wire.last.short, ["start_request", "stop_request"]);
  Wire.last.drops();
  await tick(250);
  Wire.last.open();
  started(Wire.last, "s2");
  assert.deepEqual(Wire.last.short, ["start_request", "stop_request"], "of a new stream, too");
  Wire.last.says(wrapped("conversation_completed", data("1")));
  Wire.last.drops(1000);
  assert.deepEqual(seen.slice(-2), ["conversation_completed", "close 1000"]);
});

test("a change of format stays at its place, and is part of the start once all before it is safe", async (t) => {
  const { socket, tick } = await connect(t, SPEAK);
  Wire.last.open();
  socket.send(JSON.stringify({ type: "start_request", config: { speechRecognition: { encoding: "LINEAR16", sampleRateHertz: 48_000 } } }));
  started(Wire.last);
  socket.send(new Uint8Array(1));
  socket.send(JSON.stringify({ type: "modify_request", speechRecognition: { sampleRateHertz: 8_000 } }));
  socket.send(new Uint8Array(2));
  Wire.last.drops();
  await tick(125);
  Wire.last.open();
  started(Wire.last);
  Wire.last.says({ type: "resumed", chunk: 0 });
  assert.deepEqual(Wire.last.short, ["start_request", 1, "modify_request", 2]);
  for (let count = 0; count < 200; count += 1) socket.send(new Uint8Array(2));
  Wire.last.says({ type: "audio_ack", chunk: 190, ms: 1 });
  Wire.last.drops();
  await tick(250);
  Wire.last.open();
  assert.deepEqual(JSON.parse(Wire.last.sent[0]).config.speechRecognition, { encoding: "LINEAR16", sampleRateHertz: 8_000 });
});

test("what does not fit is given up, and said", async (t) => {
  const { socket, details, tick } = await connect(t, SPEAK, { ring: new ChunkRing({ maxBytes: 4 }) });
  Wire.last.open();
  socket.send(JSON.stringify({ type: "start_request" }));
  started(Wire.last);
  Wire.last.drops();
  for (let count = 0; count < 3; count += 1) socket.send(new Uint8Array(2));
  assert.deepEqual(details.lost, { chunks: 1 });
  await tick(125);
  Wire.last.open();
  started(Wire.last);
  Wire.last.says({ type: "resumed", chunk: 0 });
  assert.equal(details.reconnected.missing, 1);
  assert.deepEqual(Wire.last.short, ["start_request", 2, 2]);
});

test("a slow network is not stuffed", async (t) => {
  const { socket, tick } = await connect(t, SPEAK);
  Wire.last.open();
  socket.send(JSON.stringify({ type: "start_request" }));
  Wire.last.bufferedAmount = 1 << 20;
  socket.send(new Uint8Array(1));
  assert.deepEqual(Wire.last.short, ["start_request"]);
  Wire.last.bufferedAmount = 0;
  await tick(50);
  assert.deepEqual(Wire.last.short, ["start_request", 1]);
});

test("a connection without a sign of life is given up; one that answers is kept", async (t) => {
  const { seen, tick } = await connect(t, LISTEN, { pingEveryMs: 1_000 });
  Wire.last.open();
  await tick(1_000);
  assert.deepEqual(Wire.last.short, ["__PING__"]);
  Wire.last.says("__PONG__");
  await tick(1_000);
  assert.deepEqual(Wire.last.short, ["__PING__", "__PING__"]);
  await tick(1_000);
  await tick(125);
  assert.equal(Wire.all.length, 2);
  assert.deepEqual(seen, ["open"], "nothing of it is its owner's business");
});

test("codes that say no are final, others are not", async (t) => {
  for (const [code, final] of /** @type {const} */ ([[1000, true], [1008, true], [1009, true], [1001, false], [1005, false], [1006, false], [1011, false], [1012, false], [1013, false]])) {
    const { socket, tick } = await connect(t, LISTEN);
    Wire.last.open();
    Wire.last.drops(code);
    await tick(20_000);
    assert.equal(socket.readyState === 3, final, `${code}`);
    assert.equal(Wire.all.length > 1, !final, `${code}`);
    socket.close();
    t.mock.timers.reset();
  }
});

test("a reader that was too slow goes on where it was", async (t) => {
  const { socket, seen, tick } = await connect(t, LISTEN);
  Wire.last.open();
  Wire.last.says({ type: "message_response", position: "0badcafe:4" });
  Wire.last.says(wrapped("error", { code: "slow_reader", details: "too slow" }));
  Wire.last.drops(1008, "slow_reader since=0badcafe:6");
  await tick(125);
  assert.equal(new URL(Wire.last.url).searchParams.get("since"), "0badcafe:4", "from what it has seen, not from what was sent");
  Wire.last.open();
  Wire.last.says({ type: "message_response", position: "0badcafe:5" });
  // The error may not have got through.
  Wire.last.drops(1008, "slow_reader since=0badcafe:6");
  await tick(250);
  assert.deepEqual([socket.readyState, Wire.all.length], [1, 3]);
  assert.deepEqual(seen, ["open", "0badcafe:4", "error", "0badcafe:5"]);
  Wire.last.open();
  Wire.last.says(wrapped("error", { code: "forbidden", details: "no" }));
  Wire.last.drops(1008, "forbidden");
  assert.equal(socket.readyState, 3, "any other refusal is one");
  assert.deepEqual(socket.refusal, { code: "forbidden", details: "no" });
});

for (const answered of [0, 1, 2]) {
  test(`whoever asked for a start is told of it once, though of the first answer only ${answered} of 3 messages came`, async (t) => {
    const { socket, seen, tick } = await connect(t, SPEAK);
    Wire.last.open();
    socket.send(JSON.stringify({ type: "start_request" }));
    const welcome = [wrapped("started_listening"), wrapped("conversation_created", data("1")), wrapped("recognition_started", data("1"))];
    for (const frame of welcome.slice(0, answered)) Wire.last.says(frame);
    Wire.last.drops();
    await tick(125);
    Wire.last.open();
    started(Wire.last);
    assert.deepEqual(seen, ["open", "started_listening", "conversation_created", "recognition_started"]);
    Wire.last.drops();
    await tick(250);
    Wire.last.open();
    started(Wire.last);
    Wire.last.says({ type: "resumed", chunk: 0 });
    assert.equal(seen.length, 4, "once");
  });
}

test("a new stream is given no more at once than a server takes", async (t) => {
  const { socket, details, tick } = await connect(t, SPEAK);
  Wire.last.open();
  socket.send(JSON.stringify({ type: "start_request", config: { speechRecognition: { encoding: "LINEAR16", sampleRateHertz: 8_000 } } }));
  started(Wire.last);
  Wire.last.drops();
  // A second of audio each.
  for (let second = 0; second < 60; second += 1) socket.send(new Uint8Array(16_000));
  await tick(125);
  Wire.last.open();
  started(Wire.last, "s2");
  assert.equal(Wire.last.short.slice(1).reduce((sum, bytes) => sum + bytes, 0), 20 * 16_000);
  assert.deepEqual(details.lost, { chunks: 40 });
  assert.equal(details.reconnected.stream, "new");
  assert.equal(socket.chunks.next, 20);
  // Of one that goes on, the server takes all.
  Wire.last.drops();
  await tick(250);
  Wire.last.open();
  started(Wire.last, "s2");
  Wire.last.says({ type: "resumed", chunk: 0 });
  assert.equal(Wire.last.short.length, 21);
});

for (const [data, head] of /** @type {const} */ ([["webm", [0x1a, 0x45, 0xdf, 0xa3]], ["ogg", [0x4f, 0x67, 0x67, 0x53]], ["packets", [0xfc, 1, 2, 3]]])) {
  test(`a new stream gets nothing from the middle of a recorder's file: ${data}`, async (t) => {
    const { socket, details, tick } = await connect(t, SPEAK);
    Wire.last.open();
    socket.send(JSON.stringify({ type: "start_request", config: { speechRecognition: { encoding: "OPUS" } } }));
    started(Wire.last);
    socket.send(new Uint8Array(head));
    Wire.last.drops();
    socket.send(new Uint8Array(2));
    await tick(125);
    Wire.last.open();
    started(Wire.last, "s2");
    socket.send(new Uint8Array(head));
    assert.deepEqual(Wire.last.short.slice(1), data === "packets" ? [2, 4] : [4], data);
    assert.deepEqual(details.lost, data === "packets" ? undefined : { chunks: 1 }, data);
  });
}

for (const returns of ["asked", "plain"]) {
  test(`a start that is refused after a return is the stream's end, and its owner is told: ${returns}`, async (t) => {
    const { socket, seen, details, tick } = await connect(t, SPEAK);
    Wire.last.open();
    socket.send(JSON.stringify({ type: "start_request" }));
    if (returns === "asked") started(Wire.last);
    Wire.last.drops();
    await tick(125);
    Wire.last.open();
    // Nothing that is said about a start.
    Wire.last.says(wrapped("error", { code: "token_expired", details: "access_token has expired" }));
    assert.equal(details.refused, undefined);
    Wire.last.says(wrapped("error", { code: "forbidden", details: "the token does not allow speaking (publish)" }));
    assert.deepEqual(details.refused, { code: "forbidden", details: "the token does not allow speaking (publish)" });
    assert.deepEqual(seen.slice(-2), ["error", "error"]);
    assert.deepEqual(Wire.last.short, ["start_request"], "not asked again");
    await tick(60_000);
    assert.equal(Wire.all.length, 2, "and not for ever");
    // It may be tried again by whoever knows better.
    socket.send(JSON.stringify({ type: "start_request" }));
    assert.deepEqual(Wire.last.short.filter((it) => it !== "__PING__"), ["start_request", "start_request"]);
  });
}

test("only what is said of the resume token is an answer to it", async (t) => {
  const { socket, seen, tick } = await connect(t, SPEAK);
  Wire.last.open();
  socket.send(JSON.stringify({ type: "start_request" }));
  started(Wire.last);
  socket.send(new Uint8Array(1));
  Wire.last.drops();
  await tick(125);
  Wire.last.open();
  Wire.last.says(wrapped("error", { code: "token_expired", details: "access_token has expired" }));
  assert.deepEqual(Wire.last.short, ["start_request"], "the stream may still be there");
  started(Wire.last);
  Wire.last.says({ type: "resumed", chunk: 0 });
  assert.deepEqual(Wire.last.short, ["start_request", 1]);
  assert.equal(seen.at(-1), "error");
});

test("a stop that was never sent is sent once", async (t) => {
  const { socket, tick } = await connect(t, SPEAK);
  Wire.last.open();
  socket.send(JSON.stringify({ type: "start_request" }));
  started(Wire.last);
  Wire.last.drops();
  socket.send(new Uint8Array(1));
  socket.send(JSON.stringify({ type: "stop_request" }));
  await tick(125);
  Wire.last.open();
  started(Wire.last, "s2");
  assert.deepEqual(Wire.last.short, ["start_request", 1, "stop_request"]);
});

test("a server that is full says how long to wait", async (t) => {
  const { socket, tick } = await connect(t, SPEAK);
  Wire.last.open();
  socket.send(JSON.stringify({ type: "start_request" }));
  Wire.last.says(wrapped("error", { code: "overloaded", details: "no room", retryAfterMs: 5_000 }));
  Wire.last.drops(1013);
  await tick(4_900);
  assert.equal(Wire.all.length, 1);
  await tick(225);
  assert.equal(Wire.all.length, 2);
});

test("refused handshakes renew the token; a refused renewal is the end", async (t) => {
  let asked = 0;
  const renewToken = async () => {
    asked += 1;
    if (asked > 1) throw new TokenRefused("gone");
    return "d.e.f";
  };
  const { socket, seen, tick } = await connect(t, LISTEN, { renewToken, token: "a.b.c" });
  assert.equal(Wire.last.protocols, "a.b.c");
  Wire.last.drops();
  await tick(125);
  Wire.last.drops();
  await tick(250);
  assert.deepEqual([asked, Wire.last.protocols], [1, "d.e.f"]);
  for (let tries = 0; tries < 2; tries += 1) {
    Wire.last.drops();
    await tick(2_000);
  }
  assert.equal(asked, 2);
  assert.deepEqual(seen, ["close 1008"]);
  assert.equal(socket.readyState, 3);
});

test("a token is renewed before it ends, in the connection", async (t) => {
  const token = (/** @type {number} */ seconds) => `e30.${Buffer.from(JSON.stringify({ exp: 1_000 + seconds })).toString("base64url")}.x`;
  const { tick } = await connect(t, LISTEN, { token: token(600), renewToken: async () => token(1_200) });
  Wire.last.open();
  for (let seconds = 0; seconds < 539; seconds += 1) {
    await tick(1_000);
    if (Wire.last.sent.at(-1) === "__PING__") Wire.last.says("__PONG__");
  }
  assert.ok(!Wire.last.short.includes("token"));
  await tick(2_000);
  assert.deepEqual(JSON.parse(Wire.last.sent.find((it) => it.includes("access_token"))), { type: "token", access_token: token(1_200) });
});

test("closing is final, also between two connections", async (t) => {
  const { socket, seen, tick } = await connect(t, LISTEN);
  Wire.last.open();
  Wire.last.drops();
  socket.close(1000);
  await tick(60_000);
  assert.deepEqual(seen, ["open", "close 1000"]);
  assert.equal(Wire.all.length, 1);
});

test("what is sent in the very moment of a return waits for its start", async (t) => {
  const { socket, tick } = await connect(t, SPEAK);
  Wire.last.open();
  socket.send(JSON.stringify({ type: "start_request" }));
  started(Wire.last);
  Wire.last.drops();
  socket.addEventListener("connection", (event) => {
    if (/** @type {CustomEvent} */ (event).detail.state === "live") socket.send(new Uint8Array(1));
  });
  await tick(125);
  Wire.last.open();
  assert.deepEqual(Wire.last.short, ["start_request"]);
  started(Wire.last);
  Wire.last.says({ type: "resumed", chunk: 0 });
  assert.deepEqual(Wire.last.short, ["start_request", 1]);
});

test("a network that is back is tried at once, and one that is gone is doubted", async (t) => {
  const browser = new EventTarget();
  const had = { addEventListener: globalThis.addEventListener, removeEventListener: globalThis.removeEventListener };
  t.after(() => Object.assign(globalThis, had));
  globalThis.addEventListener = browser.addEventListener.bind(browser);
  globalThis.removeEventListener = browser.removeEventListener.bind(browser);
  const { socket } = await connect(t, LISTEN);
  Wire.last.open();
  browser.dispatchEvent(new Event("offline"));
  assert.deepEqual(Wire.last.short, ["__PING__"]);
  Wire.last.drops();
  browser.dispatchEvent(new Event("online"));
  await settle();
  assert.equal(Wire.all.length, 2, "without waiting");
  browser.dispatchEvent(new Event("online"));
  await settle();
  assert.equal(Wire.all.length, 2, "once");
  socket.close();
  browser.dispatchEvent(new Event("online"));
  await settle();
  assert.equal(Wire.all.length, 2, "never after the end");
});
