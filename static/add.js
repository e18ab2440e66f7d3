// Adds pictures to the collection a few at a time, with progress for each: chosen, dropped, or a whole folder of them.
// The form works without this script. Reads data-add, data-max-bytes, data-files, data-row, data-state, data-again, data-stop.

const A_REQUEST = 12;
const PICTURE = /\.(jpe?g|jpe|jfif|png|apng|webp|gif|bmp|dib|tiff?|jp2|j2k|jpx|jpf|j2c|hei[cf]|hif|avif)$/i;

const form = document.querySelector("form[data-add]");
const input = form.querySelector("input[name=file]");
const whole = form.querySelector("[data-whole]");
const label = form.querySelector("[name=folder]");
const list = document.querySelector("[data-files]");
const template = document.querySelector("[data-row]");
const state = document.querySelector("[data-state]");
const after = document.querySelector("[data-after]");
const again = after.querySelector("[data-again]");
const stop = after.querySelector("[data-stop]");
const maxBytes = Number(form.dataset.maxBytes);
const most = Math.min(A_REQUEST, Number(form.dataset.most));

let waiting = [];
let sending = null; // the request under way
const counts = { added: 0, known: 0, failed: 0, passed: 0 };

function say(text, kind = "idle") {
  state.textContent = text;
  state.dataset.kind = kind;
}

function told(count, one, many) {
  return `${count.toLocaleString("en")} ${count === 1 ? one : many}`;
}

function summary() {
  const parts = [`${counts.added.toLocaleString("en")} added`];
  if (counts.known) parts.push(`${counts.known.toLocaleString("en")} here already`);
  if (counts.failed) parts.push(`${counts.failed.toLocaleString("en")} not taken`);
  if (counts.passed) parts.push(`${told(counts.passed, "file that is no picture", "files that are no pictures")} passed over`);
  return parts.join(", ");
}

/** What is shown of a file. */
function newRow(name) {
  const row = template.content.firstElementChild.cloneNode(true);
  row.querySelector(".name").textContent = name;
  list.append(row);
  list.hidden = false;
  return row;
}

function outcome(row, status, text) {
  row.dataset.status = status;
  row.querySelector(".outcome").textContent = text;
  row.querySelector("progress")?.remove();
}

function showResult(item, result) {
  counts[result.status] += 1;
  if (result.status === "failed") {
    outcome(item.row, "failed", result.error.message);
    return;
  }
  outcome(item.row, result.status, result.status === "added" ? "Added" : "Was here already");
  if (!result.image) return;
  const { page_url: page, thumbnail } = result.image;
  const picture = document.createElement("img");
  Object.assign(picture, { src: thumbnail.url, width: thumbnail.width, height: thumbnail.height, alt: "", loading: "lazy" });
  const link = document.createElement("a");
  link.href = page;
  link.tabIndex = -1; // the name beside it leads to the same page
  link.setAttribute("aria-hidden", "true");
  link.append(picture);
  item.row.querySelector(".no-picture").replaceWith(link);
  const name = document.createElement("a");
  name.href = page;
  name.textContent = item.name;
  item.row.querySelector(".name").replaceChildren(name);
}

/** Take files that were chosen: those that can be sent wait for their turn. `path` is "folder/name" of a whole folder. */
function take(files) {
  for (const { file, path } of files) {
    if (!PICTURE.test(file.name) && !/^image\/(?!svg)/.test(file.type)) {
      counts.passed += 1;
      continue;
    }
    const item = { file, path, name: file.name, row: newRow(file.name) };
    if (file.size > maxBytes) {
      counts.failed += 1;
      outcome(item.row, "failed", `It has ${file.size.toLocaleString("en")} bytes; at most ${maxBytes.toLocaleString("en")} are taken.`);
    } else {
      item.row.querySelector(".outcome").textContent = "Waits";
      waiting.push(item);
    }
  }
  if (!sending) next();
}

/** Take as many of the waiting files as one request may hold. */
function nextBatch() {
  let bytes = 0;
  let count = 0;
  while (count < waiting.length && count < most && (count === 0 || bytes + waiting[count].file.size <= maxBytes)) {
    bytes += waiting[count].file.size;
    count += 1;
  }
  return waiting.splice(0, count);
}

