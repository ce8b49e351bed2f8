// The review page: a grid of crops, one question, and the keyboard.
//
// Two guarantees shape this file. Enter shows the next page at once: it is loaded and decoded while the
// reviewer looks at the current one. No work is lost: every mark is a draft in localStorage, and every
// committed page waits in an outbox there until the server confirms it.

const MIN_PAGE = 60; // fewest crops of a page; the default size shows them without scrolling
const MOST_PAGE = 500; // most crops of a page that the server accepts
const GAP = 6; // pixels between crops, as in the CSS
const CELL = { smallest: 44, largest: 420, usual: 168, judged: 176 };
const HOVER_MS = 350;
const DRAG_PX = 6; // a click may move the mouse this far
const SETTLE_MS = 200; // an Enter sooner after a page appears is a key bounce: the reviewer cannot have looked yet
const POLL_MS = 20_000;
const TIMEOUT_MS = 20_000;
const DRAFT_DAYS = 7;
const ENDED = "Your session ended: run the review command again and open its address in this browser. Your marks and unsent pages are kept here.";
const taken = (why) => `${why[0].toUpperCase()}${why.slice(1)}: reload the page to continue as that reviewer. Your marks and unsent pages are kept; the review command prints an address for another browser.`;

const $ = (id) => document.getElementById(id);
const grid = $("grid"), panel = $("panel"), zoomBox = $("zoom"), root = document.documentElement;

const S = {
  camera: "", reviewer: "", classes: [], labels: [], // labels: {label, key, title, colour}
  queue: new URLSearchParams(location.search).get("queue") || "seed",
  queues: [], agreement: null, undoable: [], next: "", waiting: 0,
  tab: "",
  epoch: 0, // number of queues opened so far: a response for an earlier one is dropped
  page: null, ahead: [], last: false, // last: the server had no further page when asked
  filling: 0, failures: 0, trouble: "", ended: "", undoing: 0, empty: "",
  columns: 10, cell: 100, size: 0, // size: the reviewer's choice, 0 for the default
  mouse: null, // position of the mouse; null if the keyboard was used last
  anchor: 0, base: null, // start of a range, and the marks before it
  paces: [], tick: 0, sitting: { crops: 0, pages: 0 },
};

// -------------------------------------------------------------------------------------------- helpers

function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "onclick") node.addEventListener("click", value);
    else if (value !== undefined && value !== null) node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

const number = (n) => Number(n).toLocaleString("en");
const count = (n, noun) => `${number(n)} ${noun}${n === 1 ? "" : "s"}`;
const sleep = (ms) => new Promise((done) => setTimeout(done, ms));
const path = (kind, id) => `/${kind}/${encodeURIComponent(id)}`;

function say(text, kind = "") {
  $("status").textContent = text;
  $("status").dataset.kind = kind;
}

function uuid() {
  // crypto.randomUUID is missing if the page comes over plain http from another machine.
  if (crypto.randomUUID) return crypto.randomUUID();
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6] & 0x0f) | 0x40;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  const hex = [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-");
}

// Storage may be full or forbidden. Then entries are kept in memory, and the page warns the reviewer.
const memory = new Map();
const store = {
  get: (key) => { try { return memory.get(key) ?? localStorage.getItem(key); } catch { return memory.get(key) ?? null; } },
  set(key, text) {
    try { localStorage.setItem(key, text); memory.delete(key); }
    catch {
      memory.set(key, text);
      say("This browser cannot store data (private mode or full): leave this page open until everything is sent.", "warn");
    }
  },
  remove(key) { memory.delete(key); try { localStorage.removeItem(key); } catch { /* not stored */ } },
  keys(prefix) {
    let stored = [];
    try { stored = Object.keys(localStorage); } catch { /* none */ }
    return [...new Set([...stored, ...memory.keys()])].filter((key) => key.startsWith(prefix));
  },
  json(key) { try { return JSON.parse(store.get(key)); } catch { return null; } },
};

// A tab keeps its id over reloads. A duplicated tab copies it, so the id is held with a lock.
async function nameTab() {
  let id = "";
  try { id = sessionStorage.getItem("collabteam:tab") ?? ""; } catch { /* a new one */ }
  for (let tries = 0; tries < 5; tries++) {
    id ||= uuid();
    const mine = !navigator.locks || await new Promise((known) => {
      navigator.locks.request(`collabteam:tab:${id}`, { ifAvailable: true }, (lock) => {
        known(Boolean(lock));
        return lock ? new Promise(() => {}) : undefined; // held until the tab closes
      });
    });
    if (mine) break;
    if (tries >= 2) id = ""; // after a reload, the old page may take a moment to release the lock
    else await sleep(60);
  }
  try { sessionStorage.setItem("collabteam:tab", id); } catch { /* then a reload counts as a new tab */ }
  return id;
}

// ------------------------------------------------------------------------------------------ the server

class Failure extends Error {
  constructor(status, message) { super(message); this.status = status; }
  get passing() { return this.status === 0 || this.status >= 500 || this.status === 408 || this.status === 429; }
}

