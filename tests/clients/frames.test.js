/** What comes over a plain socket, frame by frame. */

import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { after, before, test } from "node:test";

import { BECKETT, RATE, SOUND, errors, open, say, until, within } from "./lib/house.js";
import { complaints } from "./lib/strict.js";

const { w3cwebsocket: Socket } = createRequire(import.meta.url)("websocket");

/** @type {Awaited<ReturnType<typeof open>>} */ let server;

before(async () => {
  server = await open();
});
after(() => server.stop());

const ALL = ["question", "action_item", "follow_up", "topic"];
const FORMAT = { encoding: "LINEAR16", sampleRateHertz: RATE };
const START = { type: "start_request", insightTypes: ALL, config: { sentiment: true, detectEntities: true, speechRecognition: FORMAT }, speaker: { userId: "sam@example.com", name: "Sam" } };

/** A socket that keeps every text as it came. @param {string} path */
async function connect(path) {
  const socket = new Socket(`${server.url.replace("http", "ws")}${path}?access_token=${server.token}`);
  /** @type {string[]} */ const texts = [];
  const closed = new Promise((resolve) => (socket.onclose = resolve));
  socket.onmessage = ({ data }) => texts.push(data);
  await within("open", new Promise((resolve, reject) => ((socket.onopen = resolve), (socket.onerror = reject))));
  const frames = () => texts.filter((text) => text !== "__PONG__").map((text) => JSON.parse(text));
  return {
    texts,
    frames,
    closed,
    inner: (/** @type {string} */ type) => frames().map((frame) => frame.message ?? {}).filter((message) => message.type === type),
    said: () => frames().filter(({ type }) => type === "message_response").flatMap(({ messages }) => messages.map((message) => message.payload.content)).join(" "),
    send: (/** @type {any} */ message) => socket.send(typeof message === "object" && !Buffer.isBuffer(message) ? JSON.stringify(message) : message),
    close: () => socket.close(),
  };
}

/** A meeting in which everything happens that brings frames: two speakers, a subscriber, errors, changes, the end. */
async function meeting() {
  const [one, other, listener] = [await connect("/v1/realtime/insights/frames"), await connect("/v1/streaming/frames"), await connect("/v1/subscribe/frames")];
  for (const speaker of [one, other]) {
    speaker.send(START);
    await until("its start", () => speaker.inner("recognition_started").length);
  }
  one.send("__PING__");
  one.send("garbage");
  one.send({ type: "modify_request", speechRecognition: { encoding: "MP3" } });
  one.send({ type: "update_request", insightTypes: ALL.slice(1) });
  await say((part) => one.send(part));
  for (const speaker of [one, other]) {
    speaker.send({ type: "stop_request" });
    await within("its close", speaker.closed);
  }
  await within("the subscriber's close", listener.closed);
  return [one, other, listener];
}
/** @type {Promise<Awaited<ReturnType<typeof connect>>[]> | undefined} */ let held;
const all = () => (held ??= meeting());

test("item 8: the three start messages come in order, with one conversation, for a first and a second speaker", async () => {
  const [one, other] = await all();
  const ids = new Set();
  for (const speaker of [one, other]) {
    const [first, second, third] = speaker.frames().map(({ message }) => message);
    assert.deepEqual([first.type, second.type, third.type], ["started_listening", "conversation_created", "recognition_started"]);
    ids.add(second.data.conversationId).add(third.data.conversationId);
  }
  assert.equal(ids.size, 1);
  assert.match([...ids][0], /^\d{16}$/);
});

test("item 10: a title at the top level is the conversation's name", async () => {
  const speaker = await connect("/v1/streaming/title");
  speaker.send({ type: "start_request", meetingTitle: "Weekly planning" });
  const [{ data }] = await until("its start", () => speaker.inner("recognition_started").length && speaker.inner("conversation_created"));
  const answer = await fetch(`${server.url}/v1/conversations/${data.conversationId}`, { headers: { "x-api-key": server.token } });
  assert.equal((await answer.json()).name, "Weekly planning");
  speaker.close();
});

test("item 11: insight types that are not known are taken", async () => {
  const speaker = await connect("/v1/streaming/types");
  speaker.send({ ...START, insightTypes: ["topic", "nonsense"] });
  await until("its start", () => speaker.inner("recognition_started").length);
  assert.deepEqual(speaker.inner("error"), []);
  speaker.close();
});

for (const [what, start] of /** @type {const} */ ([
  ["no config", { type: "start_request" }],
  ["an empty speechRecognition", { type: "start_request", config: { speechRecognition: {} } }],
])) {
  test(`item 12: ${what} means LINEAR16 at 16000`, async () => {
    const speaker = await connect(`/v1/streaming/${what.replaceAll(" ", "-")}`);
    speaker.send({ ...start, hearsay: { recorded: true } });
    await until("its start", () => speaker.inner("recognition_started").length);
    for (let at = 0; at < SOUND.length; at += 8_192) speaker.send(SOUND.subarray(at, at + 8_192));
    speaker.send({ type: "stop_request" });
    await within("the close", speaker.closed);
    assert.equal(RATE, 16_000, "of the recording");
    assert.ok(errors(BECKETT, speaker.said()) <= 2, speaker.said());
  });
}

test("item 17: every text but __PONG__ is an object with a type, a message holds a message, and data a conversation", async () => {
  for (const { texts, frames } of await all()) {
    assert.ok(texts.length > 0);
    for (const frame of frames()) {
      assert.equal(typeof frame.type, "string", JSON.stringify(frame));
      if (frame.type !== "message") continue;
      assert.equal(typeof frame.message.type, "string", JSON.stringify(frame));
      if ("data" in frame.message) assert.match(frame.message.data.conversationId, /^\d{16}$/);
    }
  }
  const [one] = await all();
  assert.equal(one.texts.filter((text) => text === "__PONG__").length, 1);
  assert.equal(one.inner("error").length, 2);
  assert.equal(one.inner("session_modified").length, 1);
});

