/**
 * @symblai/symbl-web-sdk 1.0.10, in Node, which lacks what browsers have: stand-ins are given for a WebSocket (that of the
 * SDK's own packages), an audio context that plays what the test gives it, and the vendor's page that tells it it is online.
 */

import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { after, before, test } from "node:test";

import { proxy } from "../browser/lib/proxy.js";
import { BECKETT, RATE, errors, open, recording, say, token, until, within } from "./lib/house.js";

const require = createRequire(import.meta.url);

const node = () => ({ connect() {}, disconnect() {} });
class Context {
  sampleRate = RATE;
  state = "running";
  destination = node();
  /** What takes the audio. */ static processors = [];
  createScriptProcessor() {
    const processor = node();
    Context.processors.push(processor);
    return processor;
  }
  createGain = () => ({ ...node(), gain: {} });
  createMediaStreamSource = () => ({ ...node(), context: this, mediaStream: { getAudioTracks: () => [{ getSettings: () => ({ sampleRate: RATE }) }], getTracks: () => [] } });
  resume() {}
  suspend() {}
  close() {}
}
const page = new EventTarget();
const { fetch } = globalThis;
for (const [name, value] of Object.entries({
  window: globalThis,
  addEventListener: page.addEventListener.bind(page),
  dispatchEvent: page.dispatchEvent.bind(page),
  document: { createDocumentFragment: () => new EventTarget() },
  navigator: { userAgent: "Node", mediaDevices: Object.assign(new EventTarget(), { enumerateDevices: async () => [] }) },
  AudioContext: Context,
  WebSocket: require("websocket").w3cwebsocket,
  fetch: (url, ...more) => (String(url).includes("symbl-sdk-cdn") ? Promise.resolve(new Response("")) : fetch(url, ...more)),
})) Object.defineProperty(globalThis, name, { value, configurable: true, writable: true });

const { Symbl, LINEAR16AudioStream } = require("@symblai/symbl-web-sdk");

/** @type {Awaited<ReturnType<typeof open>>} */ let server;
/** @type {Awaited<ReturnType<typeof proxy>>} */ let network;
/** Breaks nothing, and counts. @type {Awaited<ReturnType<typeof proxy>>} */ let direct;
/** @type {string} */ let accessToken;

before(async () => {
  server = await open();
  network = await proxy(server.url);
  direct = await proxy(server.url);
  accessToken = await token(server.url);
});
after(async () => {
  await network.close();
  await direct.close();
  await server.stop();
});

const EVENTS = ["connected", "started_listening", "conversation_created", "processing_started", "speech_recognition", "message", "question", "action_item", "follow_up", "topic", "tracker", "processing_stopped", "conversation_completed"];

/** Keeps what a connection tells. */
function ears(connection) {
  const heard = Object.fromEntries(EVENTS.map((name) => [name, []]));
  for (const name of EVENTS) connection.on(name, (data) => heard[name].push(data));
  const text = () => heard.message.flat().map((message) => message.payload.content).join(" ");
  return { heard, text };
}

const config = (more = {}) => ({ insightTypes: ["question"], config: { meetingTitle: "Clients", encoding: "LINEAR16", sampleRateHertz: RATE }, speaker: { userId: "sam@example.com", name: "Sam" }, ...more });

/** A speaker whose audio context plays the recording. */
async function speaker(basePath, id, more) {
  const symbl = new Symbl({ accessToken, basePath, reconnectOnError: true, logLevel: "error" });
  const stream = new LINEAR16AudioStream(new Context().createMediaStreamSource());
  const connection = await within("createConnection", symbl.createConnection(id, stream));
  const { heard, text } = ears(connection);
  await within("startProcessing", connection.startProcessing(config(more)));
  const processor = Context.processors.at(-1);
  const play = (part) => {
    const samples = Float32Array.from(new Int16Array(part.buffer.slice(part.byteOffset, part.byteOffset + part.length)), (sample) => sample / 32767);
    processor.onaudioprocess({ inputBuffer: { getChannelData: () => samples } });
  };
  return { symbl, connection, heard, text, play };
}

test("items 7, 16, 29: over an http:// base, events carry what was said, and stopProcessing() gives processing_stopped", async () => {
  const { connection, heard, text, play } = await speaker(server.url, "speaker-http-1");
  await say(play);
  await connection.stopProcessing();
  await until("processing_stopped", () => heard.processing_stopped.length);
  assert.ok(errors(BECKETT, text()) <= 2, text());
  assert.ok(heard.started_listening.length === 1 && heard.conversation_created[0].data.conversationId);
  assert.ok(heard.speech_recognition.every((message) => typeof message.punctuated.transcript === "string" && message.user.name === "Sam"));
  assert.ok(heard.speech_recognition.length > 0);
});