async function call(url, body) {
  // Send the page's reviewer: another reviewer's address may have been opened in this browser.
  if (body && S.reviewer) body = { reviewer: S.reviewer, ...body };
  const init = body && { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
  let response, answer;
  try {
    response = await fetch(url, { ...init, signal: AbortSignal.timeout(TIMEOUT_MS) });
    answer = await response.json();
  } catch (error) {
    if (!response || response.ok || error.name === "TimeoutError") throw new Failure(0, "no connection to the server");
  }
  if (response.status === 401 || response.status === 409) {
    endSession(response.status === 401 ? ENDED : taken(answer?.error ?? "this browser is another reviewer's"));
    throw new Failure(401, "your session ended");
  }
  if (!response.ok) throw new Failure(response.status, answer?.error ?? `the server answered ${response.status}`);
  return answer;
}

function absorb(answer) {
  for (const name of ["camera", "reviewer", "classes", "queues", "agreement", "undoable", "next", "waiting", "empty"]) {
    if (answer[name] !== undefined) S[name] = answer[name];
  }
  if (answer.classes) nameClasses();
  renderBar();
}

async function refresh() {
  const epoch = S.epoch;
  const answer = await call("/api/state", { queue: S.queue, tab: S.tab });
  if (epoch !== S.epoch) return;
  endSession("");
  S.queue = answer.queue ?? S.queue;
  absorb(answer);
}

function endSession(ended) {
  if (S.ended === ended) return;
  S.ended = ended;
  renderAlerts();
  renderBar();
  if (!ended) { send(); fill(); }
}

// ------------------------------------------------------------------------------------------ the outbox

// Only one tab sends at a time, and undo waits for it, so it is certain whether a page is still unsent.
let chain = Promise.resolve();
function locked(work) {
  if (navigator.locks) return navigator.locks.request(`collabteam:${S.camera}:outbox`, work);
  const turn = chain.then(work);
  chain = turn.catch(() => {});
  return turn;
}

const outbox = {
  prefix: () => `collabteam:${S.camera}:outbox:`,
  put: (entry) => store.set(outbox.prefix() + entry.commit, JSON.stringify(entry)),
  get: (id) => store.json(outbox.prefix() + id),
  remove: (id) => store.remove(outbox.prefix() + id),
  // Oldest first. Pages that another reviewer left in this browser wait for that reviewer.
  list: () => store.keys(outbox.prefix()).map(store.json)
    .filter((entry) => entry?.commit && (entry.reviewer ?? S.reviewer) === S.reviewer)
    .sort((one, two) => (one.at ?? 0) - (two.at ?? 0)),
  pages: () => outbox.list().filter((entry) => !entry.undo),
};
const untried = new Set(); // commits that were never sent
const refused = new Map(); // commit id -> why the server refused it
const kept = new Map(); // commit id -> the page, while it is unsent and can be undone
let sending = false, sendFailures = 0, sendTrouble = "", sendTimer = 0, clock = 0;

function post(page, answers) {
  clock = Math.max(Date.now(), clock + 1);
  const entry = {
    commit: uuid(), page: page.id, queue: S.queue, tab: S.tab, suggested: page.suggested, answers,
    at: clock, reviewer: S.reviewer,
  };
  outbox.put(entry);
  untried.add(entry.commit);
  kept.set(entry.commit, page);
  if (kept.size > 5) kept.delete(kept.keys().next().value);
}

async function send() {
  if (sending || S.ended || !S.camera) return;
  sending = true;
  clearTimeout(sendTimer);
  try {
    for (;;) {
      const entry = outbox.list().find((one) => !refused.has(one.commit));
      if (!entry) break;
      await locked(() => sendOne(entry.commit));
      sendFailures = 0;
    }
    sendFailures = 0;
    if (!S.page) refresh().catch(() => {}); // the panel shows what comes next
  } catch (error) {
    if (error.status !== 401) {
      sendFailures += 1;
      sendTrouble = error.status >= 500 ? `: ${error.message}` : "";
      sendTimer = setTimeout(send, Math.min(5000, 500 * 2 ** (sendFailures - 1)));
    }
  } finally {
    sending = false;
    renderBar();
  }
}

async function sendOne(id) {
  const entry = outbox.get(id); // missing if another tab sent it, or it was undone
  if (!entry) return;
  const { at, undo, ...request } = entry;
  untried.delete(id);
  try {
    const answer = undo
      ? await call("/api/undo", { commit: id, queue: entry.queue, tab: entry.tab, reviewer: entry.reviewer })
      : await call("/api/commit", request);
    outbox.remove(id);
    kept.delete(id);
    const { queues, agreement, undoable } = answer;
    absorb(entry.queue === S.queue ? { queues, agreement, undoable } : { queues });
  } catch (error) {
    if (error.status === 401 || error.passing) throw error;
    if (undo) outbox.remove(id); // the server never had it: nothing to take back
    else { refused.set(id, error.message); renderAlerts(); }
  }
}

// ------------------------------------------------------------------------------------------ the drafts

const drafts = {
  prefix: () => `collabteam:${S.camera}:draft:`,
  save(page) {
    const key = drafts.prefix() + page.id;
    if (!page.labels.size && !page.selected.size && !page.given) store.remove(key);
    else store.set(key, JSON.stringify({
      at: Date.now(), labels: Object.fromEntries(page.labels),
      wrong: [...page.selected].filter((id) => !page.labels.has(id)),
    }));
  },
  load: (page) => store.json(drafts.prefix() + page.id),
  remove: (page) => store.remove(drafts.prefix() + page.id),
  clean() {
    for (const key of store.keys("collabteam:").filter((one) => one.includes(":draft:"))) {
      const age = Date.now() - (store.json(key)?.at ?? 0);
      if (!(age < DRAFT_DAYS * 864e5)) store.remove(key);
    }
  },
};

// ------------------------------------------------------------------------------------------ the labels

function nameClasses() {
  const letters = [..."abcdefghijklmnoprsvwy"]; // without the letters that are keys
  S.labels = S.classes.map((label, i) => ({
    label, title: label, short: label, key: i < 9 ? String(i + 1) : letters[i - 9] ?? "", colour: (i % 8) + 1,
  }));
  S.labels.push(
    { label: "unknown", title: "none of these", short: "none", key: "0", colour: "0" },
    { label: "unusable", title: "unusable", short: "unusable", key: "x", colour: "x" },
  );
}

const about = (label) => S.labels.find((one) => one.label === label) ?? { label, title: label, short: label, key: "", colour: "0" };

// ------------------------------------------------------------------------------------------- the pages

// Do not show a crop that is on another page of this tab, or answered in the outbox. The server may not
// know of either: it was restarted, or the old page's release came after the new page's request.
function build(answer, pages = []) {
  const page = {
    id: answer.page, suggested: answer.suggested ?? "", sorted: answer.sorted ?? false, cells: [], index: new Map(),
    labels: new Map(), selected: new Set(), given: false,
    sheet: el("div", { class: "sheet", role: "presentation" }), columns: 0, seen: 0, shown: 0, cursor: 0,
  };
  const known = new Set([
    ...unsentCrops(),
    ...pages.flatMap((one) => [...one.index.keys()]),
  ]);
  for (const crop of answer.crops) {
    const id = String(crop.id);
    if (known.has(id)) continue;
    known.add(id);
    page.index.set(id, page.cells.length);
    page.cells.push(buildCell(crop, id));
  }
  page.judged = page.cells.some((cell) => cell.said);
  const draft = drafts.load(page);
  const given = Object.entries(answer.given ?? {});
  page.given = given.length > 0;
  for (const [id, label] of draft ? Object.entries(draft.labels ?? {}) : given) {
    if (page.index.has(id) && label !== page.suggested) page.labels.set(id, label);
  }
  for (const id of draft?.wrong ?? []) if (page.index.has(id)) page.selected.add(id);
  page.cells.forEach((cell, i) => renderCell(page, i));
  Promise.all(page.cells.map((cell) => cell.loaded)).then(() => { page.ready = true; markNext(); });
  return page;
}

function buildCell(crop, id) {
  const img = el("img", { alt: "", draggable: "false", decoding: "sync" });
  const chip = el("span", { class: "chip", "aria-hidden": "true" });
  const node = el("div", { class: "cell", role: "gridcell", tabindex: "-1", "data-testid": "cell", "data-crop": id }, img, chip);
  const said = crop.said && Object.keys(crop.said).length ? crop.said : null;
  if (said) {
    node.classList.add("judged");
    node.append(el("p", { class: "said" }, ...Object.entries(said).map(
      ([who, label]) => el("span", {}, el("b", {}, who), `: ${about(label).title}`))));
  }
  const cell = { id, said, node, img, chip, state: "loading" };
  cell.loaded = new Promise((done) => loadPicture(cell, done));
  return cell;
}

function loadPicture(cell, done, tries = 0) {
  cell.img.onload = () => {
    cell.state = "there";
    cell.node.classList.remove("missing");
    cell.img.decode().catch(() => {}).then(done);
  };
  cell.img.onerror = () => {
    if (tries < 2) setTimeout(loadPicture, 400 * 2 ** tries, cell, done, tries + 1);
    else { cell.state = "missing"; cell.node.classList.add("missing"); done(); }
  };
  cell.img.src = path("crop", cell.id) + (tries ? `?again=${tries}` : "");
}

const shown = () => [S.page, ...S.ahead].filter(Boolean);
const unsentCrops = () => outbox.pages().filter((entry) => entry.queue === S.queue)
  .flatMap((entry) => Object.keys(entry.answers));
const held = () => ({
  ...Object.fromEntries(shown().map((page) => [page.id, [...page.index.keys()]])), "": unsentCrops(),
});

// The only loop that loads pages. It stops when a page is on screen and the next one is ready.
async function fill(again = false) {
  if (S.filling === S.epoch || S.ended || !S.camera) return;
  const epoch = (S.filling = S.epoch);
  let pause = 0;
  try {
    while (epoch === S.epoch && !(S.page && S.ahead.length)) {
      if (!S.page && S.ahead.length) { show(S.ahead.shift()); continue; }
      // Not during a commit: "hold" would claim crops that the server has just recorded as answered.
      const answer = await locked(() => epoch === S.epoch && call("/api/page", {
        queue: S.queue, size: pageSize(), tab: S.tab, hold: held(), ...(again && { again: true }),
      }));
      if (epoch !== S.epoch) return;
      S.failures = 0;
      S.trouble = "";
      absorb(answer);
      S.last = !answer.crops.length;
      if (S.last) { if (!S.page) finish(); break; }
      again = false;
      const page = build(answer, shown());
      if (!page.cells.length) { await sleep(300); continue; }
      if (S.page) S.ahead.push(page);
      else show(page);
    }
  } catch (error) {
    if (epoch !== S.epoch || error.status === 401) return;
    S.trouble = error.message;
    S.failures += 1;
    if (error.passing) pause = Math.min(5000, 500 * 2 ** (S.failures - 1));
    if (!S.page) showTrouble(error);
  } finally {
    if (epoch === S.epoch) {
      S.filling = -1;
      markNext();
      if (pause) setTimeout(() => epoch === S.epoch && fill(again), pause);
    }
  }
}

function markNext() {
  const settled = S.page && performance.now() - S.page.shown >= SETTLE_MS;
  let next = "loading";
  if (S.trouble) next = "error";
  else if (S.ahead.length) next = S.ahead[0].ready && settled ? "ready" : "loading";
  else if (S.last && (settled || !S.page)) next = "none";
  root.dataset.next = next;
}

function show(page) {
  hideZoom();
  S.page = page;
  S.base = null;
  panel.hidden = true;
  panel.replaceChildren();
  delete panel.dataset.testid;
  grid.classList.remove("away");
  layout();
  grid.replaceChildren(page.sheet);
  grid.scrollTop = 0;
  page.shown = performance.now();
  page.seen = grid.clientHeight;
  S.tick ||= page.shown;
  root.dataset.page = page.id;
  renderAsk();
  renderLegend();
  const under = S.mouse && document.elementFromPoint(S.mouse.x, S.mouse.y)?.closest?.(".cell");
  moveCursor(under ? page.index.get(under.dataset.crop) : page.cursor, { scroll: !under });
  S.anchor = page.cursor;
  markNext();
  setTimeout(markNext, SETTLE_MS + 10);
}

function leavePage() {
  S.page = null;
  root.dataset.page = "";
  hideZoom();
}

// -------------------------------------------------------------------------------------- size and layout

function fit(columns) {
  const width = grid.clientWidth - 24, height = grid.clientHeight - 16;
  const cell = Math.max(20, Math.floor((width - GAP * (columns - 1)) / columns));
  return { columns, cell, count: columns * Math.max(1, Math.floor((height + GAP) / (cell + GAP))) };
}

function chooseFit(judged = false) {
  const across = (size) => Math.max(1, Math.round((grid.clientWidth - 24 + GAP) / (size + GAP)));
  if (judged) return fit(across(Math.max(S.size, CELL.judged))); // there is text to read
  if (S.size) return fit(across(S.size));
  let best = fit(across(CELL.usual));
  while (best.count < MIN_PAGE && best.cell > CELL.smallest) best = fit(best.columns + 1);
  return best;
}

const pageSize = () => Math.min(MOST_PAGE, Math.max(MIN_PAGE, chooseFit().count));

function layout() {
  const page = S.page;
  if (!page) return;
  const { columns, cell } = chooseFit(page.judged);
  S.columns = columns;
  S.cell = cell;
  page.sheet.style.setProperty("--columns", columns);
  page.sheet.style.setProperty("--cell", `${cell}px`);
  if (page.columns === columns) return;
  page.columns = columns;
  const rows = [];
  for (let i = 0; i < page.cells.length; i += columns) {
    rows.push(el("div", { class: "row", role: "row" }, ...page.cells.slice(i, i + columns).map((one) => one.node)));
  }
  page.sheet.replaceChildren(...rows);
  focusCursor();
}

function resize(step) {
  const now = S.page && !S.page.judged ? S.columns : chooseFit().columns;
  const next = fit(Math.max(1, now - step));
  if (next.cell < CELL.smallest || next.cell > CELL.largest) return;
  S.size = next.cell;
  store.set("collabteam:size", String(S.size));
  layout();
  if (S.page) moveCursor(S.page.cursor);
  say(`${next.columns} crops in a row. The next pages have ${pageSize()} crops.`);
}

// ------------------------------------------------------------------------------------ cursor and marks

function focusCursor() {
  const node = S.page?.cells[S.page.cursor]?.node;
  if (node && !document.querySelector("dialog[open]")) node.focus({ preventScroll: true });
}

function moveCursor(i, { scroll = true } = {}) {
  const page = S.page;
  if (!page) return;
  const old = page.cells[page.cursor]?.node;
  old?.classList.remove("cursor");
  old?.setAttribute("tabindex", "-1");
  page.cursor = Math.max(0, Math.min(page.cells.length - 1, i));
  const { node } = page.cells[page.cursor];
  node.classList.add("cursor");
  node.setAttribute("tabindex", "0");
  focusCursor();
  if (scroll) node.scrollIntoView({ block: "nearest" });
  if (!zoomBox.hidden && zoom.sticky) showZoom(true);
}

function effective(page, cell) {
  return page.labels.get(cell.id) ?? (page.selected.has(cell.id) ? "?" : page.suggested);
}

function renderCell(page, i) {
  const cell = page.cells[i];
  const label = page.labels.get(cell.id), selected = page.selected.has(cell.id);
  const one = label && about(label);
  const mark = label ?? (selected ? "?" : "");
  cell.node.dataset.label = mark;
  cell.node.dataset.colour = one ? one.colour : "";
  cell.node.setAttribute("aria-selected", selected);
  cell.chip.textContent = one ? `${one.key} ${one.short}`.trim() : mark;
  const said = cell.said ? Object.entries(cell.said).map(([who, what]) => `, ${who} said ${about(what).title}`).join("") : "";
  const state = one ? one.title : selected ? "marked, no class yet" : page.suggested ? "all right" : "no answer";
  cell.node.setAttribute("aria-label", `Crop ${i + 1}: ${state}${said}`);
}

function touched() {
  const page = S.page;
  page.cells.forEach((cell, i) => renderCell(page, i));
  drafts.save(page);
  renderLegend();
  const open = openCrops(page).length;
  if (!open) say("");
  else say(`${count(open, "crop")} marked without a class: press a number to say what ${open === 1 ? "it is" : "they are"}.`);
}

const openCrops = (page) => page.cells.filter((cell) => page.selected.has(cell.id) && !page.labels.has(cell.id));

function toggle(i) {
  const { labels, selected, cells } = S.page;
  const { id } = cells[i];
  if (selected.has(id)) selected.delete(id);
  else if (labels.has(id)) labels.delete(id);
  else selected.add(id);
  S.anchor = i;
  S.base = null;
  touched();
}

function extend(to) {
  const page = S.page;
  S.base ??= new Set(page.selected);
  page.selected = new Set(S.base);
  const [from, till] = [Math.min(S.anchor, to), Math.max(S.anchor, to)];
  for (let i = from; i <= till; i++) page.selected.add(page.cells[i].id);
  touched();
}

function targets() {
  const page = S.page;
  return page.selected.size ? [...page.selected] : [page.cells[page.cursor].id];
}

// null removes the given label: the crop is unmarked again.
function give(label) {
  const page = S.page;
  if (!page) return;
  const ids = targets();
  for (const id of ids) {
    if (label === null || label === page.suggested) page.labels.delete(id);
    else page.labels.set(id, label);
  }
  if (label !== null) S.given = { page, label, at: Math.max(...ids.map((id) => page.index.get(id))) };
  page.selected = new Set();
  S.base = null;
  touched();
  if (label !== null && label !== page.suggested) say(`${count(ids.length, "crop")}: ${about(label).title}.`);
}

// One key for a run of alike crops: the first has got its class, the cursor is at the last.
function giveRun() {
  const page = S.page;
  if (!page) return;
  if (S.given?.page !== page) {
    say("Give the first crop of the run a class, move to the last one, and press . again.", "warn");
    return;
  }
  const { at, label } = S.given;
  // Marks elsewhere must not get lost: on other pages an unmarked crop counts as right.
  if (page.selected.size) { give(label); return; }
  for (let i = Math.min(at, page.cursor); i <= Math.max(at, page.cursor); i++) page.selected.add(page.cells[i].id);
  give(label);
}

// ------------------------------------------------------------------------------------- commit and undo

function commit(event) {
  const page = S.page;
  if (S.undoing) return;
  if (!page) { fill(); return; }
  if (event?.repeat || performance.now() - page.shown < SETTLE_MS) {
    say("That was quick: press Enter again when you have looked.", "warn");
    return;
  }
  const open = openCrops(page);
  if (open.length) {
    say(`${count(open.length, "crop")} marked without a class: press a number, or Esc to clear.`, "warn");
    moveCursor(page.index.get(open[0].id));
    return;
  }
  if (page.suggested && showUnseen(page)) return;
  if (page.suggested && page.cells.some((cell) => cell.state === "loading" && !page.labels.has(cell.id))) {
    say("Pictures are still loading, one moment.", "warn");
    return;
  }
  const answers = {};
  let unseen = 0;
  for (const cell of page.cells) {
    const label = page.labels.get(cell.id) ?? page.suggested;
    if (!page.labels.has(cell.id) && cell.state !== "there") unseen += page.suggested ? 1 : 0; // its picture was not shown
    else if (label) answers[cell.id] = label;
  }
  const n = Object.keys(answers).length;
  if (!n) {
    say(page.suggested
      ? "No picture of this page could be loaded. Press x to mark the crop at the cursor as unusable."
      : "Nothing is labelled yet: mark alike crops, or move to one, and press the number of their class.", "warn");
    return;
  }
  const start = event?.timeStamp ?? performance.now();
  S.paces.push({ n, ms: Math.min(60_000, performance.now() - S.tick) });
  if (S.paces.length > 15) S.paces.shift();
  S.tick = performance.now();
  S.sitting.crops += n;
  S.sitting.pages += 1;
  post(page, answers);
  drafts.remove(page);
  say(unseen ? `${count(unseen, "crop")} without a picture left out; press x for unusable.` : "", unseen ? "warn" : "");
  leavePage();
  if (S.ahead.length) show(S.ahead.shift());
  else if (S.last && n === page.cells.length) finish();
  else showWaiting(); // unanswered crops are shown again
  renderBar();
  // When the second callback runs, the next frame has been drawn; only then send.
  requestAnimationFrame(() => requestAnimationFrame(() => {
    performance.measure("enter-to-grid", { start, end: performance.now() });
  }));
  setTimeout(() => { send(); fill(); }, 0);
}

// If the page is longer than the window, Enter first scrolls to the rest, so that all crops are seen.
function showUnseen(page) {
  const first = page.cells.findIndex((cell) => cell.node.offsetTop + S.cell / 2 > page.seen);
  if (first < 0) return false;
  say(`${count(page.cells.length - first, "more crop")} further down: press Enter again if they are right, too.`, "warn");
  page.cells[first].node.scrollIntoView({ block: "start" });
  if (!S.mouse) moveCursor(first, { scroll: false });
  return true;
}

let undoing = Promise.resolve();
function undo() {
  S.undoing += 1;
  undoing = undoing.then(takeBack).catch((error) => {
    say(`The page cannot be undone: ${error.message}.`, "error");
    if (error.status >= 400) refresh().catch(() => {});
  }).finally(() => { S.undoing -= 1; });
}

async function takeBack() {
  const epoch = S.epoch;
  if (!S.camera) return;
  say("Undoing the last page…");
  const page = await locked(async () => {
    const last = outbox.pages().filter((entry) => entry.queue === S.queue).at(-1);
    if (last) return takeBackUnsent(last);
    const undone = new Set(outbox.list().map((entry) => entry.commit));
    const id = S.undoable.filter((one) => !undone.has(one)).at(-1);
    if (!id) return null;
    const answer = await call("/api/undo", { commit: id, queue: S.queue, tab: S.tab });
    if (epoch !== S.epoch) return null;
    absorb(answer);
    return build(answer);
  });
  if (epoch !== S.epoch) return;
  if (!page) { say("There is nothing to undo in this queue.", "warn"); return; }
  const back = S.paces.pop();
  S.sitting.crops = Math.max(0, S.sitting.crops - (back?.n ?? 0));
  S.sitting.pages = Math.max(0, S.sitting.pages - (back ? 1 : 0));
  if (S.page) S.ahead.unshift(S.page);
  show(page);
  page.given = true; // so that a draft without marks overrides the answers
  drafts.save(page);
  say("This page is back with your answers. Enter commits it again.");
  renderBar();
  send();
}

function takeBackUnsent(entry) {
  const page = kept.get(entry.commit);
  if (untried.has(entry.commit) || refused.has(entry.commit)) outbox.remove(entry.commit);
  else outbox.put({ ...entry, undo: true, answers: {} }); // the server may have recorded it without a response
  refused.delete(entry.commit);
  kept.delete(entry.commit);
  renderAlerts();
  if (page) return page;
  const crops = Object.keys(entry.answers).map((id) => ({ id }));
  return build({ page: entry.page, suggested: entry.suggested, crops, given: entry.answers });
}

// ---------------------------------------------------------------------------------------------- queues

async function openQueue(name) {
  const epoch = ++S.epoch;
  const leaving = Boolean(S.page);
  Object.assign(S, {
    queue: name, page: null, ahead: [], last: false, trouble: "", failures: 0, undoable: [],
    paces: [], tick: 0, sitting: { crops: 0, pages: 0 },
  });
  leavePage();
  markNext();
  showWaiting();
  say("");
  const url = new URL(location.href);
  url.searchParams.set("queue", name);
  history.replaceState(null, "", url);
  for (let failures = 0; epoch === S.epoch; failures++) {
    try {
      if (leaving) await locked(() => call("/api/release", { tab: S.tab, queue: S.queue }));
      await refresh();
      break;
    } catch (error) {
      if (error.status === 401) { renderBar(); return; }
      showTrouble(error);
      if (!error.passing) return;
      await sleep(Math.min(5000, 500 * 2 ** failures));
    }
  }
  if (epoch !== S.epoch) return;
  drafts.clean();
  await Promise.race([send(), sleep(2000)]); // the server should have all commits before it gives a page
  if (epoch === S.epoch) fill(true);
}

function release() {
  const body = new Blob([JSON.stringify({ tab: S.tab, queue: S.queue })], { type: "application/json" });
  if (S.camera) navigator.sendBeacon("/api/release", body);
}

function queueButtons(close) {
  return el("div", { class: "choices" }, ...S.queues.map((queue, i) => el("button", {
    type: "button", "data-queue": queue.name, "aria-current": queue.name === S.queue,
    onclick: () => { close?.(); if (queue.name !== S.queue || !S.page) openQueue(queue.name); },
  }, el("kbd", {}, String(i + 1)), el("span", {}, queue.title), el("small", {}, !queue.total ? "empty" : queue.left ? `${number(queue.left)} left of ${number(queue.total)}` : `all ${number(queue.total)} done`))));
}

function chooseQueue() {
  hideZoom();
  $("queue-list").replaceChildren(queueButtons(() => $("queues").close()));
  $("queues").showModal();
  ($("queue-list").querySelector('[aria-current="true"]') ?? $("queue-list").querySelector("button"))?.focus();
}

// ----------------------------------------------------------------------- panels in place of the grid

function showPanel(...content) {
  grid.replaceChildren();
  grid.classList.add("away"); // the grid keeps its size, which determines the size of the next page
  panel.replaceChildren(el("div", { class: "card" }, ...content));
  panel.hidden = false;
  $("ask").textContent = "";
  renderLegend();
  if (!document.querySelector("dialog[open]")) panel.focus({ preventScroll: true });
}

function showWaiting() {
  delete panel.dataset.testid;
  if (S.trouble) showTrouble(new Failure(0, S.trouble));
  else showPanel(el("h2", {}, "Loading the crops…"));
}

function showTrouble(error) {
  panel.dataset.testid = "trouble";
  showPanel(
    el("h2", {}, error.passing ? "The next page does not load" : "The server did not give a page"),
    el("p", {}, `${error.message[0].toUpperCase()}${error.message.slice(1)}.`),
    el("p", {}, error.passing ? "Trying again. What you committed is kept in this browser." : ""),
    el("div", { class: "actions" },
      el("button", { type: "button", onclick: () => (S.camera ? fill() : openQueue(S.queue)) }, "Try again"),
      S.queues.length ? el("button", { type: "button", onclick: chooseQueue }, "Other queues ", el("kbd", {}, "q")) : null),
  );
}

function finish() {
  panel.dataset.testid = "done";
  if (root.dataset.page) root.dataset.page = "";
  const queue = S.queues.find((one) => one.name === S.queue);
  const unsent = outbox.pages().filter((entry) => entry.queue === S.queue).length;
  const { done, left } = queue ? progressOf(queue) : { done: 0, left: 0 };
  const pace = paceNow(), agreement = S.agreement ?? {};
  const others = S.queues.filter((one) => one.name !== S.queue && one.left > 0);
  const lines = [
    queue && (queue.total ? `${number(done)} of ${count(queue.total, "crop")} done.` : S.empty && `${S.empty[0].toUpperCase()}${S.empty.slice(1)}.`),
    S.sitting.crops && `You answered ${count(S.sitting.crops, "crop")} on ${count(S.sitting.pages, "page")}${pace ? `, ${number(pace)} a minute` : ""}.`,
    unsent && `${count(unsent, "page")} still to be sent; leave this window open.`,
    S.waiting > 0 && `${count(S.waiting, "crop")} open on other screens. This page checks again automatically.`,
    left > S.waiting && !unsent && "Some are open in your other windows. After a crash they return within ten minutes.",
    agreement.crops > 0 && `${agreementText(agreement)}.`,
    agreement.conflicts > 0 && `${count(agreement.conflicts, "crop")} with answers that do not agree.`,
  ];
  showPanel(
    el("h2", {}, queue && !queue.total ? "This queue is empty" : left > 0 ? "Nothing left for you here" : "This queue is done"),
    ...lines.filter(Boolean).map((line) => el("p", {}, line)),
    ...(S.next && queue?.total ? [el("h3", {}, "What comes next"), el("div", { class: "code" }, el("code", { tabindex: "0" }, S.next), copyButton(S.next))] : []),
    ...(others.length ? [el("h3", {}, "Other queues with work"), otherButtons(others)] : []),
    el("div", { class: "actions" },
      el("button", { type: "button", onclick: undo }, "Undo the last page ", el("kbd", {}, "u")),
      el("button", { type: "button", onclick: () => fill() }, "Check again ", el("kbd", {}, "Enter"))),
  );
  markNext();
}

function otherButtons(others) {
  return el("div", { class: "choices" }, ...others.map((queue) => el("button", {
    type: "button", "data-queue": queue.name, onclick: () => openQueue(queue.name),
  }, el("span", {}, queue.title), el("small", {}, `${number(queue.left)} left`))));
}

function copyButton(text) {
  const button = el("button", { type: "button" }, "Copy");
  button.addEventListener("click", async () => {
    try { await navigator.clipboard.writeText(text); } catch { // not over plain http
      getSelection().selectAllChildren(button.previousSibling);
      document.execCommand("copy");
    }
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  });
  return button;
}

// ------------------------------------------------------------------------------- bar, question, legend

function paceNow() {
  const crops = S.paces.reduce((sum, one) => sum + one.n, 0), ms = S.paces.reduce((sum, one) => sum + one.ms, 0);
  return ms > 0 ? Math.round(crops / ms * 60_000) : 0;
}

// Crops in the outbox count as done for the reviewer.
function progressOf(queue) {
  const unsent = outbox.pages().filter((entry) => entry.queue === queue.name)
    .reduce((sum, entry) => sum + Object.keys(entry.answers).length, 0);
  return { done: Math.min(queue.total, queue.done + unsent), left: Math.max(0, queue.left - unsent) };
}

const agreementText = (agreement) => agreement.kappa === null || agreement.kappa === undefined
  ? `Agreement: ${count(agreement.crops, "crop")} seen twice, too few for a kappa`
  : `Agreement: kappa ${agreement.kappa.toFixed(2)} on ${count(agreement.crops, "crop")}`;

function renderBar() {
  const queue = S.queues.find((one) => one.name === S.queue);
  $("camera").textContent = S.camera;
  $("queue").textContent = queue?.title ?? (S.queue || "Queues");
  $("reviewer").textContent = S.reviewer;
  document.title = S.camera ? `${S.camera}: review` : "Review";
  if (queue) {
    const { done, left } = progressOf(queue), pace = paceNow(), minutes = pace ? left / pace : 0;
    $("progress-bar").max = Math.max(1, queue.total);
    $("progress-bar").value = done;
    $("progress-text").textContent = [
      `${number(done)} / ${number(queue.total)}`,
      left && done === queue.total ? `${number(left)} for a second reviewer` : `${number(left)} left`, pace && `${number(pace)} / min`,
      pace && left && (minutes < 1 ? "under 1 min to go" : `${number(Math.round(minutes))} min to go`),
    ].filter(Boolean).join(" · ");
  }
  const agreement = S.agreement ?? {};
  const parts = [
    agreement.crops > 0 && agreement.kappa !== null && agreement.kappa !== undefined && `kappa ${agreement.kappa.toFixed(2)}`,
    agreement.conflicts > 0 && count(agreement.conflicts, "conflict"),
  ].filter(Boolean);
  $("agreement").textContent = parts.join(" · ");
  $("agreement").title = agreement.crops > 0 ? agreementText(agreement) : "";
  $("agreement").hidden = !parts.length;
  const unsent = outbox.pages().length;
  $("unsent").hidden = !unsent || !(sendFailures || S.ended || refused.size || unsent > 2);
  const text = `${count(unsent, "page")} unsent${S.ended || refused.size >= unsent ? "" : `, trying again${sendFailures ? sendTrouble : ""}`}`;
  if ($("unsent").textContent !== text) $("unsent").textContent = text; // screen readers announce each change
  if (!panel.hidden && panel.dataset.testid === "done") finishSoon();
}

// The panel at the end shows the server's latest state; the focus does not move.
let finishing = 0;
function finishSoon() {
  clearTimeout(finishing);
  finishing = setTimeout(() => {
    if (S.page || panel.hidden || panel.dataset.testid !== "done" || panel.contains(document.activeElement) && document.activeElement !== panel) return;
    finish();
  }, 50);
}

function renderAlerts() {
  const alerts = [];
  if (S.ended) alerts.push(el("div", { class: "alert", role: "alert", "data-testid": "ended" }, el("span", {}, S.ended)));
  for (const [id, why] of refused) {
    const crops = Object.keys(outbox.get(id)?.answers ?? {}).length;
    const done = () => { refused.delete(id); renderAlerts(); send(); renderBar(); focusCursor(); };
    alerts.push(el("div", { class: "alert", role: "alert", "data-testid": "refused" },
      el("span", {}, `The server refused a page of ${count(crops, "crop")}: ${why}`),
      el("button", { type: "button", onclick: done }, "Try again"),
      el("button", { type: "button", onclick: () => { outbox.remove(id); kept.delete(id); done(); } }, "Discard")));
  }
  $("alerts").replaceChildren(...alerts);
}

function renderAsk() {
  const { suggested, sorted, judged } = S.page;
  const ask = (...words) => $("ask").replaceChildren(...words);
  if (judged) ask("Reviewers do not agree. ", el("b", {}, "What are these?"));
  else if (sorted) ask(el("b", {}, "What are these?"), el("small", {}, "The team does not know. Those that it takes for alike stand together: give each run its class."));
  else if (!suggested) ask(el("b", {}, "What are these?"), el("small", {}, "Give a class to each one that you know."));
  else if (suggested === "unknown") ask("Are all of these ", el("b", {}, "none of the classes"), "?", el("small", {}, "Mark the ones that belong to a class."));
  else ask("All of these are ", el("b", {}, about(suggested).title), "?", el("small", {}, "Mark the ones that are not."));
}

function renderLegend() {
  const page = S.page, legend = $("legend");
  if (legend.childElementCount !== S.labels.length + 2) {
    legend.replaceChildren(...S.labels.map((one) => el("button", {
      type: "button", "data-label": one.label, "data-colour": one.colour, tabindex: "-1",
      onclick: () => { give(one.label); focusCursor(); },
    }, el("kbd", {}, one.key), el("i"), one.title, el("output"))),
    el("span", { class: "open" }),
    el("span", { class: "hint" }, el("kbd", {}, "Enter"), " commit  ", el("kbd", {}, "u"), " undo  ", el("kbd", {}, "z"), " zoom  ", el("kbd", {}, "?"), " keys"));
  }
  legend.classList.toggle("away", !page);
  if (!page) return;
  const counts = new Map();
  for (const cell of page.cells) {
    const label = effective(page, cell);
    counts.set(label, (counts.get(label) ?? 0) + 1);
  }
  for (const button of legend.querySelectorAll("button")) {
    button.classList.toggle("asked", button.dataset.label === page.suggested);
    button.querySelector("output").textContent = counts.get(button.dataset.label) ?? 0;
  }
  const open = counts.get("?") ?? 0, bare = page.suggested ? 0 : counts.get("") ?? 0;
  legend.querySelector(".open").textContent = open ? `? ${open} without a class` : bare ? `${bare} not answered` : "";
}

// ------------------------------------------------------------------------------------------------ zoom

const zoom = { timer: 0, sticky: false, turn: 0 };

function hideZoom() {
  clearTimeout(zoom.timer);
  zoom.turn += 1;
  zoom.sticky = false;
  if (zoomBox.hidden) return;
  zoomBox.hidden = true;
  zoomBox.replaceChildren();
}

async function showZoom(sticky) {
  const page = S.page, cell = page?.cells[page.cursor];
  if (!cell) return;
  const turn = (zoom.turn += 1);
  zoom.sticky = sticky;
  clearTimeout(zoom.timer);
  const facts = el("p", {}, el("b", {}, `Crop ${page.cursor + 1} of ${page.cells.length}`));
  const large = el("img", { class: "large", alt: "", src: cell.img.currentSrc || cell.img.src });
  zoomBox.dataset.crop = cell.id;
  zoomBox.replaceChildren(large, facts);
  zoomBox.hidden = false;
  placeZoom(cell);
  let context;
  try { context = await call(path("api/context", cell.id)); } catch { return; }
  if (turn !== zoom.turn) return;
  const time = context.time === null || context.time === undefined ? null : new Date(context.time * 1000)
    .toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "medium" });
  const words = [
    time, context.video?.split(/[/\\]/).pop(), (context.track ?? "") !== "" && `track ${context.track}`,
    context.frame >= 0 && `frame ${context.frame}`,
  ];
  facts.append(...words.filter(Boolean).map((word) => ` · ${word}`));
  if (context.still) {
    const still = el("img", { class: "still", alt: "The frame around it", src: path("frame", cell.id) });
    still.onerror = () => { still.remove(); placeZoom(cell); };
    zoomBox.append(still);
  }
  const mates = (context.mates ?? []).filter((id) => String(id) !== cell.id);
  if (mates.length) {
    zoomBox.append(
      el("p", {}, `${count(mates.length, "other crop")} of the same track`),
      el("div", { class: "mates" }, ...mates.slice(0, 10).map((id) => el("img", { alt: "", src: path("crop", id) }))));
  }
  placeZoom(cell);
}