test("item 18: a decoder as strict as Go's takes every frame", async () => {
  for (const { texts } of await all()) {
    assert.deepEqual(texts.filter((text) => text !== "__PONG__").flatMap((text) => complaints(text)), []);
  }
  // It can say no.
  for (const wrong of [
    '{"type":"message","timeOffset":12.5,"message":{"type":"x"}}',
    '{"type":"message","timeOffset":1e3,"message":{"type":"x"}}',
    '{"type":"message","message":{"type":"x","payload":{"raw":{"alternatives":[{"words":[{"startTime":{"seconds":1}}]}]}}}}',
    '{"type":"message","message":[]}',
    '{"type":"message_response","messages":[{"metadata":{"words":[]}}]}',
    '{"type":"unheard_of"}',
  ]) assert.equal(complaints(wrong).length, 1, wrong);
  assert.deepEqual(complaints('{"type":"message","timeOffset":12,"message":{"type":"a 1.5 \\"b","user":null}}'), []);
});

test("item 19: a message's words are JSON in a string", async () => {
  const [one] = await all();
  const messages = one.frames().filter(({ type }) => type === "message_response").flatMap(({ messages }) => messages);
  assert.ok(messages.length > 0);
  for (const { metadata } of messages) {
    assert.equal(typeof metadata.words, "string");
    const words = JSON.parse(metadata.words);
    assert.ok(Array.isArray(words) && words.length > 0);
    for (const { word, startTime, endTime } of words) {
      assert.equal(typeof word, "string");
      assert.ok(Date.parse(startTime) <= Date.parse(endTime), `${startTime} ${endTime}`);
    }
  }
});

test("item 20: interim results are not final, and each final is followed by one message_response with its text", async () => {
  for (const { frames } of await all()) {
    /** @type {string | undefined} */ let owed;
    let [interim, finals] = [0, 0];
    for (const { type, message, messages } of frames()) {
      if (message?.type === "recognition_result") {
        assert.equal(typeof message.isFinal, "boolean");
        if (!message.isFinal) {
          interim += 1;
          continue;
        }
        assert.equal(owed, undefined, "a final before the message_response of the one before");
        owed = message.punctuated.transcript;
        finals += 1;
      }
      if (type === "message_response") {
        assert.equal(messages.map(({ payload }) => payload.content).join(" "), owed);
        owed = undefined;
      }
    }
    assert.equal(owed, undefined);
    assert.ok(interim > 0 && finals > 0, `${interim} ${finals}`);
  }
});

test("item 24: samples split at odd bytes give the same text as unsplit ones", async () => {
  const texts = [];
  for (const step of [8_192, 1_601]) {
    const speaker = await connect(`/v1/streaming/split-${step}`);
    speaker.send({ ...START, hearsay: { recorded: true } });
    await until("its start", () => speaker.inner("recognition_started").length);
    for (let at = 0; at < SOUND.length; at += step) speaker.send(SOUND.subarray(at, at + step));
    speaker.send({ type: "stop_request" });
    await within("the close", speaker.closed);
    texts.push(speaker.said());
  }
  assert.ok(errors(BECKETT, texts[0]) <= 2, texts[0]);
  assert.equal(texts[1], texts[0]);
});

test("item 22: behind a change to 8000 Hz in mid-stream, audio is recognized", async () => {
  const speaker = await connect("/v1/streaming/modified");
  speaker.send({ ...START, hearsay: { recorded: true } });
  await until("its start", () => speaker.inner("recognition_started").length);
  // Nobody speaks there for a moment.
  const half = 3.3 * 2 * RATE;
  for (let at = 0; at < half; at += 8_192) speaker.send(SOUND.subarray(at, Math.min(half, at + 8_192)));
  speaker.send({ type: "modify_request", speechRecognition: { encoding: "LINEAR16", sampleRateHertz: RATE / 2 } });
  const rest = SOUND.subarray(half);
  const slower = Buffer.alloc(Math.floor(rest.length / 4) * 2);
  for (let at = 0; at < slower.length; at += 2) slower.writeInt16LE((rest.readInt16LE(2 * at) + rest.readInt16LE(2 * at + 2)) >> 1, at);
  for (let at = 0; at < slower.length; at += 8_192) speaker.send(slower.subarray(at, at + 8_192));
  speaker.send({ type: "stop_request" });
  await within("the close", speaker.closed);
  assert.equal(speaker.inner("session_modified").length, 1);
  assert.ok(errors(BECKETT, speaker.said()) <= 2, speaker.said());
});

test("item 32: what was said right before a stop in mid-speech is in the transcript", async () => {
  const speaker = await connect("/v1/streaming/flush");
  speaker.send(START);
  await until("its start", () => speaker.inner("recognition_started").length);
  // The last word ends here, and no silence behind it says so.
  await say((part) => speaker.send(part), 2.8);
  speaker.send({ type: "stop_request" });
  await within("the close", speaker.closed);
  assert.ok(errors("Ever tried. Ever failed.", speaker.said()) === 0, speaker.said());
  const order = speaker.frames().map(({ type, message }) => message?.type ?? type);
  assert.ok(order.lastIndexOf("message_response") < Math.min(order.indexOf("conversation_completed"), order.indexOf("recognition_stopped")), order.join(" "));
});
