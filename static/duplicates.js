// Keeps what a person decides about duplicates from page to page, and sends all of it with the plan.

const form = document.querySelector("[data-duplicates]");
const STORED = `lookalike-duplicates ${form?.dataset.duplicates}`;

/** What was decided otherwise than proposed: image id -> "keep" or "remove". */
function decided() {
  try {
    return JSON.parse(sessionStorage.getItem(STORED)) ?? {};
  } catch {
    return {};
  }
}

function remember(choices) {
  try {
    sessionStorage.setItem(STORED, JSON.stringify(choices));
  } catch {
    // No room, or not allowed: what is decided on this page counts all the same.
  }
}

const boxes = [...form.querySelectorAll("input[name=keep]")];
const forget = form.querySelector("[data-forget]");
const state = form.querySelector("[data-state]");
const submits = [...form.querySelectorAll("button[type=submit]")];

function show() {
  const count = Object.keys(decided()).length;
  let empty = false;
  for (const set of form.querySelectorAll("[data-set]")) {
    const own = [...set.querySelectorAll("input[name=keep]")];
    const lost = own.length > 0 && !own.some((box) => box.checked);
    set.querySelector("[data-problem]").hidden = !lost;
    set.toggleAttribute("data-lost", lost);
    empty ||= lost;
  }
  forget.hidden = count === 0;
  const images = count === 1 ? "1 image" : `${count} images`;
  state.textContent = empty
    ? "Of a set on this page nothing would be kept."
    : count > 0
      ? `You decided otherwise about ${images}, on this page and others; that counts too.`
      : "";
  for (const button of submits) button.disabled = empty;
}

function take(box) {
  const choices = decided();
  if (box.checked === box.defaultChecked) delete choices[box.value];
  else choices[box.value] = box.checked ? "keep" : "remove";
  remember(choices);
  show();
}

/** Send what was decided on other pages too; of this page, the boxes themselves. */
function complete(event) {
  const here = new Set(boxes.map((box) => box.value));
  for (const [id, action] of Object.entries(decided())) {
    if (!here.has(id)) event.formData.append(action, id);
  }
}

if (boxes.length > 0) {
  const before = decided();
  for (const box of boxes) {
    if (box.value in before) box.checked = before[box.value] === "keep";
    box.addEventListener("change", () => take(box));
  }
  form.addEventListener("formdata", complete);
  form.addEventListener("keydown", (event) => {
    // It would press the first button, which may be the one that moves the files out.
    if (event.key === "Enter" && event.target.type === "checkbox") event.preventDefault();
  });
  forget.addEventListener("click", () => {
    sessionStorage.removeItem(STORED);
    for (const box of boxes) box.checked = box.defaultChecked;
    show();
  });
  for (const hint of form.querySelectorAll("[data-here]")) hint.hidden = true;
  show();
}