// Place the zoom beside the crop, on the side with more room, so that it never covers the crop.
function placeZoom(cell) {
  const at = cell.node.getBoundingClientRect(), margin = 10;
  const left = at.left - 2 * margin, right = innerWidth - at.right - 2 * margin;
  const width = Math.min(Math.max(left, right), Math.max(440, Math.min(760, innerWidth * 0.34)));
  zoomBox.style.setProperty("width", `${width}px`);
  zoomBox.style.setProperty("left", `${right >= left ? at.right + margin : at.left - margin - width}px`);
  // Keep the legend visible: its keys are needed while the zoom is open.
  const floor = $("legend").getBoundingClientRect().top - 8;
  zoomBox.style.setProperty("max-height", `${floor - 16}px`);
  const top = at.top + at.height / 2 - zoomBox.offsetHeight / 2;
  const highest = Math.max(8, Math.min(grid.getBoundingClientRect().top, floor - zoomBox.offsetHeight));
  zoomBox.style.setProperty("top", `${Math.max(highest, Math.min(floor - zoomBox.offsetHeight, top))}px`);
}

// -------------------------------------------------------------------------------------- mouse, keyboard

grid.addEventListener("pointermove", (event) => {
  if (S.mouse?.x === event.clientX && S.mouse?.y === event.clientY) return; // the page scrolled under the mouse
  S.mouse = { x: event.clientX, y: event.clientY };
  const node = event.target.closest(".cell");
  if (!node || !S.page) return;
  const i = S.page.index.get(node.dataset.crop);
  const sticky = zoom.sticky, zoomed = !zoomBox.hidden && zoomBox.dataset.crop === node.dataset.crop;
  if (i !== S.page.cursor) moveCursor(i, { scroll: false });
  if (zoomed || sticky) return;
  hideZoom();
  zoom.timer = setTimeout(showZoom, HOVER_MS, false);
});
grid.addEventListener("pointerleave", () => { if (!zoom.sticky) hideZoom(); });
grid.addEventListener("scroll", () => {
  if (S.page) S.page.seen = Math.max(S.page.seen, grid.scrollTop + grid.clientHeight);
  hideZoom();
}, { passive: true });
// A rectangle that is dragged with the mouse marks the crops that it touches, beside those that are marked.
let drag = null, dragged = false;
const rectangle = el("div", { class: "rectangle", hidden: "", "aria-hidden": "true" });
document.body.append(rectangle);

