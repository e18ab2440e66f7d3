// Makes the upload form better: drop or paste a picture anywhere on the page, see it at once, search without a click.
// The form works without this script. Reads data-upload, data-max-bytes, data-preview, data-hint, data-state.

const PREVIEW_SIDE = 384;

function enhance(form) {
  const input = form.querySelector('input[type="file"]');
  const preview = form.querySelector("[data-preview]");
  const state = form.querySelector("[data-state]");
  const maxBytes = Number(form.dataset.maxBytes);

  function say(text, kind) {
    state.textContent = text;
    state.dataset.kind = kind;
  }

  function rest() {
    form.removeAttribute("aria-busy");
    input.value = ""; // else choosing the same picture again after going back would change nothing
    preview.hidden = true;
    say("", "idle");
  }

  async function show(file) {
    let bitmap;
    try {
      bitmap = await createImageBitmap(file);
    } catch {
      preview.hidden = true; // a format that this browser cannot show; the service may well read it
      return;
    }
    const scale = Math.min(1, PREVIEW_SIDE / Math.max(bitmap.width, bitmap.height));
    preview.width = Math.max(1, Math.round(bitmap.width * scale));
    preview.height = Math.max(1, Math.round(bitmap.height * scale));
    preview.getContext("2d").drawImage(bitmap, 0, 0, preview.width, preview.height);
    bitmap.close();
    preview.hidden = false;
  }

  function take(file) {
    if (file.size > maxBytes) {
      // Said here, because a browser may lose the server's answer while it is still sending.
      input.value = "";
      preview.hidden = true;
      say(`That file has ${file.size.toLocaleString()} bytes; at most ${maxBytes.toLocaleString()} are taken.`, "problem");
      return;
    }
    show(file);
    form.requestSubmit();
  }

  function takeFrom(transfer) {
    const file = transfer?.files[0];
    if (!file) return false;
    const list = new DataTransfer();
    list.items.add(file);
    input.files = list.files;
    take(file);
    return true;
  }

  input.addEventListener("change", () => {
    if (input.files.length) take(input.files[0]);
  });

  form.addEventListener("submit", (event) => {
    if (form.getAttribute("aria-busy") === "true") {
      event.preventDefault();
      return;
    }
    form.setAttribute("aria-busy", "true");
    say("Looking for similar images…", "busy");
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
}

for (const form of document.querySelectorAll("form[data-upload]")) enhance(form);
