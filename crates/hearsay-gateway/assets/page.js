/** The page: puts one meeting of hearsay.js on the screen. */

import { Meeting, microphone, recording } from "/hearsay.js";

/** @template {HTMLElement} T @param {string} id @returns {T} */
const $ = (id) => /** @type {T} */ (document.getElementById(id));

/** How long a line stays for screen readers to speak it. */
const ANNOUNCED_MS = 10_000;
/** Turns on the page; earlier ones are read over REST. */
const MAX_TURNS = 1_000;
/** A speaker who goes on after this much begins a new turn. */
const TURN_MS = 45_000;
/** And so does one whose turn holds this many sentences. */
const MAX_SENTENCES = 40;
/** Speakers whose hue is remembered, and lines whose insights are. */
const MAX_HUES = 1_000;
const MAX_EVIDENT = 4_000;
/** Hues that differ for most eyes, in the order speakers appear. */
const HUES = [195, 35, 300, 130, 255, 75, 340, 165];

/** What is asked to be found in what everybody says. */
const INSIGHTS = ["question", "action_item", "follow_up", "topic"];
/** How each kind of insight is called. */
const KINDS = /** @type {Record<string, string>} */ ({ question: "Question", action_item: "To do", follow_up: "Follow-up", tracker: "Watched" });
/** Insights and topics in their lists; earlier ones are read over REST. */
const MAX_LISTED = 200;
/** Topics that are drawn: those with most mentions. */
const MAX_TOPICS = 12;

const HELD = "hearsay.token";

// What the address says. The token never stays there: an address is copied and shown without a thought.
const query = new URLSearchParams(location.search);
const fragment = new URLSearchParams(location.hash.slice(1));
const brought = fragment.get("token");
if (brought) sessionStorage.setItem(HELD, brought);
if (location.hash) history.replaceState(null, "", location.pathname + location.search);

/** @type {Meeting | undefined} */
let meeting;

// ---------------------------------------------------------------------------------------------------------------------
// Joining
// ---------------------------------------------------------------------------------------------------------------------

/** @type {HTMLFormElement} */
const form = $("join");
const field = (/** @type {string} */ name) => /** @type {HTMLInputElement} */ (form.elements.namedItem(name));
field("meeting").value = query.get("meeting") ?? "";
field("name").value = query.get("name") ?? "";
showForm();
if (sessionStorage.getItem(HELD) && field("meeting").value && field("name").value) {
  join(sessionStorage.getItem(HELD) ?? "");
}

function showForm() {
  $("join-access").hidden = sessionStorage.getItem(HELD) !== null;
  const missing = ["meeting", "name", "token"].map(field).find((input) => !input.value && input.offsetParent !== null);
  missing?.focus();
}

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  for (const input of form.querySelectorAll("input")) input.removeAttribute("aria-invalid");
  for (const [name, what] of [["meeting", "the meeting's name"], ["name", "your name"]]) {
    if (!field(name).value.trim()) return refuse(`Please fill in ${what}.`, field(name));
  }
  try {
    const held = sessionStorage.getItem(HELD);
    const token = held ?? (field("token").value.trim() || (await fromCredentials()));
    if (!token) return refuse("Please give a token, or an app id and its secret.", field("token"));
    sessionStorage.setItem(HELD, token);
    join(token);
  } catch (error) {
    refuse(error instanceof Error ? error.message : String(error), field("appId"));
  }
});

/** @param {string} text @param {HTMLInputElement} input */
function refuse(text, input) {
  $("join-error").textContent = text;
  input.setAttribute("aria-invalid", "true");
  input.setAttribute("aria-describedby", "join-error");
  input.focus();
}

async function fromCredentials() {
  const [appId, appSecret] = [field("appId").value.trim(), field("appSecret").value];
  if (!appId || !appSecret) return "";
  const response = await fetch("/oauth2/token:generate", {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ type: "application", appId, appSecret }),
  });
  const answer = await response.json().catch(() => ({}));
  if (!response.ok) throw new Error(`The server gave no token: ${answer.message ?? response.status}.`);
  return String(answer.accessToken);
}