grid.addEventListener("mousedown", (event) => {
  event.preventDefault(); // prevents text selection and keeps the focus
  dragged = false;
  if (event.button || !S.page) return;
  drag = { x: event.clientX, y: event.clientY + grid.scrollTop, page: S.page, before: new Set(S.page.selected) };
});
addEventListener("mousemove", (event) => {
  if (!drag) return;
  if (!(event.buttons & 1) || drag.page !== S.page) { endDrag(); return; }
  const y = event.clientY + grid.scrollTop;
  if (!dragged && Math.hypot(event.clientX - drag.x, y - drag.y) < DRAG_PX) return;
  dragged = true;
  hideZoom();
  const left = Math.min(drag.x, event.clientX), right = Math.max(drag.x, event.clientX);
  const top = Math.min(drag.y, y) - grid.scrollTop, bottom = Math.max(drag.y, y) - grid.scrollTop;
  rectangle.hidden = false;
  Object.assign(rectangle.style, { left: `${left}px`, top: `${top}px`, width: `${right - left}px`, height: `${bottom - top}px` });
  S.page.selected = new Set(drag.before);
  for (const cell of S.page.cells) {
    const at = cell.node.getBoundingClientRect();
    if (at.left < right && at.right > left && at.top < bottom && at.bottom > top) S.page.selected.add(cell.id);
  }
  S.base = null;
  touched();
});
function endDrag() {
  drag = null;
  rectangle.hidden = true;
}
addEventListener("mouseup", endDrag);
addEventListener("blur", endDrag);
grid.addEventListener("click", (event) => {
  const node = event.target.closest(".cell");
  if (dragged) { dragged = false; return; } // the end of a rectangle
  if (!node || !S.page) return;
  hideZoom();
  const i = S.page.index.get(node.dataset.crop);
  moveCursor(i, { scroll: false });
  if (event.shiftKey) extend(i);
  else toggle(i);
});

