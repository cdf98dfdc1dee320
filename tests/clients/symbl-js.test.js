/** @symblai/symbl-js 1.4.10, in Node. Its token call has a base path of its own; nothing else is told where to go. */

import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { after, before, test } from "node:test";

import { proxy } from "../browser/lib/proxy.js";
import { BECKETT, RATE, appId, appSecret, errors, open, say, token, until, within } from "./lib/house.js";

// It pings every 30.5 s and waits 30 s for the answer; the tests do not.
const { setInterval, setTimeout } = globalThis;
globalThis.setInterval = (run, ms, ...more) => setInterval(run, ms === 30_500 ? 500 : ms, ...more);
globalThis.setTimeout = Object.assign((run, ms, ...more) => setTimeout(run, ms === 30_000 ? 3_000 : ms, ...more), setTimeout);

const { sdk } = createRequire(import.meta.url)("@symblai/symbl-js");

/** @type {Awaited<ReturnType<typeof open>>} */ let server;
/** @type {Awaited<ReturnType<typeof proxy>>} */ let network;

before(async () => {
  server = await open();
  network = await proxy(server.url);
  sdk.oauth2.setBasePath(network.url);
  await sdk.init({ appId, appSecret, basePath: network.url, logLevel: "error" });
});
after(async () => {
  await network.close();
  await server.stop();
});

/** Handlers that keep what they are told. */
function heard() {
  const all = { messages: [], frames: [], completed: [], speech: [] };
  return {
    ...all,
    text: () => all.messages.map((message) => message.payload.content).join(" "),
    inner: (type) => all.frames.map((frame) => frame.message ?? {}).filter((message) => message.type === type),
    handlers: {
      onSpeechDetected: (message) => all.speech.push(message),
      onMessageResponse: (messages) => all.messages.push(...messages),
      onDataReceived: (frame) => all.frames.push(frame),
      onConversationCompleted: (frame) => all.completed.push(frame),
    },
  };
}

const config = (more = {}) => ({ meetingTitle: "Clients", encoding: "LINEAR16", sampleRateHertz: RATE, ...more });
const speaker = { userId: "sam@example.com", name: "Sam" };

test("item 5: init with an app's credentials gives a token whose expiry is what expiresIn says", async () => {
  const { activeToken, expiresIn } = sdk.oauth2;
  const { exp } = JSON.parse(Buffer.from(activeToken.split(".")[1], "base64url").toString());
  assert.ok(Math.abs(exp - Date.now() / 1000 - expiresIn) < 60, "its clock is this one's");
  const answer = await fetch(`${server.url}/oauth2/token:generate`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ type: "application", appId, appSecret }),
  });
  const grant = await answer.json();
  const { exp: until, iat } = JSON.parse(Buffer.from(grant.accessToken.split(".")[1], "base64url").toString());
  assert.ok(Math.abs(until - iat - grant.expiresIn) <= 1, `${until} ${iat} ${grant.expiresIn}`);
});

test("item 14: start() rejects an encoding and a rate that are not taken, and the server stays up", async () => {
  for (const [wrong, told] of [[{ encoding: "MP3" }, /MP3/], [{ sampleRateHertz: 1 }, /sampleRateHertz/]]) {
    const stream = await sdk.createStream({ id: `wrong-${Object.keys(wrong)[0]}`, config: config(wrong), speaker });
    await assert.rejects(within("start", stream.start()), (error) => told.test(JSON.stringify(error) + error?.message + error?.details));
    stream.close();
  }
  assert.equal((await fetch(`${server.url}/healthz`)).status, 200);
});

test("items 16, 25: a stream's handlers fire with what was said, and its stop() resolves", async () => {
  const ears = heard();
  const stream = await sdk.createStream({ id: "stream", config: config(), speaker, handlers: ears.handlers });
  await within("start", stream.start());
  await say((part) => stream.sendAudio(part));
  const begun = performance.now();
  await within("stop", stream.stop());
  console.log(`# stop() took ${Math.round(performance.now() - begun)} ms`);
  await until("the end", () => ears.completed.length);
  assert.ok(errors(BECKETT, ears.text()) <= 2, ears.text());
  assert.ok(ears.speech.length > 0 && ears.speech.every((message) => typeof message.punctuated.transcript === "string"));
  assert.equal(ears.messages[0].from.name, "Sam");
});