/** Names are different people, also in one browser; who returns under a name is the same one. @param {string} name */
function userId(name) {
  const held = localStorage.getItem("hearsay.browser") ?? crypto.randomUUID();
  localStorage.setItem("hearsay.browser", held);
  return `${held}/${name.toLowerCase()}`;
}

/** What the page watches for. */
function watched() {
  const words = /** @type {HTMLInputElement} */ ($("watch")).value.split(",").map((word) => word.trim());
  return words.filter(Boolean).map((word) => ({ name: word, vocabulary: [word] }));
}

/** @param {string} token */
function join(token) {
  const [id, name] = [field("meeting").value.trim(), field("name").value.trim()];
  const address = new URLSearchParams({ meeting: id, name });
  history.replaceState(null, "", `?${address}`);
  document.title = `${id} · hearsay`;
  $("title").textContent = id;
  $("join-error").textContent = "";
  document.body.dataset.view = "meeting";
  form.hidden = true;
  for (const part of ["spoken", "side", "controls"]) $(part).hidden = false;
  meeting = new Meeting({ url: location.origin, meeting: id, token, name, userId: userId(name), insightTypes: INSIGHTS, trackers: watched() });
  follow(meeting);
  meeting.listen();
  $("microphone").focus({ preventScroll: true });
}

/** @param {string} text */
function unjoin(text) {
  sessionStorage.removeItem(HELD);
  void meeting?.leave();
  meeting = undefined;
  document.body.dataset.view = "join";
  for (const part of ["spoken", "side", "controls"]) $(part).hidden = true;
  form.hidden = false;
  $("title").textContent = "Join a meeting";
  $("join-error").textContent = text;
  showForm();
}

// ---------------------------------------------------------------------------------------------------------------------
// What is said
// ---------------------------------------------------------------------------------------------------------------------

/**
 * @typedef {object} Turn
 * @property {HTMLElement} article
 * @property {HTMLElement} words
 * @property {string} speaker
 * @property {number} at Of the last sentence.
 */

/** @type {Turn | undefined} The turn that finals of its speaker go on. */
let last;
/** Provisional words by speaker, and the turn they stand in. @type {Map<string, { turn: Turn, span: HTMLElement, own: boolean }>} */
const forming = new Map();
/** @type {Map<string, number>} */
const hues = new Map();
let appeared = 0;
let following = true;

/** @param {string} id */
function hue(id) {
  if (!hues.has(id)) hues.set(id, HUES[appeared++ % HUES.length]);
  const [oldest] = hues.keys();
  if (hues.size > MAX_HUES) hues.delete(oldest);
  return String(hues.get(id));
}

const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" });