const HELP = [
  [["Click", "Space"], "mark a crop as wrong; again: as right"],
  [["Shift+click", "Shift+←→↑↓"], "mark a range"],
  [["Drag"], "mark the crops in a rectangle, too"],
  [["Ctrl+A", "Esc"], "mark all; clear marks without a class"],
  [["←→↑↓", "Home", "End", "PgUp", "PgDn"], "move the cursor, which also follows the mouse"],
  [["1", "2", "3", "…"], "give a class to the marked crops, or to the one at the cursor"],
  [["."], "the last class again: for the marked crops, or all from the one that got it to the cursor"],
  [["0", "x"], "none of these; unusable: cannot be judged"],
  [["Backspace"], "remove the label of a crop"],
  [["Enter"], "commit the page: unmarked crops are right"],
  [["u", "Ctrl+Z"], "undo the last page; again: the one before"],
  [["z"], "zoom: the crop large, its frame, its track (or rest the mouse on it)"],
  [["q"], "queues"],
  [["+", "-"], "larger, smaller crops"],
  [["t", "?"], "light or dark; these keys"],
];

function showHelp() {
  hideZoom();
  $("help-keys").replaceChildren(...HELP.flatMap(([keys, what]) => [
    el("dt", {}, ...keys.flatMap((key) => [el("kbd", {}, key), " "])), el("dd", {}, what)]));
  $("help").showModal();
}