test("item 26: a request's stop() resolves with the conversation's id", async () => {
  const ears = heard();
  const request = await within("start", sdk.startRealtimeRequest({ id: "request", config: config(), speaker, handlers: ears.handlers }));
  await say((part) => request.sendAudio(part), 3);
  const ended = await within("stop", request.stop());
  assert.equal(ended.conversationId ?? ended.data?.conversationId, request.conversationId);
  assert.ok(request.conversationId);
});

test("item 30: start, stop and start again on one socket stay in one conversation", async () => {
  const before = network.taken();
  const ears = heard();
  const stream = await sdk.createStream({ id: "again", config: config(), speaker, handlers: ears.handlers, disconnectOnStopRequest: false, disconnectOnStopRequestTimeout: 60 });
  for (const times of [1, 2]) {
    await within("start", stream.start());
    await say((part) => stream.sendAudio(part), 3);
    await within("stop", stream.stop());
    await until("both end messages", () => ears.inner("recognition_stopped").length === times && ears.inner("conversation_completed").length === times);
  }
  stream.close();
  const ids = ears.inner("conversation_created").map((message) => message.data.conversationId);
  assert.equal(ids.length, 2);
  assert.equal(ids[0], ids[1]);
  assert.equal(network.taken() - before, 1);
});

test("item 33: every ping of a speaker and of a subscriber has its pong", async () => {
  const ears = heard();
  const stream = await sdk.createStream({ id: "pings", config: config(), speaker, handlers: ears.handlers, reconnectOnError: true });
  await within("start", stream.start());
  const subscriber = await within("subscribe", sdk.subscribeToStream("pings", { handlers: { onMessage: () => {} }, reconnectOnError: true }));
  const before = network.taken();
  // Without an answer within 3 s either would close, and connect again.
  await until("time", ((end) => () => Date.now() > end)(Date.now() + 7_000));
  assert.equal(network.taken(), before);
  subscriber.close();
  await within("stop", stream.stop());
  stream.close();
});

test("item 34: without pongs it closes, comes back, and is in the same conversation", async () => {
  await back("silent", () => network.freeze());
});

test("item 35: after a lost connection it comes back into the same conversation", async () => {
  await back("lost", () => network.cut(200));
});

test("item 35: after an empty close frame it comes back into the same conversation", async () => {
  await back("gone", () => network.goodbye());
});

/** @param {string} id @param {() => void} lose */
async function back(id, lose) {
  const ears = heard();
  const stream = await sdk.createStream({ id, config: config(), speaker, handlers: ears.handlers, reconnectOnError: true, noConnectionTimeout: 60 });
  await within("start", stream.start());
  const created = () => ears.inner("conversation_created").map((message) => message.data.conversationId);
  await until("conversation_created", () => created().length === 1);
  lose();
  await until("a second start's answer", () => created().length === 2);
  assert.equal(created()[0], created()[1]);
  await say((part) => stream.sendAudio(part));
  await within("stop", stream.stop());
  stream.close();
  assert.ok(errors(BECKETT, ears.text()) <= 2, ears.text());
}

test("item 39: a subscriber gets the same frames, and one that is late learns the conversation first", async () => {
  const ears = heard();
  const stream = await sdk.createStream({ id: "meeting", config: config(), speaker, handlers: ears.handlers });
  await within("start", stream.start());
  const got = [];
  await within("subscribe", sdk.subscribeToStream("meeting", { handlers: { onMessage: (frame) => got.push(frame) } }));
  // Its socket is open before it is in the meeting.
  await until("its first frame", () => got.length);
  await say((part) => stream.sendAudio(part), 3);
  await within("stop", stream.stop());
  // Of partials each gets the newest it can take; what was said for good, both get alike.
  const results = (frames) => frames.filter((frame) => frame.type !== "message" || frame.message.isFinal).map((frame) => JSON.stringify(frame));
  const spoken = results(ears.frames);
  assert.ok(spoken.length > 0);
  await until("what was said", () => spoken.every((frame) => results(got).includes(frame)));
  assert.equal(got[0].message?.type, "conversation_created", JSON.stringify(got[0]));
  assert.deepEqual(results(got).filter((frame) => spoken.includes(frame)), spoken);
});