/** @param {string} tag @param {string} className @param {string} [text] */
function element(tag, className, text) {
  const made = document.createElement(tag);
  made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

/** @param {{ id: string, name: string }} speaker */
function face(speaker) {
  const made = element("span", "face", (speaker.name || "?").trim().slice(0, 1).toUpperCase());
  made.setAttribute("aria-hidden", "true");
  made.style.setProperty("--hue", hue(speaker.id));
  return made;
}

/** @param {import("./hearsay.js").Caption} caption @returns {Turn} */
function newTurn({ speaker, at }) {
  const article = element("article", "turn");
  article.style.setProperty("--hue", hue(speaker.id));
  const header = element("header", "");
  header.append(element("span", "who", speaker.name || "Somebody"));
  const time = /** @type {HTMLTimeElement} */ (element("time", "", clock.format(at)));
  time.dateTime = new Date(at).toISOString();
  header.append(time);
  const words = element("p", "words");
  article.append(face(speaker), header, words);
  return { article, words, speaker: speaker.id, at };
}

/** Whether a caption is part of this turn. @param {Turn} turn @param {import("./hearsay.js").Caption} caption */
function continues(turn, { speaker, at }) {
  return turn.speaker === speaker.id && at - turn.at < TURN_MS && turn.words.querySelectorAll(".said").length < MAX_SENTENCES;
}

/** @param {HTMLElement} part Finals stand before what is still forming. */
function place(part) {
  const transcript = $("transcript");
  const first = [...forming.values()].find(({ own }) => own)?.turn.article ?? null;
  transcript.insertBefore(part, first);
  while (transcript.childElementCount > MAX_TURNS) transcript.firstElementChild?.remove();
}

/** @param {import("./hearsay.js").Caption} caption */
function show(caption) {
  if (caption.final) showFinal(caption);
  else showForming(caption);
  keepUp();
}

/** @param {import("./hearsay.js").Caption} caption */
function showForming(caption) {
  const id = caption.speaker.id;
  let open = forming.get(id);
  // Somebody else has had a word since: what forms is at the end, where it will stand.
  if (open && !open.own && open.turn !== last) {
    open.span.remove();
    open = undefined;
  }
  if (!open) {
    const goesOn = last !== undefined && continues(last, caption);
    const turn = goesOn && last ? last : newTurn(caption);
    const span = element("span", "forming");
    turn.words.append(span);
    open = { turn, span, own: !goesOn };
    if (!goesOn) $("transcript").append(turn.article);
    forming.set(id, open);
  }
  // Its end is not known yet, whatever the engine says.
  open.span.textContent = caption.text.replace(/[.,…]+$/, "");
}

/** @param {import("./hearsay.js").Caption} caption */
function showFinal(caption) {
  const id = caption.speaker.id;
  const open = forming.get(id);
  let turn = last !== undefined && continues(last, caption) ? last : undefined;
  if (!turn && open?.own) {
    // The provisional turn becomes the final one, where it stands among finals.
    turn = open.turn;
    forming.delete(id);
    place(turn.article);
  } else if (!turn) {
    turn = newTurn(caption);
    place(turn.article);
  }
  vanish(id);
  open?.span.remove();
  const said = element("span", "said", caption.text);
  said.dataset.id = caption.id;
  turn.words.append(said, " ");
  if (evident.has(caption.id)) paint(caption.id);
  turn.at = caption.at;
  last = turn;
  announce(`${caption.speaker.name || "Somebody"}: ${caption.text}`);
}

/** @param {string} id */
function vanish(id) {
  const open = forming.get(id);
  if (!open) return;
  forming.delete(id);
  open.span.remove();
  if (open.own && !open.turn.words.hasChildNodes()) open.turn.article.remove();
}

/** Spoken by screen readers: finals only. @param {string} text */
function announce(text) {
  const line = element("p", "", text);
  $("finals").append(line);
  setTimeout(() => line.remove(), ANNOUNCED_MS);
}

/** @param {"lost" | "back" | "gap" | "conversation"} kind @param {string} text @returns {HTMLElement} */
function mark(kind, text) {
  const marker = element("p", "marker");
  marker.dataset.kind = kind;
  marker.append(element("span", "", text));
  place(marker);
  last = undefined;
  keepUp();
  return marker;
}

/** The page stays at the end, unless somebody reads further up. */
function keepUp() {
  if (following) window.scrollTo({ top: document.documentElement.scrollHeight, behavior: "instant" });
  else $("latest").hidden = false;
}

new IntersectionObserver(
  ([entry]) => {
    following = entry.isIntersecting;
    if (following) $("latest").hidden = true;
  },
  { rootMargin: "0px 0px 160px 0px" },
).observe($("end"));

$("latest").addEventListener("click", () => {
  following = true;
  keepUp();
  $("latest").hidden = true;
});

// ---------------------------------------------------------------------------------------------------------------------
// What was understood
// ---------------------------------------------------------------------------------------------------------------------

/** @typedef {import("./hearsay.js").Insight} Insight */

/** Insights that point into a line, by its id. @type {Map<string, Map<string, Insight>>} */
const evident = new Map();
/** What the lists show. @type {Map<string, Insight>} */
const listed = new Map();
/** The insight whose words are lit. @type {string | undefined} */
let lit;
/** Which of its mentions was looked at last. */
let mention = 0;

const day = new Intl.DateTimeFormat(undefined, { weekday: "short", day: "numeric", month: "short" });
const date = new Intl.DateTimeFormat(undefined, { dateStyle: "medium" });

/** @param {string} id @returns {HTMLElement | null} */
const line = (id) => document.querySelector(`.said[data-id="${CSS.escape(id)}"]`);

/** Marks the words of a line that something was understood from. @param {string} id Of the caption. */
function paint(id) {
  const said = line(id);
  if (!said) return;
  const letters = Array.from(said.textContent ?? "");
  const found = [...(evident.get(id)?.values() ?? [])];
  /** @type {{ start: number, end: number, insight: Insight }[]} */
  const parts = found.flatMap((insight) =>
    insight.evidence
      .filter(({ messageId }) => messageId === id)
      .map(({ start, end }) => (start < end ? { start, end: Math.min(end, letters.length), insight } : { start: 0, end: letters.length, insight })),
  );
  const cuts = [...new Set([0, letters.length, ...parts.flatMap(({ start, end }) => [start, end])])].sort((a, b) => a - b);
  said.replaceChildren(
    ...cuts.slice(1).map((end, index) => {
      const start = cuts[index];
      const text = letters.slice(start, end).join("");
      const over = parts.filter((part) => part.start <= start && part.end >= end);
      if (over.length === 0) return text;
      const mark = element("mark", "", text);
      mark.dataset.kind = over[0].insight.kind;
      mark.toggleAttribute("data-lit", over.some(({ insight }) => insight.id === lit));
      const kinds = [...new Set(over.map(({ insight }) => KINDS[insight.kind]).filter(Boolean))];
      if (kinds.length > 0) mark.title = kinds.join(", ");
      return mark;
    }),
  );
}

/** @param {Insight | undefined} insight */
const linesOf = (insight) => [...new Set(insight?.evidence.map(({ messageId }) => messageId))];

/** @param {Insight} insight */
function understand(insight) {
  const before = listed.get(insight.id);
  for (const id of linesOf(before)) evident.get(id)?.delete(insight.id);
  listed.set(insight.id, insight);
  for (const id of linesOf(insight)) {
    const there = evident.get(id) ?? new Map();
    there.set(insight.id, insight);
    evident.set(id, there);
    const [oldest] = evident.keys();
    if (evident.size > MAX_EVIDENT) evident.delete(oldest);
  }
  for (const id of new Set([...linesOf(before), ...linesOf(insight)])) paint(id);
  if (insight.kind === "topic") drawTopics();
  else if (KINDS[insight.kind]) list(insight);
  const [oldest] = listed.keys();
  if (listed.size > MAX_LISTED) forget(oldest);
}

/** @param {string} id Of an insight that later words took back, or of one too many. */
function forget(id) {
  const insight = listed.get(id);
  listed.delete(id);
  for (const of of linesOf(insight)) {
    evident.get(of)?.delete(id);
    if (evident.get(of)?.size === 0) evident.delete(of);
    paint(of);
  }
  document.getElementById(`insight-${id}`)?.remove();
  $("understood").hidden = !$("insights").hasChildNodes();
  drawTopics();
}

/** Another conversation begins; lines of the one before stay marked. */
function unlist() {
  listed.clear();
  $("insights").replaceChildren();
  $("understood").hidden = true;
  drawTopics();
  talkTime({ speakers: [], silenceMs: 0, overlapMs: 0 });
}

/** @param {Insight} insight */
function list(insight) {
  const item = element("li", "");
  item.id = `insight-${insight.id}`;
  item.dataset.kind = insight.kind;
  const button = /** @type {HTMLButtonElement} */ (element("button", "insight"));
  button.type = "button";
  button.append(element("span", "kind", KINDS[insight.kind]), " ", element("span", "what", insight.text));
  const due = insight.due ? `by ${day.format(new Date(insight.due))}` : "";
  const who = [insight.assignee?.name, due].filter(Boolean).join(" · ");
  if (who) button.append(" ", element("span", "facts", who));
  button.addEventListener("click", () => light(insight.id));
  item.append(button);
  const there = document.getElementById(item.id);
  if (there) there.replaceWith(item);
  else $("insights").prepend(item);
  $("understood").hidden = false;
}

/** Shows the words it came from; asked again, the next ones. @param {string} id */
function light(id) {
  const before = listed.get(lit ?? "");
  const insight = listed.get(id);
  mention = lit === id ? mention + 1 : 0;
  lit = id;
  for (const of of new Set([...linesOf(before), ...linesOf(insight)])) paint(of);
  const shown = linesOf(insight).map(line).filter((it) => it !== null);
  const words = shown[mention % Math.max(1, shown.length)];
  if (!words) return notice("Its words are no longer on this page.");
  following = false;
  (words.querySelector("mark[data-lit]") ?? words).scrollIntoView({ block: "center" });
}

/** Each topic as a line of the meeting's time, with a stroke where it was mentioned. */
function drawTopics() {
  const topics = [...listed.values()].filter(({ kind }) => kind === "topic").sort((a, b) => b.evidence.length - a.evidence.length || b.score - a.score);
  $("talked-about").hidden = topics.length === 0;
  if (!meeting || topics.length === 0) return $("topics").replaceChildren();
  const at = new Map(meeting.captions.map((caption) => [caption.id, caption.at]));
  // Who began first may have ended last.
  const [first, last] = meeting.captions.reduce(([least, most], caption) => [Math.min(least, caption.at), Math.max(most, caption.at)], [Infinity, 0]);
  const span = Math.max(1, last - first);
  const items = topics.slice(0, MAX_TOPICS).map((topic) => {
    const item = element("li", "");
    const button = /** @type {HTMLButtonElement} */ (element("button", "topic"));
    button.type = "button";
    const times = linesOf(topic).flatMap((id) => at.get(id) ?? []);
    const strip = element("span", "strip");
    strip.setAttribute("aria-hidden", "true");
    for (const time of times) {
      const stroke = element("i", "");
      stroke.style.setProperty("--at", String((time - first) / span));
      strip.append(stroke);
    }
    const count = Math.max(1, times.length);
    button.append(element("span", "what", topic.text), element("span", "unseen", count === 1 ? ", mentioned once" : `, mentioned ${count} times`), strip);
    button.addEventListener("click", () => light(topic.id));
    item.append(button);
    return item;
  });
  $("topics").replaceChildren(...items);
}

/** @param {number} ms */
const minutes = (ms) => `${Math.floor(ms / 60_000)}:${String(Math.floor(ms / 1_000) % 60).padStart(2, "0")}`;

/** Who spoke how long: one bar of shares, and a figure behind each name. @param {import("./hearsay.js").Analytics} analytics */
function talkTime({ speakers }) {
  const bar = $("shares");
  const all = speakers.reduce((sum, { talkMs }) => sum + talkMs, 0);
  bar.hidden = all === 0;
  const shares = speakers.map(({ user, talkMs, wpm }) => ({ user, talkMs, wpm, share: talkMs / Math.max(1, all) }));
  bar.replaceChildren(
    ...shares.map(({ user, share }) => {
      const part = element("i", "");
      part.style.setProperty("--share", String(share));
      part.style.setProperty("--hue", hue(user.id));
      return part;
    }),
  );
  bar.setAttribute("aria-label", `Talk time: ${shares.map(({ user, share }) => `${user.name || "somebody"} ${Math.round(share * 100)} %`).join(", ")}`);
  const of = new Map(shares.map((it) => [it.user.id, it]));
  for (const item of /** @type {NodeListOf<HTMLElement>} */ (document.querySelectorAll("#people > li"))) {
    const talked = of.get(item.dataset.id ?? "");
    const figure = /** @type {HTMLElement} */ (item.querySelector(".talked"));
    figure.textContent = talked ? minutes(talked.talkMs) : "";
    figure.title = talked ? `Has spoken ${minutes(talked.talkMs)} min, ${Math.round(talked.share * 100)} % of what was said, ${Math.round(talked.wpm)} words a minute` : "";
  }
}

/** What is known of somebody who was here before, under the name. @param {string} id */
function recall(id) {
  const item = document.querySelector(`#people > li[data-id="${CSS.escape(id)}"]`);
  const conversations = meeting?.earlier.get(id);
  if (!item || !conversations || item.querySelector(".earlier")) return;
  const box = element("details", "earlier");
  box.append(element("summary", "", conversations.length === 1 ? "Was here before, once" : `Was here before, ${conversations.length} times`));
  for (const { name, startTime, topics, summary, actionItems } of conversations) {
    const one = element("div", "");
    one.append(element("p", "when", `${name || "Meeting"}, ${date.format(new Date(startTime))}`));
    if (topics.length > 0) one.append(element("p", "", `About ${topics.join(", ")}.`));
    for (const sentence of summary) one.append(element("p", "", sentence));
    if (actionItems.length > 0) {
      const tasks = element("ul", "");
      for (const { text, assignee, dueBy } of actionItems) {
        const facts = [assignee, dueBy && `by ${day.format(new Date(dueBy))}`].filter(Boolean).join(" · ");
        tasks.append(element("li", "", facts ? `${text} (${facts})` : text));
      }
      one.append(tasks);
    }
    box.append(one);
  }
  item.append(box);
}

// ---------------------------------------------------------------------------------------------------------------------
// How it is going
// ---------------------------------------------------------------------------------------------------------------------

/** @type {HTMLElement | undefined} The marker of a loss that still lasts. */
let lostMarker;
/** The marker of a return of which it is not known yet whether it lacks anything. @type {{ text: string, marker: HTMLElement } | undefined} */
let back;
let wasLive = false;

/** @param {number} ms */
const seconds = (ms) => `${(ms / 1_000).toFixed(ms < 9_950 ? 1 : 0)} s`;

/** @param {"idle" | "connecting" | "live" | "late" | "waiting" | "closed"} state @param {string} text */
function connection(state, text) {
  const pill = $("connection");
  pill.dataset.state = state;
  pill.toggleAttribute("data-again", wasLive);
  const label = /** @type {HTMLElement} */ (pill.querySelector("span"));
  if (label.textContent !== text) label.textContent = text;
}

/** @param {string} text @param {"bad" | "good"} [kind] */
function notice(text, kind = "good") {
  $("notice").textContent = text;
  $("notice").dataset.kind = kind;
}

/** @param {Meeting} meeting */
function follow(meeting) {
  on(meeting, "caption", show);
  on(meeting, "withdrawn", ({ id }) => vanish(id));
  on(meeting, "members", people);
  on(meeting, "insight", understand);
  on(meeting, "retracted", ({ id }) => forget(id));
  on(meeting, "analytics", talkTime);
  on(meeting, "history", ({ participant }) => recall(participant.id));
  on(meeting, "listeners", ({ count }) => {
    $("listeners").textContent = count === 1 ? "1 page or program listens." : `${count} pages or programs listen.`;
  });
  on(meeting, "connection", ({ state, attempt, delayMs }) => {
    if (state === "live") connection("live", "Live");
    else if (state === "connecting") connection("connecting", wasLive ? "Reconnecting…" : "Connecting…");
    else if (state === "waiting") connection("waiting", attempt > 2 ? `Retrying in ${seconds(delayMs)}` : "Reconnecting…");
    else if (!wasLive) connection("closed", "Not connected");
    if (state === "waiting" && wasLive && !lostMarker) {
      lostMarker = mark("lost", meeting.voice ? "Connection lost. What you say is kept and will be sent." : "Connection lost.");
    }
    if (state === "live") wasLive = true;
  });
  on(meeting, "reconnected", ({ downMs }) => {
    lostMarker?.remove();
    lostMarker = undefined;
    const text = `Back after ${seconds(downMs)}.`;
    back = { text, marker: mark("back", `${text} Resumed where it broke off.`) };
  });
  on(meeting, "resumed", ({ whole }) => {
    const words = back?.marker.querySelector("span");
    if (words) words.textContent = whole ? `${back?.text} Resumed where it broke off: nothing missed, nothing twice.` : `${back?.text}`;
    back = undefined;
  });
  on(meeting, "degraded", () => connection("late", "Live, captions late"));
  on(meeting, "recovered", () => connection("live", "Live"));
  on(meeting, "gap", ({ reason, recovered }) => {
    if (recovered) mark("back", "The conversation ended meanwhile; its last lines were read again.");
    else mark("gap", `Some lines before this are missing here (${reason}).`);
  });
  on(meeting, "conversation", ({ state }) => {
    if (state === "began") unlist();
    if (state === "ended") mark("conversation", "The conversation has ended. Whoever speaks next begins a new one.");
  });
  on(meeting, "trouble", ({ code, details }) => {
    if (code === "forbidden") return unjoin(`The server refused the token: ${details}.`);
    if (code === "closed") connection("closed", "Disconnected");
    notice(`The server says: ${details}`, "bad");
  });
}

/**
 * @param {EventTarget} target
 * @param {string} type
 * @param {(detail: any) => void} run
 */
function on(target, type, run) {
  target.addEventListener(type, (event) => run(/** @type {CustomEvent} */ (event).detail));
}

/** @param {import("./hearsay.js").Member[]} members */
function people(members) {
  $("nobody").hidden = members.length > 0;
  const list = $("people");
  const known = new Map([...list.children].map((item) => [/** @type {HTMLElement} */ (item).dataset.id, /** @type {HTMLElement} */ (item)]));
  for (const member of members) {
    let item = known.get(member.id);
    known.delete(member.id);
    if (!item) {
      item = element("li", "");
      item.dataset.id = member.id;
      const name = element("span", "name", member.name || "Somebody");
      if (member.userId === meeting?.userId) name.append(element("span", "you", " (you)"));
      const talks = element("span", "talks");
      talks.append(element("i", ""), element("i", ""), element("i", ""));
      item.style.setProperty("--who", `oklch(var(--who-light) var(--who-chroma) ${hue(member.id)})`);
      talks.append(element("span", "unseen", "speaks"));
      item.append(face(member), name, talks, element("span", "talked"));
      list.append(item);
      recall(member.id);
    }
    item.dataset.speaking = String(member.speaking);
    item.dataset.present = String(member.present);
  }
  for (const forgotten of known.values()) forgotten.remove();
  brief();
}

function brief() {
  const speaking = [...(meeting?.members.values() ?? [])].filter((member) => member.speaking).map((member) => member.name);
  const count = meeting?.members.size ?? 0;
  const latency = $("latency").dataset.ms ? ` · ${$("latency").dataset.ms}` : "";
  $("brief").textContent = speaking.length > 0 ? `${speaking.join(", ")} speaking${latency}` : `${count === 1 ? "1 person" : `${count} people`}${latency}`;
}

const LADDER = /** @type {Record<string, string>} */ ({
  full: "Full",
  slower_partials: "Busy: slower captions",
  no_partials: "Busy: finals only",
  refusing: "Full: no new streams",
});

/** @param {number} ms */
const short = (ms) => `${(ms / 1_000).toFixed(2)} s`;

/** @param {import("./hearsay.js").Voice} voice */
function watch(voice) {
  on(voice, "level", ({ peak }) => $("level").style.setProperty("--peak", String(Math.min(1, Math.sqrt(peak)))));
  on(voice, "latency", ({ ms }) => {
    const sorted = [...voice.latencies].sort((a, b) => a - b);
    const median = sorted[Math.floor(sorted.length / 2)];
    $("latency").textContent = sorted.length > 1 ? `${short(ms)} (median ${short(median)})` : short(ms);
    $("latency").dataset.ms = short(ms);
    brief();
  });
  on(voice, "health", ({ realtimeFactor, ladder }) => {
    // Nothing was decoded yet.
    if (realtimeFactor > 0) $("speed").textContent = `${realtimeFactor.toFixed(realtimeFactor < 10 ? 1 : 0)}× real time`;
    $("ladder").textContent = LADDER[ladder] ?? ladder;
  });
  on(voice, "progress", ({ seconds: at, of }) => {
    /** @type {HTMLProgressElement} */ ($("progress")).value = of > 0 ? at / of : 0;
  });
  on(voice, "lost", ({ chunks }) => mark("gap", `${seconds(chunks * 40)} of your speech could not be kept and is lost.`));
  on(voice, "reconnected", ({ stream, resent }) => {
    if (stream === "same") notice(resent > 0 ? `Your stream goes on; ${seconds(resent * 40)} of your speech was sent again.` : "Your stream goes on.");
    if (stream === "new") notice("Your stream began anew: what was said while the connection broke may be cut.");
  });
  const backlog = setInterval(() => ($("backlog").textContent = seconds(voice.uncoveredMs)), 500);
  on(voice, "ended", () => {
    clearInterval(backlog);
    for (const id of ["backlog", "speed", "ladder"]) $(id).textContent = "–";
    if ($("notice").textContent?.startsWith("Playing ")) notice("");
    speaking(undefined);
  });
}

// ---------------------------------------------------------------------------------------------------------------------
// Controls
// ---------------------------------------------------------------------------------------------------------------------

/** @param {"microphone" | "recording" | "wait" | undefined} kind */
function speaking(kind) {
  const button = /** @type {HTMLButtonElement} */ ($("microphone"));
  const label = /** @type {HTMLElement} */ (button.querySelector(".label"));
  button.disabled = kind === "wait";
  button.toggleAttribute("data-on", kind === "microphone" || kind === "recording");
  label.textContent = kind === "microphone" ? "Stop microphone" : kind === "recording" ? "Stop recording" : kind === "wait" ? "Just a moment…" : "Start microphone";
  $("mute").hidden = kind !== "microphone";
  $("mute").setAttribute("aria-pressed", "false");
  $("mute").textContent = "Mute";
  $("progress").hidden = kind !== "recording";
  $("play").hidden = kind !== undefined;
  if (!kind) $("level").style.setProperty("--peak", "0");
}

/** @param {() => Promise<import("./hearsay.js").Source>} open */
async function speak(open) {
  if (!meeting) return;
  speaking("wait");
  notice("");
  try {
    const source = await open();
    const compress = /** @type {HTMLInputElement} */ ($("compress")).checked;
    const voice = await meeting.speak(source, { encoding: compress ? "OPUS" : "LINEAR16" });
    watch(voice);
    speaking(source.kind);
    notice(source.kind === "recording" ? `Playing ${source.label} as if spoken.` : "");
  } catch (error) {
    speaking(undefined);
    notice(explained(error), "bad");
  }
}

/** @param {unknown} error */
function explained(error) {
  if (!(error instanceof Error)) return String(error);
  switch (error.name) {
    case "NotAllowedError":
      return "The browser does not let this page use the microphone. Allow it in the address bar, or play a recording.";
    case "NotFoundError":
      return "No microphone was found. You can play a recording instead.";
    case "EncodingError":
      return "The browser cannot decode this file. WAV, MP3, Ogg, FLAC and M4A usually work.";
    default:
      return error.message;
  }
}

$("microphone").addEventListener("click", async () => {
  const voice = meeting?.voice;
  if (!voice) return speak(() => microphone());
  speaking("wait");
  await voice.stop();
});

$("mute").addEventListener("click", () => {
  const voice = meeting?.voice;
  if (!voice) return;
  voice.mute(!voice.muted);
  $("mute").setAttribute("aria-pressed", String(voice.muted));
  $("mute").textContent = voice.muted ? "Muted" : "Mute";
});

/** @param {File | undefined} file */
function play(file) {
  if (!file || meeting?.voice) return;
  const audible = /** @type {HTMLInputElement} */ ($("audible")).checked;
  void speak(() => recording(file, { audible }));
}

$("file").addEventListener("change", () => {
  const input = /** @type {HTMLInputElement} */ ($("file"));
  play(input.files?.[0]);
  input.value = "";
});

document.addEventListener("dragover", (event) => event.preventDefault());
document.addEventListener("drop", (event) => {
  event.preventDefault();
  if (meeting) play(event.dataTransfer?.files[0]);
});

$("watch").addEventListener("change", () => meeting?.track(watched()));

$("invite").addEventListener("click", async () => {
  if (!meeting) return;
  const address = new URL(location.pathname, location.origin);
  address.searchParams.set("meeting", meeting.meeting);
  let said = "The link is copied. It lets its reader listen and speak in this meeting, and nothing else.";
  try {
    address.hash = new URLSearchParams({ token: await meeting.invite() }).toString();
  } catch (error) {
    // A link with this page's own token would give away more than the meeting.
    said = `The link is copied, without a token: the server gives out none for guests (${error instanceof Error ? error.message : error}). Your guest will be asked for one.`;
  }
  try {
    await navigator.clipboard.writeText(address.href);
    notice(said);
  } catch {
    notice(`The browser does not let this page copy. The link is ${address.href}`);
  }
});

$("leave").addEventListener("click", async () => {
  await meeting?.leave();
  sessionStorage.removeItem(HELD);
  location.assign("/");
});

const wide = matchMedia("(min-width: 62.01rem)");
const fold = () => (/** @type {HTMLDetailsElement} */ ($("fold")).open = wide.matches);
wide.addEventListener("change", fold);
fold();