function turnTheme() {
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
  store.set("collabteam:theme", root.dataset.theme);
}

function go(event, to) {
  const page = S.page;
  if (!page) return;
  S.mouse = null; // the keyboard controls the cursor now
  if (!zoom.sticky) hideZoom();
  moveCursor(to);
  if (event.shiftKey) extend(page.cursor);
  else { S.anchor = page.cursor; S.base = null; }
}

const moves = {
  ArrowLeft: () => S.page.cursor - 1,
  ArrowRight: () => S.page.cursor + 1,
  ArrowUp: () => (S.page.cursor >= S.columns ? S.page.cursor - S.columns : S.page.cursor),
  ArrowDown: () => (S.page.cursor + S.columns < S.page.cells.length ? S.page.cursor + S.columns : S.page.cursor),
  Home: () => 0,
  End: () => S.page.cells.length - 1,
  PageUp: () => leap(-1),
  PageDown: () => leap(1),
};
function leap(way) {
  const { cursor, cells } = S.page, rows = Math.max(1, Math.floor(grid.clientHeight / (S.cell + GAP)));
  let to = cursor + way * rows * S.columns;
  while (to < 0) to += S.columns;
  while (to >= cells.length) to -= S.columns;
  return to;
}

const commands = {
  Enter: commit,
  " ": () => S.page && toggle(S.page.cursor),
  Backspace: () => give(null),
  Delete: () => give(null),
  ".": giveRun,
  Escape() {
    if (!zoomBox.hidden) hideZoom();
    else if (S.page) { S.page.selected = new Set(); S.base = null; touched(); }
  },
  u: () => undo(),
  z: () => (zoomBox.hidden ? showZoom(true) : hideZoom()),
  q: chooseQueue,
  t: turnTheme,
  "?": showHelp,
  "+": () => resize(1),
  "=": () => resize(1),
  "-": () => resize(-1),
};

