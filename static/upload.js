// Makes the upload form better: drop or paste pictures anywhere on the page, see them at once, search without a click. The form works
// without this script. Reads data-upload, data-max-bytes, data-kept-minutes, data-previews, data-hint, data-state.

import { forgetSent, keepSent } from "./kept.js";

const PREVIEW_SIDE = 384;
const MOST_PREVIEWS = 12;

function enhance(form) {
  const inputs = [...form.querySelectorAll('input[type="file"]')];
  const [input] = inputs;
  const previews = form.querySelector("[data-previews]");
  const state = form.querySelector("[data-state]");
  const maxBytes = Number(form.dataset.maxBytes);

  function say(text, kind) {
    state.textContent = text;
    state.dataset.kind = kind;
  }

  function rest() {
    form.removeAttribute("aria-busy");
    for (const one of inputs) one.value = ""; // else choosing the same picture again after going back would change nothing
    previews.hidden = true;
    say("", "idle");
  }

  function refuse(text) {
    rest();
    say(text, "problem");
  }

  async function preview(file) {
    let bitmap;
    try {
      bitmap = await createImageBitmap(file);
    } catch {
      return; // a format that this browser cannot show; the service may well read it
    }
    const canvas = document.createElement("canvas");
    const scale = Math.min(1, PREVIEW_SIDE / Math.max(bitmap.width, bitmap.height));
    canvas.width = Math.max(1, Math.round(bitmap.width * scale));
    canvas.height = Math.max(1, Math.round(bitmap.height * scale));
    canvas.getContext("2d").drawImage(bitmap, 0, 0, canvas.width, canvas.height);
    bitmap.close();
    previews.append(canvas);
    previews.hidden = false;
  }

  /** Say what is wrong with the files here, because a browser may lose the server's answer while it is still sending. */
  function problemOf(files) {
    const bytes = files.reduce((sum, file) => sum + file.size, 0);
    if (bytes <= maxBytes) return null;
    const what = files.length === 1 ? "That file has" : `Those ${files.length} files have together`;
    return `${what} ${bytes.toLocaleString()} bytes; at most ${maxBytes.toLocaleString()} are taken.`;
  }

  function take(files) {
    const problem = problemOf(files);
    if (problem) {
      refuse(problem);
      return;
    }
    previews.replaceChildren();
    files.slice(0, MOST_PREVIEWS).forEach(preview);
    form.requestSubmit();
  }

  function takeFrom(transfer) {
    const files = [...(transfer?.files ?? [])];
    if (!files.length) return false;
    if (form.getAttribute("aria-busy") === "true") return true;
    const list = new DataTransfer();
    for (const file of files) list.items.add(file);
    input.files = list.files;
    take(files);
    return true;
  }

  for (const one of inputs) {
    one.addEventListener("change", () => {
      if (one.files.length) take([...one.files]);
    });
  }

  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (form.getAttribute("aria-busy") === "true") return;
    const files = inputs.flatMap((one) => [...one.files]);
    if (!files.length) {
      refuse("Choose a picture first.");
      return;
    }
    form.setAttribute("aria-busy", "true");
    say("Looking for similar images…", "busy");
    await keepSent(files, Number(form.dataset.keptMinutes));
    form.submit();
  });

  document.addEventListener("paste", (event) => {
    if (takeFrom(event.clipboardData)) event.preventDefault();
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
    if (!takeFrom(event.dataTransfer)) say("That was not a file. Save the picture first, then drop the file.", "problem");
  });

  // Going back shows the page as it was left, which may be busy.
  window.addEventListener("pageshow", rest);

  form.querySelector("[data-hint]").hidden = false;
  forgetSent(Number(form.dataset.keptMinutes));
}

for (const form of document.querySelectorAll("form[data-upload]")) enhance(form);