/** Share what was sent of a request among its files, in their order. */
function progress(batch, share) {
  let left = share * batch.reduce((sum, item) => sum + item.file.size, 0);
  for (const item of batch) {
    const own = Math.min(item.file.size, left);
    left -= own;
    const bar = item.row.querySelector("progress");
    if (share >= 1) bar?.removeAttribute("value");
    else if (bar) bar.value = (100 * own) / Math.max(1, item.file.size);
    item.row.querySelector(".outcome").textContent = share >= 1 ? "Is looked at …" : own > 0 ? "Is sent …" : "Waits";
  }
}

function send(batch) {
  return new Promise((resolve, reject) => {
    const body = new FormData();
    if (label.value.trim()) body.append("folder", label.value.trim());
    for (const { file, path } of batch) body.append("file", file, path || file.name);
    sending = new XMLHttpRequest();
    sending.open("POST", form.dataset.add);
    sending.responseType = "json";
    sending.upload.addEventListener("progress", (event) => progress(batch, event.loaded / Math.max(1, event.total)));
    sending.upload.addEventListener("load", () => progress(batch, 1));
    sending.addEventListener("load", () => {
      if (sending.status === 200) resolve(sending.response.results);
      else reject(new Error(sending.response?.error?.message ?? `The service answered ${sending.status}.`));
    });
    sending.addEventListener("error", () => reject(new Error("The service cannot be reached.")));
    sending.addEventListener("abort", () => reject(new Error("Stopped.")));
    sending.send(body);
  });
}

function working(isWorking) {
  form.toggleAttribute("aria-busy", isWorking);
  if (isWorking) form.setAttribute("aria-busy", "true");
  stop.hidden = !isWorking;
  after.hidden = stop.hidden && again.hidden;
}

async function next() {
  again.hidden = true;
  while (waiting.length) {
    const batch = nextBatch();
    working(true);
    say(`${summary()}; ${told(waiting.length + batch.length, "picture", "pictures")} to go.`, "busy");
    try {
      const results = await send(batch);
      results.forEach((result, place) => showResult(batch[place], result));
    } catch (error) {
      waiting = [...batch, ...waiting];
      for (const item of batch) {
        item.row.querySelector("progress").value = 0;
        item.row.querySelector(".outcome").textContent = "Waits";
      }
      sending = null;
      again.hidden = false;
      working(false);
      say(`${error.message} ${told(waiting.length, "picture waits", "pictures wait")}; nothing is lost of those before.`, "problem");
      return;
    }
  }
  sending = null;
  working(false);
  say(`${summary()}.`);
}

// What was chosen, and what was dropped.

function takeChosen(field) {
  take([...field.files].map((file) => ({ file, path: file.webkitRelativePath })));
  field.value = "";
}

/** All files of what was dropped, with those in folders at any depth. */
async function dropped(entry, folder = "") {
  if (entry.isFile) {
    const file = await new Promise((resolve, reject) => entry.file(resolve, reject));
    return [{ file, path: folder ? `${folder}/${file.name}` : "" }];
  }
  const reader = entry.createReader();
  const found = [];
  for (;;) {
    const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (!some.length) return found;
    for (const inner of some) {
      if (!inner.name.startsWith(".")) found.push(...(await dropped(inner, entry.name)));
    }
  }
}

async function takeDropped(items) {
  const entries = [...items].map((item) => item.webkitGetAsEntry()).filter(Boolean); // gone after the first await
  for (const entry of entries) take(await dropped(entry));
}

input.addEventListener("change", () => takeChosen(input));
whole.addEventListener("change", () => takeChosen(whole));
form.querySelector("[data-choose-folder]").addEventListener("click", () => whole.click());
form.addEventListener("submit", (event) => event.preventDefault());
again.addEventListener("click", next);
stop.addEventListener("click", () => sending?.abort());
document.addEventListener("paste", (event) => {
  const files = [...(event.clipboardData?.files ?? [])];
  if (files.length) take(files.map((file) => ({ file, path: "" })));
});
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  form.toggleAttribute("data-dragging", true);
});
document.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) form.removeAttribute("data-dragging");
});
document.addEventListener("drop", (event) => {
  event.preventDefault();
  form.removeAttribute("data-dragging");
  takeDropped(event.dataTransfer.items);
});
window.addEventListener("beforeunload", (event) => {
  if (sending) event.preventDefault();
});

input.required = false;
form.querySelector("button[type=submit]").hidden = true;
form.querySelector("[data-hint]").hidden = false;
form.querySelector("[data-plain]").hidden = true;