function dialogKey(event, dialog) {
  if (dialog.id === "help") { if (event.key === "?") { event.preventDefault(); dialog.close(); } return; }
  const buttons = [...$("queue-list").querySelectorAll("button")], at = buttons.indexOf(document.activeElement);
  const step = { q: 1, ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (step) { event.preventDefault(); buttons.at((at + step) % buttons.length)?.focus(); }
  else if (/^[1-9]$/.test(event.key)) buttons[event.key - 1]?.click();
}

addEventListener("keydown", (event) => {
  const dialog = document.querySelector("dialog[open]");
  if (dialog) { dialogKey(event, dialog); return; }
  let action;
  if (event.ctrlKey || event.metaKey) {
    const key = event.key.toLowerCase();
    if (key === "z" && !event.shiftKey) action = undo;
    if (key === "a" && S.page) action = () => { S.page.selected = new Set(S.page.cells.map((cell) => cell.id)); touched(); };
  } else if (!event.altKey && !event.isComposing) {
    const onButton = event.target.closest?.("button");
    if (onButton && (event.key === "Enter" || event.key === " ")) return; // the button handles the key
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    const digit = event.shiftKey ? null : /^(?:Digit|Numpad)(\d)$/.exec(event.code)?.[1]; // AZERTY needs Shift for digits
    const label = S.labels.find((one) => one.key === key) ?? (commands[key] ? null : S.labels.find((one) => one.key === digit));
    if (moves[key]) action = () => S.page && go(event, moves[key]());
    else if (commands[key]) action = commands[key];
    else if (label) action = () => give(label.label);
  }
  if (!action) return;
  event.preventDefault();
  if (event.key !== "z") clearTimeout(zoom.timer);
  action(event);
});

for (const [id, action] of [["queue", chooseQueue], ["theme", turnTheme], ["keys", showHelp]]) {
  $(id).addEventListener("click", () => { action(); focusCursor(); });
}
for (const dialog of document.querySelectorAll("dialog")) dialog.addEventListener("close", focusCursor);

// ------------------------------------------------------------------------------------- life of the tab

function wake() {
  if (document.visibilityState !== "visible") return;
  if (!S.camera) { if (S.ended) openQueue(S.queue); return; }
  refresh().then(() => {
    for (const cell of S.page?.cells ?? []) if (cell.state === "missing") loadPicture(cell, () => {});
    if (!S.page) fill();
  }).catch(() => {});
  send();
}

addEventListener("online", () => { send(); fill(); });
document.addEventListener("visibilitychange", wake);
setInterval(wake, POLL_MS);
addEventListener("storage", (event) => {
  if (!event.key?.startsWith(outbox.prefix())) return;
  renderBar();
  if (event.newValue === null) refresh().catch(() => {}); // another tab sent it
});
addEventListener("pagehide", release);
addEventListener("pageshow", (event) => { if (event.persisted) location.reload(); }); // its leases have been released
addEventListener("beforeunload", (event) => { if (outbox.pages().length) event.preventDefault(); });
new ResizeObserver(() => { if (S.page) { layout(); S.page.seen = Math.max(S.page.seen, grid.clientHeight); } }).observe(grid);

// ----------------------------------------------------------------------------------------------- start

S.size = Math.min(CELL.largest, Number(store.get("collabteam:size")) || 0);
const theme = store.get("collabteam:theme");
if (theme === "light" || theme === "dark") root.dataset.theme = theme;
S.filling = -1;
S.tab = await nameTab();
openQueue(S.queue);