test("item 16: what was understood comes as events of their own", async () => {
  const more = { insightTypes: ["question", "action_item", "follow_up"], trackers: [{ name: "Product", vocabulary: ["mobile app"] }] };
  const { connection, heard, play } = await speaker(server.url, "speaker-insights-1", more);
  await say(play, Infinity, recording("stand-up/maya.wav"));
  await connection.stopProcessing();
  await until("processing_stopped", () => heard.processing_stopped.length);
  const [question] = heard.question;
  assert.match(question.payload.content, /where are we with the mobile app/i);
  assert.ok(question.from.name === "Sam" && question.messageReference.id && question.hints[0].value && question.confidence > 0, JSON.stringify(question));
  const task = heard.action_item.find(({ payload }) => /end of this week/i.test(payload.content));
  assert.ok(task && typeof task.dueBy.value === "string" && task.text === task.payload.content, JSON.stringify(heard.action_item));
  const [tracker] = heard.tracker.flat();
  assert.equal(tracker.name, "Product");
  assert.deepEqual(tracker.matches.map(({ type, value, insightRefs }) => [type, value, insightRefs]), [["vocabulary", "mobile app", []]]);
  assert.ok(tracker.matches[0].messageRefs[0].text.includes("mobile app") && tracker.matches[0].messageRefs[0].offset >= 0);
});

test("item 7: over a ws:// base it connects too", async () => {
  const { connection, heard } = await speaker(server.url.replace("http", "ws"), "speaker-ws-1");
  await connection.stopProcessing();
  await until("processing_stopped", () => heard.processing_stopped.length);
});

for (const [how, id, lose] of /** @type {const} */ ([
  ["a lost connection", "speaker-lost-1", () => network.cut(200)],
  ["an empty close frame", "speaker-gone-1", () => network.goodbye()],
])) {
  test(`item 35: after ${how} it comes back into the same conversation, and its subscriber keeps its socket`, async () => {
    const { connection, heard, text, play } = await speaker(network.url, id, { noConnectionTimeout: 60 });
    const before = direct.taken();
    const listener = await within("subscribe", new Symbl({ accessToken, basePath: direct.url, logLevel: "error" }).subscribeToConnection(id));
    const other = ears(listener);
    await until("conversation_created", () => heard.conversation_created.length === 1);
    lose();
    await until("a second start's answer", () => heard.conversation_created.length === 2);
    assert.equal(heard.conversation_created[0].data.conversationId, heard.conversation_created[1].data.conversationId);
    await say(play);
    await connection.stopProcessing();
    await until("processing_stopped", () => heard.processing_stopped.length);
    assert.ok(errors(BECKETT, text()) <= 2, text());
    await until("what the subscriber heard", () => errors(BECKETT, other.text()) <= 2);
    assert.equal(direct.taken() - before, 1);
    // Told before anybody could ask for its events.
    assert.equal(listener.getConversationId(), heard.conversation_created[0].data.conversationId);
  });
}

test("item 39: a subscriber that is late learns the conversation, and hears what the speaker hears", async () => {
  const { connection, heard, text, play } = await speaker(server.url, "meeting-1");
  await until("conversation_created", () => heard.conversation_created.length);
  await say(play, 1);
  const listener = await within("subscribe", new Symbl({ accessToken, basePath: server.url, logLevel: "error" }).subscribeToConnection("meeting-1"));
  const other = ears(listener);
  // Its first frame may have come already.
  const known = listener.getConversationId();
  /** @type {string[]} */ const order = [];
  // "connected" is the package's own word, said when its socket is open: before or after it can be asked.
  for (const name of EVENTS) if (name !== "connected") listener.on(name, () => order.push(name));
  await until("its conversation", () => listener.getConversationId());
  assert.equal(listener.getConversationId(), heard.conversation_created[0].data.conversationId);
  await say(play);
  await connection.stopProcessing();
  await until("processing_stopped", () => heard.processing_stopped.length);
  assert.ok(/fail better/i.test(text()), text());
  await until("what the subscriber heard", () => other.text() === text());
  assert.ok(known || order[0] === "conversation_created", order.join(" "));
  const finals = (/** @type {any[]} */ all) => all.filter(({ isFinal }) => isFinal).map((result) => JSON.stringify(result));
  assert.deepEqual(finals(other.heard.speech_recognition), finals(heard.speech_recognition));
});
