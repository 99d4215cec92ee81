// The page: upload, list, outline, ask, open what was quoted. No library: the browser has all of it.

const byId = (id) => document.getElementById(id);
const documents = new Map(); // id → document, as the service describes it
const excluded = new Set(); // ids that a question leaves out

/** An element with text and children; texts are never taken for markup. */
function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (typeof value === "function") made.addEventListener(key, value);
    else if (value !== false) made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children);
  return made;
}

/** Ask the service; a refusal becomes an Error with its own words. */
async function ask(path, options = {}) {
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new Error("The service does not answer. It may be restarting; try again.");
  }
  if (response.status === 401) signIn();
  if (!response.ok) throw new Error(await problemOf(response));
  return response;
}

async function problemOf(response) {
  try {
    const body = await response.json();
    return `${body.title}: ${body.detail}`;
  } catch {
    return `The service answered ${response.status}.`;
  }
}

function notice(text) {
  byId("notice").textContent = text;
}

// --- documents

async function refresh() {
  try {
    const listed = (await (await ask("v1/documents")).json()).documents;
    documents.clear();
    for (const one of listed) documents.set(one.id, one);
    render();
    listed.filter((one) => !["ready", "failed"].includes(one.status)).forEach((one) => follow(one.id));
  } catch (error) {
    notice(error.message);
  }
}

const followed = new Map();

/** Keep a document's line up to date while it is indexed. */
function follow(id) {
  if (followed.has(id)) return;
  const source = new EventSource(`v1/documents/${id}/events`);
  followed.set(id, source);
  const end = () => {
    source.close();
    followed.delete(id);
  };
  source.addEventListener("document", (event) => {
    const now = JSON.parse(event.data);
    documents.set(id, now);
    render();
    if (["ready", "failed"].includes(now.status)) end();
  });
  source.addEventListener("problem", end);
}

function render() {
  byId("documents").replaceChildren(...[...documents.values()].map(line));
  if (!documents.size) byId("documents").append(element("li", {}, "None yet. Add one above."));
  renderScope();
}

function renderScope() {
  const ready = [...documents.values()].filter((one) => one.status === "ready");
  const asked = ready.filter((one) => !excluded.has(one.id));
  byId("scope").textContent =
    ready.length === 0 ? "Add a document first." : `${asked.length} of ${ready.length} documents are read.`;
}

const opened = new Set();

function line(one) {
  const item = element("li", { "data-id": one.id });
  const name = element("span", { class: "name" }, one.name);
  if (one.status === "ready") {
    const box = element("input", { type: "checkbox", checked: !excluded.has(one.id), change: (event) => {
      if (event.target.checked) excluded.delete(one.id);
      else excluded.add(one.id);
      renderScope();
    } });
    item.append(element("label", {}, box, name));
    const size = one.page_count ? `${one.page_count} pages, ` : "";
    item.append(element("p", { class: "meta" }, `${size}${one.node_count} sections`));
    one.warnings.forEach((text) => item.append(element("p", { class: "meta" }, text)));
  } else {
    item.append(name);
  }
  if (one.status === "queued") item.append(element("p", { class: "meta" }, "waits to be indexed"));
  if (one.status === "indexing") {
    const { phase, done, total } = one.progress ?? { phase: "", done: 0, total: 0 };
    const text = total ? `${phase}: ${done} of ${total}` : phase;
    const bar = element("progress", total ? { value: done, max: total } : {});
    bar.setAttribute("aria-label", `Indexing ${one.name}`);
    item.append(element("p", { class: "meta" }, text), bar);
  }
  if (one.status === "failed") item.append(element("p", { class: "error" }, one.error.detail));
  const buttons = element("p", { class: "row" });
  if (one.status === "ready") {
    const shown = opened.has(one.id);
    buttons.append(element("button", {
      type: "button", class: "quiet", "aria-expanded": String(shown), "aria-label": `Outline of ${one.name}`,
      click: () => { if (shown) opened.delete(one.id); else opened.add(one.id); render(); focusOn(one.id); },
    }, "Outline"));
  }
  buttons.append(element("button", {
    type: "button", class: "quiet", "aria-label": `Delete ${one.name}`, click: () => remove(one),
  }, "Delete"));
  item.append(buttons);
  if (opened.has(one.id)) {
    const place = element("div", { class: "outline" });
    item.append(place);
    outline(one, place);
  }
  return item;
}

function focusOn(id) {
  document.querySelector(`[data-id="${id}"] button`)?.focus();
}

const trees = new Map();

async function outline(one, place) {
  try {
    if (!trees.has(one.id)) trees.set(one.id, await (await ask(`v1/documents/${one.id}/tree`)).json());
    const { structure, unit } = trees.get(one.id);
    place.replaceChildren(...structure.map((node) => section(one, node, unit)));
  } catch (error) {
    place.replaceChildren(element("p", { class: "error" }, error.message));
  }
}

