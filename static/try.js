// Sends what the forms of the page of the API ask, and shows request and answer below them. Reads data-try (the method),
// data-path, data-list, data-number, data-scripted, data-told. Without this script, forms without a part of the address still work.

const MOST_SHOWN = 20000; // characters of an answer

function values(field) {
  const text = field.value.trim();
  return "list" in field.dataset ? text.split(",").map((part) => part.trim()).filter(Boolean) : text ? [text] : [];
}

// What is no number is sent as it is, so that the service can say what is wrong with it.
function plain(field, text) {
  return "number" in field.dataset && /^-?\d*\.?\d+$/.test(text) ? Number(text) : text;
}

// For a shell, whatever stands in it.
function quoted(text) {
  return `'${text.replaceAll("'", "'\\''")}'`;
}

function asked(form) {
  const method = form.dataset.try;
  const fields = [...form.elements].filter((field) => field.name);
  let path = form.getAttribute("action");
  const rest = [];
  for (const field of fields) {
    if ("path" in field.dataset) path = path.replace(`{${field.name}}`, encodeURIComponent(field.value.trim()));
    else rest.push(field);
  }
  const files = rest.filter((field) => field.type === "file").flatMap((field) => [...field.files].map((file) => [field.name, file]));
  const texts = rest.filter((field) => field.type !== "file");
  if (method !== "POST") {
    const query = new URLSearchParams(texts.flatMap((field) => values(field).map((value) => [field.name, value])));
    const url = String(query) ? `${path}?${query}` : path;
    return { method, url, curl: `curl ${method === "GET" ? "" : `-X ${method} `}${quoted(location.origin + url)}` };
  }
  if (files.length) {
    const body = new FormData();
    for (const field of texts) for (const value of values(field)) body.append(field.name, value);
    for (const [name, file] of files) body.append(name, file);
    const said = [...body].map(([name, value]) => ` -F ${quoted(`${name}=${value instanceof File ? `@${value.name}` : value}`)}`);
    return { method, url: path, body, curl: `curl${said.join("")} ${quoted(location.origin + path)}` };
  }
  const json = {};
  for (const field of texts) {
    const given = values(field).map((value) => plain(field, value));
    if (given.length) json[field.name] = "list" in field.dataset ? given : given[0];
  }
  const body = JSON.stringify(json);
  return { method, url: path, body, json: true, curl: `curl --json ${quoted(body)} ${quoted(location.origin + path)}` };
}

function line(tag, text, className) {
  const element = document.createElement(tag);
  element.textContent = text;
  if (className) element.className = className;
  return element;
}

async function shown(answer, url) {
  const type = answer.headers.get("Content-Type") ?? "";
  if (type.startsWith("image/")) {
    const picture = document.createElement("img");
    picture.alt = "The picture that was answered";
    picture.src = URL.createObjectURL(await answer.blob());
    picture.addEventListener("load", () => URL.revokeObjectURL(picture.src));
    return picture;
  }
  if (type.startsWith("application/octet-stream")) return line("p", `${(await answer.blob()).size.toLocaleString("en")} bytes.`);
  const text = await answer.text();
  const told = type.startsWith("application/json") && text ? JSON.stringify(JSON.parse(text), null, 2) : text;
  const block = line("pre", told.length > MOST_SHOWN ? `${told.slice(0, MOST_SHOWN)}\n… ${told.length.toLocaleString("en")} characters in all` : told);
  block.tabIndex = 0; // so that the keyboard can scroll it
  return block;
}

async function ask(form) {
  const place = form.querySelector("[data-told]");
  const { method, url, body, json, curl } = asked(form);
  form.setAttribute("aria-busy", "true");
  const parts = [line("pre", curl, "curl")];
  parts[0].tabIndex = 0;
  try {
    const started = performance.now();
    const answer = await fetch(url, { method, body, headers: json ? { "Content-Type": "application/json" } : {}, cache: "no-store" });
    const state = line("p", `${answer.status} ${answer.statusText} · ${Math.round(performance.now() - started)} ms`, "outcome-of-try");
    state.dataset.kind = answer.ok ? "good" : "problem";
    parts.push(state, await shown(answer, url));
  } catch (error) {
    parts.push(line("p", `There was no answer: ${error.message}`, "outcome-of-try"));
  }
  form.removeAttribute("aria-busy");
  place.replaceChildren(...parts);
  place.hidden = false;
  place.focus({ preventScroll: true });
  place.scrollIntoView({ block: "nearest" });
}

// A link to an operation or a shape opens it.
function open() {
  const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (target instanceof HTMLDetailsElement) target.open = true;
}

for (const field of document.querySelectorAll("[data-list]")) field.placeholder = "several, with commas"; // parted by this script
for (const form of document.querySelectorAll("[data-try]")) {
  form.querySelector("[data-scripted]")?.removeAttribute("hidden");
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    ask(form);
  });
}
window.addEventListener("hashchange", open);
open();