function section(one, node, unit) {
  const open = element("button", {
    type: "button", class: "quiet",
    click: () => read(one.id, one.name, unit, node.start_index, Math.min(node.end_index, node.start_index + 49), ""),
  }, `Read ${unit} ${node.start_index}`);
  return element("details", {}, element("summary", {}, node.title),
    element("p", {}, node.summary), element("p", {}, open),
    ...node.nodes.map((child) => section(one, child, unit)));
}

async function remove(one) {
  if (!confirm(`Delete ${one.name}? The file, its text and its index are erased.`)) return;
  try {
    await ask(`v1/documents/${one.id}`, { method: "DELETE" });
    documents.delete(one.id);
    trees.delete(one.id);
    notice("");
    render();
    byId("file").focus();
  } catch (error) {
    notice(error.message);
  }
}

// --- upload

byId("file").addEventListener("change", async (event) => {
  notice("");
  const chosen = [...event.target.files];
  event.target.value = "";
  // One after the other: a key may have a limit of requests at a time, and one a minute, which are waited for.
  for (const send of chosen.map(upload)) {
    for (let seconds = await send(); seconds > 0; seconds = await send()) {
      await new Promise((resolve) => setTimeout(resolve, seconds * 1000));
    }
  }
});

/** Show a file that is to be sent. Returns what sends it, and tells after how many seconds to try again (0: it is done). */
function upload(file) {
  const bar = element("progress", { max: 1, value: 0, "aria-label": `Uploading ${file.name}` });
  const item = element("li", {}, file.name, bar);
  byId("uploads").append(item);
  // XMLHttpRequest, because fetch does not tell how much has been sent.
  return () => new Promise((resolve) => {
    const request = new XMLHttpRequest();
    request.upload.addEventListener("progress", (event) => { if (event.total) bar.value = event.loaded / event.total; });
    request.addEventListener("loadend", () => {
      if (request.status === 429) {
        bar.value = 0;
        resolve(Number(request.getResponseHeader("Retry-After")) || 1);
        return;
      }
      item.remove();
      let body = {};
      try { body = JSON.parse(request.responseText); } catch { /* the status says it */ }
      if (request.status === 200 || request.status === 202) {
        if (request.status === 200) notice(`${file.name} is here already, as ${body.name}.`);
        documents.set(body.id, body);
        render();
        if (!["ready", "failed"].includes(body.status)) follow(body.id);
      } else {
        if (request.status === 401) signIn();
        notice(`${file.name}: ${body.detail ?? "it could not be sent; is the service running?"}`);
      }
      resolve(0);
    });
    request.open("POST", "v1/documents");
    const form = new FormData();
    form.append("file", file);
    request.send(form);
  });
}

// --- questions

const DOING = { rank: "looking for words", choose: "choosing sections", read: "reading", answer: "answering", verify: "checking quotes" };

byId("ask").addEventListener("submit", async (event) => {
  event.preventDefault();
  const question = byId("question").value.trim();
  if (!question) return;
  const button = event.target.querySelector("button");
  button.disabled = true;
  byId("answer").hidden = true;
  byId("steps").textContent = "Working: looking for words …";
  try {
    const ready = [...documents.values()].filter((one) => one.status === "ready");
    const ids = excluded.size ? ready.filter((one) => !excluded.has(one.id)).map((one) => one.id) : null;
    const response = await ask("v1/query", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ question, document_ids: ids, stream: true }),
    });
    let ended = false;
    for await (const [name, data] of eventsOf(response)) {
      if (name === "step") byId("steps").textContent = `Working: ${DOING[data.step] ?? data.step} …`;
      if (name === "draft") drafted(data.text);
      if (name === "problem") throw new Error(`${data.title}: ${data.detail}`);
      if (name === "answer") { show(question, data); ended = true; }
    }
    if (!ended) throw new Error("The answer was cut off. Ask again.");
    byId("steps").textContent = "";
  } catch (error) {
    byId("steps").textContent = error.message;
  } finally {
    drafted("");
    button.disabled = false;
  }
});

/** What the model writes, before anything of it is checked. */
function drafted(text) {
  byId("draft").textContent = text;
  byId("draft").hidden = !text;
  if (text) byId("steps").textContent = "A draft, not checked yet:";
}

/** Name and data of each server-sent event of a response. */
async function* eventsOf(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    text += value;
    const blocks = text.split("\n\n");
    text = blocks.pop();
    for (const block of blocks) {
      const lines = block.split("\n").filter((one) => !one.startsWith(":"));
      const field = (name) => lines.find((one) => one.startsWith(`${name}: `))?.slice(name.length + 2);
      if (field("data")) yield [field("event") ?? "", JSON.parse(field("data"))];
    }
  }
}

function show(question, { answer, found, citations, trace }) {
  byId("asked").textContent = question;
  byId("answer-text").textContent = found ? answer : "Not found in the documents.";
  byId("citations").replaceChildren(...citations.map((one) => element("li", {},
    element("button", { type: "button", class: "quiet", click: () => openCitation(one) },
      element("q", {}, one.quote), `${one.document_name}, ${placeOf(one)}${one.verified ? " ✓ checked" : " (not verified)"}`))));
  byId("trace-steps").replaceChildren(...trace.steps.map((step) =>
    element("li", {}, `${DOING[step.step] ?? step.step}: ${step.seconds.toFixed(1)} s`)));
  byId("answer").hidden = false;
}

function placeOf({ pages, lines }) {
  if (pages.length) return `page ${pages.join(", ")}`;
  return lines[0] === lines[1] ? `line ${lines[0]}` : `lines ${lines[0]}-${lines[1]}`;
}

function openCitation({ document_id: id, document_name: name, pages, lines, quote }) {
  const unit = pages.length ? "page" : "line";
  // Of a text some lines around the quote, to see where it stands.
  const [first, last] = pages.length ? [pages[0], pages.at(-1)] : [Math.max(1, lines[0] - 10), lines[1]];
  return read(id, name, unit, first, last, quote);
}

/** Show some pages in the reader, the quote marked. */
async function read(id, name, unit, first, last, quote) {
  try {
    const { texts } = await (await ask(`v1/documents/${id}/pages?first=${first}&last=${last}`)).json();
    const range = first === last ? `${unit} ${first}` : `${unit}s ${first}-${last}`;
    byId("reader-heading").textContent = `${name}, ${range}`;
    byId("original").href = `v1/documents/${id}/original${unit === "page" ? `#page=${first}` : ""}`;
    drawPage(unit === "page" ? `v1/documents/${id}/pages/${first}/image?${new URLSearchParams({ quote })}` : "", range, name);
    byId("reader-text").replaceChildren(...marked(texts.join(unit === "page" ? "\n\n" : "\n"), quote));
    byId("reader").showModal();
    byId("reader-text").querySelector("mark")?.scrollIntoView({ block: "center" });
  } catch (error) {
    byId("steps").textContent = error.message;
  }
}

/** The page as it looks, beside its text; without a picture the text has the room. */
function drawPage(address, range, name) {
  const image = byId("reader-image");
  image.hidden = true;
  image.onload = () => { image.hidden = false; };
  image.alt = address ? `${name}, ${range}, as it looks; its text stands beside it` : "";
  if (address) image.src = address;
  else image.removeAttribute("src");
}

/** The text with the quote in a mark, wherever its lines are broken in the text. */
function marked(text, quote) {
  const words = quote.split(/\s+/).filter(Boolean).map((word) => word.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"));
  const found = words.length ? new RegExp(words.join("[\\s\\u00ad-]*\\s*")).exec(text) : null;
  if (!found) return [text];
  const end = found.index + found[0].length;
  return [text.slice(0, found.index), element("mark", {}, found[0]), text.slice(end)];
}

byId("close").addEventListener("click", () => byId("reader").close());

// --- readiness

async function readiness() {
  try {
    const answer = await (await fetch("readyz")).json();
    const model = answer.checks.llm;
    byId("readiness").textContent = answer.status === "ready" ? "Ready" : `Not ready: ${(model.ok ? answer.checks.store : model).detail}`;
  } catch {
    byId("readiness").textContent = "The service does not answer.";
  }
}

// --- who asks

function signIn() {
  if (!byId("sign-in").open) byId("sign-in").showModal();
}

async function session() {
  const { key_required: required, name, external_llm: external } = await (await ask("v1/session")).json();
  byId("who").hidden = !(required && name);
  byId("who-name").textContent = name ?? "";
  byId("external").hidden = !external;
  byId("external").textContent = external
    ? `The text of documents and questions leaves this machine: they are read by ${external}.` : "";
  return name !== null;
}

byId("sign-in-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const response = await fetch("v1/session", {
    method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ key: byId("key").value }),
  });
  byId("sign-in-problem").textContent = response.ok ? "" : await problemOf(response);
  if (!response.ok) return;
  byId("key").value = "";
  byId("sign-in").close();
  start();
});

// Without a key there is nothing to see behind it.
byId("sign-in").addEventListener("cancel", (event) => event.preventDefault());

byId("sign-out").addEventListener("click", async () => {
  await ask("v1/session", { method: "DELETE" });
  location.reload();
});

async function start() {
  notice("");
  try {
    if (await session()) await refresh();
    else signIn();
  } catch (error) {
    notice(error.message);
  }
}

start();
readiness();
setInterval(readiness, 30_000);
